"""What may be said of annotations that cover a part of a volume: see ``compute.known_voxels``."""

from __future__ import annotations

AUTO, WHOLE = "auto", "whole"
PLANES = ("sagittal", "coronal", "axial")
"""Slices by the patient's axis (R, A, S) that they follow each other along."""
WORDS = (AUTO, *PLANES, WHOLE)
"""What may be said of a support in place of a mask."""
