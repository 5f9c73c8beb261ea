"""What the results in a folder can be written as, and how their names end."""

from __future__ import annotations

FORMATS = {
    "nii.gz": "_seg.nii.gz",
    "nrrd": "_seg.nrrd",
    "seg.nrrd": ".seg.nrrd",
    "dicom-seg": "_seg.dcm",
}


def volume_name(result: str) -> str:
    """What a result in a folder is called by: its file's name without the ending."""
    endings = [ending for ending in FORMATS.values() if result.endswith(ending)]
    return result.removesuffix(endings[0]) if endings else result
