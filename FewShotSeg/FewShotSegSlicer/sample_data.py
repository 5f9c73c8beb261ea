"""The tutorial's data in Slicer's Sample Data module: synthetic patients, made when asked for."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from FewShotSegLib.core.json_fields import load_json

from .interface.rows import Progress
from .messages import tell_error

CATEGORY = "FewShotSeg"
NAME = "FewShotSegPhantoms"
PATIENTS = 4
"""The last one comes without its annotation, to be segmented."""


def register(icon_path: str) -> None:
    """Offer the phantoms; called once Slicer has started, when Sample Data is there."""
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName=NAME,
        thumbnailFileName=icon_path,
        uris=[""],
        fileNames=[""],
        nodeNames=[""],
        customDownloader=lambda source: make_patients(),
    )


def make_patients() -> list[Any]:
    """Make the patients in the background process, and load them.

    Returns:
        volumes and segmentations, in order; empty if making them failed, which has been said.
    """
    logic = slicer.util.getModuleLogic("FewShotSeg")
    with tempfile.TemporaryDirectory() as folder:
        try:
            logic.startPhantoms(folder, PATIENTS)
        except Exception as error:
            tell_error(str(error))
            return []
        stop = logic.listen(_tell_progress)
        try:
            end = logic.wait()
        finally:
            stop()
        if end.state == "cancelled":
            return []
        if end.state != "finished":
            tell_error(end.message)
            return []
        return load_patients(Path(folder))


def _tell_progress(notice: Any) -> None:
    """In the status bar, since the panel may not be open."""
    if isinstance(notice, Progress):
        slicer.util.showStatusMessage(f"FewShotSeg: {notice.text}", 3000)


def load_patients(folder: Path) -> list[Any]:
    """Load what ``write_phantoms`` wrote; the last patient without the annotation.

    The first patient alone is on screen afterwards. Files are loaded one by one, and the
    application has its turn between them.
    """
    names = load_json(folder / "labels.json", "list of labels")
    images = sorted(folder.glob("*_ct.nii.gz"))
    nodes: list[Any] = []
    for number, image in enumerate(images, 1):
        text = _("FewShotSeg: loading patient {number} of {count}")
        slicer.util.showStatusMessage(text.format(number=number, count=len(images)), 3000)
        slicer.app.processEvents()
        volume = slicer.util.loadVolume(
            str(image), {"name": _("Phantom {number}").format(number=number)}
        )
        nodes.append(volume)
        if number < len(images):
            slicer.app.processEvents()
            nodes.append(_load_annotation(image, volume, names))
            nodes[-1].GetDisplayNode().SetVisibility(number == 1)
    if nodes:
        slicer.util.setSliceViewerLayers(background=nodes[0], foreground=None, fit=True)
    return nodes


def _load_annotation(image: Path, volume: Any, names: dict[str, str]) -> Any:
    """The label map beside an image as a segmentation of named segments."""
    path = image.with_name(image.name.replace("_ct", "_seg"))
    segmentation = slicer.util.loadSegmentation(
        str(path), {"name": f"{volume.GetName()} segmentation"}
    )
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segments = segmentation.GetSegmentation()
    for number in range(segments.GetNumberOfSegments()):
        segment = segments.GetNthSegment(number)
        segment.SetName(names.get(str(segment.GetLabelValue()), segment.GetName()))
    return segmentation
