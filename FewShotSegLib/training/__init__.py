"""Supports, crops, losses, the loop; transduction on a query."""
