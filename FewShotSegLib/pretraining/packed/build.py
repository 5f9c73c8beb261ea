"""Volumes of any folder into a pack: on small grids, in 8 bits, with what is to be kept hidden."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from ...core.errors import FewShotSegError, InputError
from ...core.json_fields import is_number, json_object, load_json
from ...core.modality import MODALITIES
from ...io.pairs import find_pairs
from ...io.volumes import array_of, extension_of, grid_of, read_file, read_image
from ...models.preprocessing import Preprocessing
from ...pipeline.adapter_file import content_hash
from ..cases import nearest_to_model
from .correspondence import registered_supervoxels
from .pack import Group, PackedVolume, find_places, write_pack

GREYS = 64
"""Grey values that are kept of an image: more is a scanner's noise, which does not compress."""
MARGIN = 4
"""Voxels around what is labelled that are kept."""
COMPACT = 6.0
"""How much supervoxels keep to their place rather than to edges, as SimpleITK's SLIC counts it."""
AIR = 3 / GREYS
"""Intensity below which a CT's voxel is no part of a supervoxel."""


def build_pack(
    description: str | os.PathLike[str],
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Write the pack that a JSON file describes.

    Its fields are listed in Documentation/reference/pretraining-fields.md.

    Raises:
        InputError: the description or a file can't be used. StorageError: it can't be written.
    """
    head = json_object(load_json(description, "description"), "it", ("groups",), ())
    if not isinstance(head["groups"], list) or not head["groups"]:
        raise InputError(f"'groups' of {description} is a list of one or more")
    groups, volumes, seen = [], [], set()
    for number, part in enumerate(head["groups"]):
        try:
            group, members, images = _group(part, Path(data), number, say)
            seen |= {content_hash(read_image(image)) for image in images}
        except FewShotSegError as error:
            raise InputError(f"The description {description}: {str(error).rstrip('.')}.") from error
        groups.append(group)
        volumes += members
        say(f"{group.name}: {len(members)} volumes, {group.shared} structures")
    write_pack(Path(out), groups, volumes, sorted(seen))
    say(f"{out}: {Path(out).stat().st_size / 2**20:.1f} MiB")


def _group(
    data: Any, folder: Path, number: int, say: Callable[[str], None]
) -> tuple[Group, list[PackedVolume], list[Path]]:
    """A group, its volumes, and the files of its images."""
    data = json_object(
        data,
        "a group",
        ("name", "folder", "modality", "spacing", "zoom"),
        ("labels", "together", "hidden", "weight", "images", "cases", "exclude", "most")
        + ("low", "high", "supervoxels", "registered"),
    )
    if data["modality"] not in MODALITIES:
        raise InputError("a group's modality is CT or MR")
    sources = _sources(folder / data["folder"], bool(data.get("images", False)))
    chosen = data.get("cases")
    sources = [s for s in sources if (chosen is None or s[0] in chosen)]
    sources = [s for s in sources if s[0] not in data.get("exclude", [])][: data.get("most")]
    if not sources:
        raise InputError(f"the group '{data['name']}' has no cases")
    preprocessing = None
    if data.get("images"):
        kind = "window" if data["modality"] == "CT" else "percentiles"
        preprocessing = Preprocessing(
            "RAS", tuple(data["spacing"]), kind, data.get("low"), data.get("high")
        )
    shape = Preprocessing("RAS", tuple(data["spacing"]), "identity")
    read = [_read(*source, preprocessing or shape, bool(data.get("images"))) for source in sources]
    # Label values become 1, 2, ... in the order of the list; those not listed are no structure.
    values = data.get("labels")
    if values is None:
        values = sorted({int(v) for _, labels, _ in read for v in np.unique(labels)} - {0})
    table = {int(v): n for n, v in enumerate(values, 1)}
    for several in data.get("together", []):
        table |= {int(v): table[int(several[0])] for v in several}
    # One that no volume shows needs no hiding.
    hidden = tuple(sorted({table[int(v)] for v in data.get("hidden", []) if int(v) in table}))
    maps = [_numbered(labels, table) for _, labels, _ in read]
    shared = len(values)
    if data.get("supervoxels"):
        side, images = data["supervoxels"], [image for _, _, image in read if image is not None]
        if data.get("registered"):
            maps, shared = _with_registered(maps, images, data["spacing"], shared, side, say)
        maps = [_with_supervoxels(m, i, shared, side) for m, i in zip(maps, images, strict=True)]
    volumes: list[PackedVolume] = []
    for (name, _, image), numbered in zip(read, maps, strict=True):
        box = _box(numbered if image is None else image)
        numbered = numbered[box]
        places = find_places(numbered, hidden, len(volumes))
        if numbered.max() < 256:
            numbered = numbered.astype(np.uint8)
        volumes.append(
            PackedVolume(
                name,
                number,
                tuple(float(mm) for mm in data["spacing"]),
                torch.from_numpy(np.ascontiguousarray(numbered)),
                None if image is None else torch.from_numpy(np.ascontiguousarray(image[box])),
                places,
            )
        )
    weight = data.get("weight", 1)
    if not is_number(weight) or weight <= 0:
        raise InputError(f"the weight of '{data['name']}' is a number above 0")
    zoom = tuple(float(z) for z in data["zoom"])
    return (
        Group(data["name"], data["modality"], shared, hidden, zoom, float(weight)),
        [replace(volume, group=number) for volume in volumes],
        [image for _, image, _ in sources if image is not None],
    )


def _sources(root: Path, images: bool) -> list[tuple[str, Path | None, Path]]:
    """Name, image and label map of each case."""
    if images:
        return [(pair.name, pair.image, pair.segmentation) for pair in find_pairs(root)]
    if root.is_file():
        return [(root.name.split(".")[0], None, root)]
    if not root.is_dir():
        raise InputError(f"there is nothing at {root}")
    files = [f for f in sorted(root.iterdir()) if f.is_file() and extension_of(f)]
    return [(f.name[: -len(extension_of(f))], None, f) for f in files]


def _read(
    name: str, image: Path | None, segmentation: Path, preprocessing: Preprocessing, wanted: bool
) -> tuple[str, np.ndarray, np.ndarray | None]:
    """Label values and image (uint8) on the pack's grid."""
    file = read_file(segmentation)
    placement = preprocessing.place(grid_of(file))
    labels = np.ascontiguousarray(nearest_to_model(array_of(file), placement))
    if not wanted or image is None:
        return name, labels, None
    values, placement = preprocessing(read_image(image))
    values = values[0, 0].numpy()
    if values.shape != labels.shape:
        raise InputError(f"{segmentation} is not on the grid of {image}")
    step = 255 / (GREYS - 1)
    return name, labels, np.rint(np.rint(values * (GREYS - 1)) * step).astype(np.uint8)


def _numbered(labels: np.ndarray, table: dict[int, int]) -> np.ndarray:
    """Label values as the group numbers them, 0 for those that are no structure (int16)."""
    numbered = np.zeros(labels.shape, np.int16)
    for value, place in table.items():
        numbered[labels == value] = place
    return numbered


def _with_registered(
    maps: list[np.ndarray],
    images: list[np.ndarray],
    spacing: Sequence[float],
    shared: int,
    side: int,
    say: Callable[[str], None],
) -> tuple[list[np.ndarray], int]:
    """Label values above ``shared`` for supervoxels that mean the same in all volumes, where no
    structure is and the body is; and the highest of them."""
    drawn = registered_supervoxels(images, maps, spacing, partial(_supervoxels, side=side), say)
    found = []
    for labels, image, cells in zip(maps, images, drawn, strict=True):
        if cells is not None:
            free = (labels == 0) & (cells > 0) & (image > AIR * 255)
            labels = np.where(free, shared + cells, labels).astype(np.int16)
        found.append(labels)
    return found, max(shared, *(int(labels.max()) for labels in found))


def _with_supervoxels(labels: np.ndarray, image: np.ndarray, shared: int, side: int) -> np.ndarray:
    """Label values above ``shared`` for a volume's own supervoxels, where no structure is and the
    body is."""
    cells = _supervoxels(image, side)
    return np.where((labels == 0) & (cells > 0), shared + cells, labels).astype(np.int16)


def _supervoxels(image: np.ndarray, side: int) -> np.ndarray:
    """Numbers of supervoxels about ``side`` voxels wide, from 1; 0 in air (int16)."""
    picture = sitk.GetImageFromArray(image.astype(np.float32))
    picture = sitk.SmoothingRecursiveGaussian(picture, 1.0)
    cells = sitk.SLIC(
        picture,
        superGridSize=[min(side, n) for n in picture.GetSize()],
        spatialProximityWeight=COMPACT,
        maximumNumberOfIterations=5,
        enforceConnectivity=True,
    )
    cells = sitk.GetArrayFromImage(cells).astype(np.int64)
    cells[image <= AIR * 255] = -1
    kept, counts = np.unique(cells[cells >= 0], return_counts=True)
    kept = kept[counts >= 30]
    table = np.zeros(int(cells.max()) + 2, np.int16)
    table[kept] = 1 + np.arange(len(kept))
    return np.where(cells >= 0, table[cells], 0).astype(np.int16)


def _box(array: np.ndarray) -> tuple[slice, ...]:
    """Around what is not 0."""
    box = []
    for axis in range(3):
        other = tuple(a for a in range(3) if a != axis)
        there = np.flatnonzero(array.any(axis=other))
        if not len(there):
            return (slice(None),) * 3
        box.append(slice(max(0, there[0] - MARGIN), there[-1] + 1 + MARGIN))
    return tuple(box)
