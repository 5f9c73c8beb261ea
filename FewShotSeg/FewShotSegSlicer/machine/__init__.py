"""This computer: models, methods, packages, estimates, the engine."""
