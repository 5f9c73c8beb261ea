"""Pre-training by episodes from one small file of packed label maps and images, on CPU or GPU."""
