"""What is trained: adapters on features, tunings of a backbone."""
