"""``fewshotseg benchmark``: methods against each other on drawn supports, and their table."""
