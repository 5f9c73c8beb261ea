"""A trained adapter over a whole volume; the soft size of a query."""
