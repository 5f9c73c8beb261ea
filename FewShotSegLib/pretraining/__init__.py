"""Pre-training a foundation model on an assembly of partially labelled data: eq. (1)."""
