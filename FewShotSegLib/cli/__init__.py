"""The ``fewshotseg`` command, from its flags to its exit status."""

from .command_line import main

__all__ = ["main"]
