"""From MRML nodes to a job's raw arrays, in small steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from FewShotSegLib.core.job_protocol import ArrayFile, MaskFile, SupportFiles, array_steps

from ..scene.geometry import labelmap_affine, labelmap_array, volume_affine, volume_array
from ..scene.segments import labelmap_of, labelmap_steps


@dataclass(frozen=True)
class SupportNodes:
    """One support to hand over: ``classes`` tells which structure each segment is."""

    volume: Any
    segmentation: Any
    classes: Mapping[str, str]


def volume_steps(folder: Path, file: str, volume: Any, into: list[ArrayFile]) -> Iterator[None]:
    """Write a volume's voxels; the file is appended to ``into`` at the end.

    The array is copied once, because VTK may move it; that is the one long call.

    Raises:
        InputError: the volume can't be used; the sentence says why.
    """
    affine = volume_affine(volume)
    array = volume_array(volume).copy(order="K")
    yield
    for _ in array_steps(folder / file, array):
        yield
    into.append(ArrayFile(file, affine.tolist()))


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
            array = labelmap_array(image)
            if array is None:
                continue
            affine = labelmap_affine(image, support.segmentation)
            file = f"labels{number}_{len(written)}.npy"
            array = array.copy(order="K")
            yield
            for _ in array_steps(folder / file, array):
                yield
            written[key] = ArrayFile(file, affine.tolist())
        masks.append(MaskFile(structure, written[key], value))
    into.append(SupportFiles(volumes[0], masks))


def supports_steps(
    folder: Path, supports: Sequence[SupportNodes], into: list[SupportFiles]
) -> Iterator[None]:
    """Write several supports, one after the other."""
    for number, support in enumerate(supports):
        yield from support_steps(folder, number, support, into)
