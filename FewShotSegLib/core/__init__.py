"""What both processes share: the standard library and numpy alone, no torch."""
