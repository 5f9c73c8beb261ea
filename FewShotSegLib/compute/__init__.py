"""The machine: precision, cores, memory, stopping in the middle of the work."""
