"""FewShotSeg's engine: few-shot segmentation of 3D medical images with frozen foundation models.

    import FewShotSegLib as fss

    adapter = fss.adapt([("ct1.nii.gz", "seg1.nii.gz"), ("ct2.nii.gz", "seg2.nii.gz")],
                        structures="4=parotid_right,5=parotid_left",
                        out="parotids.fseft")
    result = fss.segment(adapter, "ct3.nii.gz", out="ct3_seg.nii.gz")
    print(result.report["structures"]["parotid_left"]["volume_ml"])

Importing this package loads neither torch nor any of the modules that need it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "adapt": ".pipeline",
    "segment": ".pipeline",
    "segment_each": ".pipeline",
    "suggest": ".pipeline",
    "read_support": ".pipeline",
    "Segmentation": ".pipeline",
    "Suggestions": ".pipeline",
    "evaluate": ".evaluation.comparing",
    "Runtime": ".pipeline",
    "Progress": ".cli.progress",
    "Outcomes": ".pipeline.outcomes",
    "write_phantoms": ".phantoms.patients",
    "add_model": ".models.formats",
    "TrainedAdapter": ".pipeline.adapter_file",
    "AdaptOptions": ".core.options",
    "SegmentOptions": ".core.options",
    "TrainingSettings": ".core.settings",
    "Support": ".training.support_set",
    "Structure": ".core.annotation",
    "Annotation": ".core.annotation",
    "Volume": ".core.geometry",
    "Grid": ".core.geometry",
    "FewShotSegError": ".core.errors",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name], __name__), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    """What a notebook offers: the public names, which are loaded when they are first used."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
