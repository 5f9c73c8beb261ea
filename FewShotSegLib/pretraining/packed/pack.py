"""The packed file: label maps and images of a pre-training in 8 bits, small enough to be sent.

Volumes keep a grid of their own (axes along R, A and S); crops are cut, deformed and, where there
is no image, given a random contrast while training goes on, on the device that trains.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor

from ...core.atomic import replacing
from ...core.errors import InputError
from ...core.geometry import SPACINGS
from ...core.json_fields import parse_json
from ...core.json_schema import Check, from_json
from ...core.model_entry import Label, Line, Modality
from ...core.plain_text import sentence
from ...core.ranges import SHARE, require_within

FORMAT = 1
MOST_LABELS = 32767
MOST_PLACES = 12
"""Voxels of a label that are kept as places to cut crops around."""


@dataclass(frozen=True)
class Group:
    """Volumes whose label values mean the same.

    Attributes:
        name: of the group. modality: the preprocessing that its images have gone through.
        shared: label values from 1 to this one mean the same in all of the group's volumes, those
            above it (supervoxels) are each volume's own.
        hidden: label values that are seen in images but never learned: structures kept apart for
            measuring what was not learned.
        zoom: the least and greatest size of a crop's voxel, in voxels of the volumes.
        weight: how often crops are drawn from the group, relative to the others.
    """

    name: Label
    modality: Modality
    shared: int
    hidden: tuple[int, ...]
    zoom: tuple[float, float]
    weight: float

    def __post_init__(self) -> None:
        labels = (0, MOST_LABELS)
        require_within(self, shared=labels, hidden=labels, zoom=(0.05, 20), weight=SHARE)
        if self.zoom[0] > self.zoom[1]:
            raise InputError("zoom is two numbers, the smaller first")


@dataclass(frozen=True)
class PackedVolume:
    """One volume.

    Attributes:
        group: its place among the groups. spacing: mm along R, A and S.
        labels: (i, j, k) uint8 or int16, 0 where nothing is labelled.
        image: (i, j, k) uint8, the preprocessed intensity times 255; None: synthesised for every
            crop.
        places: (n, 4) int64 rows (label, i, j, k), some voxels of every label that is learned.
    """

    name: str
    group: int
    spacing: tuple[float, float, float]
    labels: Tensor
    image: Tensor | None
    places: Tensor


@dataclass(frozen=True)
class Pack:
    """All groups and volumes, a hash of the file, and hashes of the images that were packed."""

    groups: tuple[Group, ...]
    volumes: tuple[PackedVolume, ...]
    sha256: str
    seen: tuple[str, ...] = ()

    def template(self) -> list[tuple[int, int]]:
        """(group, label) of every structure that means the same in several volumes, in order."""
        return [
            (number, label)
            for number, group in enumerate(self.groups)
            for label in range(1, group.shared + 1)
            if label not in group.hidden
        ]

    def to(self, device: torch.device) -> Pack:
        """The same with its arrays on a device."""
        volumes = tuple(
            PackedVolume(
                v.name,
                v.group,
                v.spacing,
                v.labels.to(device),
                None if v.image is None else v.image.to(device),
                v.places,
            )
            for v in self.volumes
        )
        return Pack(self.groups, volumes, self.sha256, self.seen)


def write_pack(
    path: Path, groups: list[Group], volumes: list[PackedVolume], seen: Sequence[str] = ()
) -> None:
    """Write a ``.npz`` file, compressed.

    Args:
        seen: hashes of the images.

    Raises:
        StorageError: it can't be written.
    """
    arrays: dict[str, np.ndarray] = {}
    entries = []
    for number, volume in enumerate(volumes):
        arrays[f"labels{number}"] = volume.labels.numpy()
        arrays[f"places{number}"] = volume.places.numpy().astype(np.int16)
        if volume.image is not None:
            arrays[f"image{number}"] = volume.image.numpy()
        entry = {"name": volume.name, "group": volume.group, "spacing": list(volume.spacing)}
        entries.append(entry)
    head = {"format": FORMAT, "groups": [vars(group) for group in groups], "volumes": entries}
    head["seen"] = list(seen)
    arrays["head"] = np.frombuffer(json.dumps(head).encode(), np.uint8)
    with replacing(path) as partial:
        np.savez_compressed(partial, **arrays)


@dataclass(frozen=True)
class _VolumeHead:
    name: Line
    group: Annotated[int, Check("a group's number", lambda n: 0 <= n < MOST_LABELS)]
    spacing: tuple[float, float, float]

    def __post_init__(self) -> None:
        require_within(self, spacing=SPACINGS)


@dataclass(frozen=True)
class _Head:
    """What the file says of its arrays."""

    format: Literal[1]
    groups: list[Group]
    volumes: list[_VolumeHead]
    seen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.volumes or any(v.group >= len(self.groups) for v in self.volumes):
            raise InputError("it has no volumes of its groups")


def read_pack(path: Path) -> Pack:
    """Read a packed file.

    Raises:
        InputError: it can't be read, is something else, or holds what could not be trained on.
    """
    try:
        if path.exists() and not path.is_file():
            raise InputError("it is not a file")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        with np.load(path, allow_pickle=False) as file:
            head = from_json(_Head, parse_json(bytes(file["head"]), "Its head"), "its head")
            volumes = tuple(
                _volume(number, part, head.groups[part.group], file)
                for number, part in enumerate(head.volumes)
            )
    except OSError as error:
        raise InputError(
            f"The packed file {path} can't be read ({error.strerror or error})."
        ) from error
    except InputError as error:
        raise InputError(
            f"{path} is no packed file, or is damaged ({sentence(error)}); pack the data again."
        ) from error
    except _DAMAGE as error:
        raise InputError(
            f"{path} is no packed file, or is damaged; pack the data again."
        ) from error
    return Pack(tuple(head.groups), volumes, digest, tuple(head.seen))


_DAMAGE = (
    *(ValueError, LookupError, TypeError, AttributeError, EOFError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)
"""What numpy and zipfile raise for files that are not what they seem."""


def _volume(number: int, head: _VolumeHead, group: Group, file: Mapping[str, Any]) -> PackedVolume:
    """A volume's arrays, checked.

    Raises:
        InputError: they don't fit one another.
    """
    labels, places = file[f"labels{number}"], file[f"places{number}"]
    image = file[f"image{number}"] if f"image{number}" in file else None
    where = f"volume {number + 1}"
    if labels.ndim != 3 or min(labels.shape) < 2 or labels.dtype not in (np.uint8, np.int16):
        raise InputError(f"{where} has no label map of three dimensions in 8 or 16 bits")
    if labels.min() < 0 or labels.max() > MOST_LABELS:
        raise InputError(f"{where} has label values outside 0 to {MOST_LABELS}")
    if image is not None and (image.shape != labels.shape or image.dtype != np.uint8):
        raise InputError(f"{where} has an image that is not on its labels' grid, in 8 bits")
    if places.ndim != 2 or places.shape[1] != 4 or places.dtype.kind not in "iu":
        raise InputError(f"{where} has places that are not rows of four whole numbers")
    places = places.astype(np.int64)
    voxels = places[:, 1:]
    if not len(places) or (voxels < 0).any() or (voxels >= labels.shape).any():
        raise InputError(f"{where} has no places, or some outside of it")
    found = labels[tuple(voxels.T)]
    if (found != places[:, 0]).any() or np.isin(found, (0, *group.hidden)).any():
        raise InputError(f"{where} has places that are not those of its labels")
    return PackedVolume(
        head.name,
        head.group,
        head.spacing,
        torch.from_numpy(labels),
        None if image is None else torch.from_numpy(image),
        torch.from_numpy(places),
    )


def find_places(labels: np.ndarray, hidden: tuple[int, ...], seed: int) -> Tensor:
    """Some voxels of every label above 0 that is not hidden: (n, 4) int64, label first."""
    rng = np.random.default_rng(seed)
    voxels = np.flatnonzero(labels)
    values = labels.ravel()[voxels]
    order = np.lexsort((rng.random(len(voxels)), values))
    voxels, values = voxels[order], values[order]
    kept, starts = np.unique(values, return_index=True)
    rows = []
    for value, start, stop in zip(kept, starts, [*starts[1:], len(values)], strict=True):
        if value not in hidden:
            chosen = voxels[start : min(stop, start + MOST_PLACES)]
            place = np.stack(np.unravel_index(chosen, labels.shape), 1)
            rows.append(np.insert(place, 0, value, axis=1))
    return torch.from_numpy(np.concatenate(rows) if rows else np.zeros((0, 4), np.int64)).long()
