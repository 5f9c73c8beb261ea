"""The panel, a file a section."""
