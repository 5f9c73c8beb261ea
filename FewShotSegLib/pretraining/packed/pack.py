"""The packed file: label maps and images of a pre-training in 8 bits, small enough to be sent.

Volumes keep a grid of their own (axes along R, A and S); crops are cut, deformed and, where there
is no image, given a random contrast while training goes on, on the device that trains.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...core.atomic import replacing
from ...core.errors import InputError
from ...core.json_fields import parse_json

FORMAT = 1
MOST_PLACES = 48
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

    name: str
    modality: str
    shared: int
    hidden: tuple[int, ...]
    zoom: tuple[float, float]
    weight: float


@dataclass(frozen=True)
class PackedVolume:
    """One volume.

    Attributes:
        group: its place among the groups. spacing: mm along R, A and S.
        labels: (i, j, k) uint8 or int16, 0 where nothing is labelled.
        image: (i, j, k) uint8, the preprocessed intensity times 255; None: made up for every crop.
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
    """All groups and volumes, and a hash of the file."""

    groups: tuple[Group, ...]
    volumes: tuple[PackedVolume, ...]
    sha256: str

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
        return Pack(self.groups, volumes, self.sha256)


def write_pack(path: Path, groups: list[Group], volumes: list[PackedVolume]) -> None:
    """Write a ``.npz`` file, compressed.

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
    arrays["head"] = np.frombuffer(json.dumps(head).encode(), np.uint8)
    with replacing(path) as partial:
        np.savez_compressed(partial, **arrays)


def read_pack(path: Path) -> Pack:
    """Read a packed file.

    Raises:
        InputError: it can't be read, or is something else.
    """
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        with np.load(path, allow_pickle=False) as file:
            head = parse_json(bytes(file["head"]), f"The head of {path}")
            if head["format"] != FORMAT:
                raise InputError(
                    f"The packed file {path} is of format {head['format']}, not {FORMAT}; pack "
                    "the data again."
                )
            groups = tuple(_group(data) for data in head["groups"])
            volumes = tuple(
                PackedVolume(
                    entry["name"],
                    int(entry["group"]),
                    tuple(float(mm) for mm in entry["spacing"]),
                    torch.from_numpy(file[f"labels{number}"]),
                    torch.from_numpy(file[f"image{number}"]) if f"image{number}" in file else None,
                    torch.from_numpy(file[f"places{number}"].astype(np.int64)),
                )
                for number, entry in enumerate(head["volumes"])
            )
    except OSError as error:
        raise InputError(
            f"The packed file {path} can't be read ({error.strerror or error})."
        ) from error
    except (ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} is no packed file, or is damaged; pack the data again."
        ) from error
    if not volumes or any(not 0 <= volume.group < len(groups) for volume in volumes):
        raise InputError(f"The packed file {path} has no volumes of its groups; pack again.")
    return Pack(groups, volumes, digest)


def _group(data: dict[str, Any]) -> Group:
    return Group(
        str(data["name"]),
        str(data["modality"]),
        int(data["shared"]),
        tuple(int(value) for value in data["hidden"]),
        (float(data["zoom"][0]), float(data["zoom"][1])),
        float(data["weight"]),
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
