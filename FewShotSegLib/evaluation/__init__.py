"""How good it is: metrics, and benchmarks of methods."""
