"""What the background process needs of Slicer's Python, and what of it is not there yet."""

from __future__ import annotations

from importlib.util import find_spec

REQUIREMENTS = {
    "torch": "torch>=2.4",
    "monai": "monai>=1.4",
    "safetensors": "safetensors>=0.4",
    "scipy": "scipy>=1.11",
    "requests": "requests>=2.31",
    "filelock": "filelock>=3.12",
    "tqdm": "tqdm>=4.66",
    "SimpleITK": "SimpleITK>=2.3",
}
"""By the name they are imported by. Nothing is imported to find out: torch stays out of Slicer."""


def missing_packages() -> list[str]:
    """Requirements that this Python lacks."""
    return [requirement for name, requirement in REQUIREMENTS.items() if find_spec(name) is None]
