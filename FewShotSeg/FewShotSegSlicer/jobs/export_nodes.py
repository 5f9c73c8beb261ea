"""From MRML nodes to a job's raw arrays, in small steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.job_protocol import (
    ArrayFile,
    MaskFile,
    SupportFiles,
    moving_array_steps,
)

from ..scene.geometry import labelmap_affine, labelmap_array, volume_affine, volume_array
from ..scene.segments import labelmap_of, labelmap_steps

TRIES = 5
"""So often the copying of voxels begins anew where they were changed meanwhile."""


@dataclass(frozen=True)
class SupportNodes:
    """One support to hand over: ``classes`` tells which structure each segment is."""

    volume: Any
    segmentation: Any
    classes: Mapping[str, str]


def volume_steps(folder: Path, file: str, volume: Any, into: list[ArrayFile]) -> Iterator[None]:
    """Write a volume's voxels; the file is appended to ``into`` at the end.

    Raises:
        InputError: the volume can't be used; the sentence says why.
    """
    affine = volume_affine(volume)
    yield from _steady_steps(
        folder / file,
        lambda: volume_array(volume),
        lambda: volume.GetImageData().GetPointData().GetScalars(),
        volume.GetName(),
    )
    into.append(ArrayFile(file, affine.tolist()))


def _steady_steps(
    path: Path, look: Callable[[], Any], scalars: Callable[[], Any], name: str
) -> Iterator[None]:
    """Write voxels piece by piece straight from where VTK has them now; from the beginning again
    where they were changed meanwhile.

    Raises:
        InputError: they are changed all the time, or are gone.
    """
    for _try in range(TRIES):
        shape = look().shape  # first: it says what can't be used
        found = scalars()
        stamp = (found, found.GetMTime(), shape)

        def looked(stamp: Any = stamp) -> Any:
            array, now = look(), scalars()
            if (now, now.GetMTime(), array.shape) != stamp:
                raise _Changed
            return array

        try:
            for _piece in moving_array_steps(path, looked):
                yield
            return
        except _Changed:
            continue
    raise InputError(
        _("«{name}» is being changed. Wait until that is done, and try again.").format(name=name)
    )


class _Changed(Exception):
    """Voxels are not what they were when their copying began."""


def support_steps(
    folder: Path, number: int, support: SupportNodes, into: list[SupportFiles]
) -> Iterator[None]:
    """Write one support: its voxels, and each label array of its segments once.

    Raises:
        InputError: a node can't be used; the sentence says why.
    """
    volumes: list[ArrayFile] = []
    yield from volume_steps(folder, f"volume{number}.npy", support.volume, volumes)
    source = support.segmentation
    for found in labelmap_steps(support.segmentation, support.volume):
        source = found or source
        yield
    masks: list[MaskFile] = []
    written: dict[str, ArrayFile] = {}
    for segment_id, structure in support.classes.items():
        labelmap = labelmap_of(source, segment_id)
        if labelmap is None:
            continue
        image, value = labelmap
        # Segments that share a label map share a file; converted copies keep the parent's place.
        key = image.GetAddressAsString("")
        if key not in written:
            if labelmap_array(image) is None:
                continue
            affine = labelmap_affine(image, support.segmentation)
            file = f"labels{number}_{len(written)}.npy"
            yield from _steady_steps(
                folder / file,
                lambda image=image: labelmap_array(image),  # type: ignore[misc]
                lambda image=image: image.GetPointData().GetScalars(),  # type: ignore[misc]
                support.segmentation.GetName(),
            )
            written[key] = ArrayFile(file, affine.tolist())
        masks.append(MaskFile(structure, written[key], value))
    into.append(SupportFiles(volumes[0], masks))


def supports_steps(
    folder: Path, supports: Sequence[SupportNodes], into: list[SupportFiles]
) -> Iterator[None]:
    """Write several supports, one after the other."""
    for number, support in enumerate(supports):
        yield from support_steps(folder, number, support, into)
