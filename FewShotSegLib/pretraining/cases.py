"""Every volume of an assembly once on the model's grid, kept in files that crops are read from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..core.annotation import Structure
from ..core.atomic import replacing, write_json
from ..core.checksums import Damaged, file_sums, require_json_seal, require_sums, seal_json
from ..core.ct_offset import in_hounsfield
from ..core.errors import InputError
from ..core.geometry import Grid
from ..core.json_fields import load_json
from ..io.annotations import read_annotation
from ..io.volumes import array_of, grid_of, read_file, read_image
from ..models.preprocessing import Placement
from .assembly import Assembly
from .data_sets import DataSet, Source
from .landmarks import landmark_distance

FORMAT = 2
"""Part of every cache key: raised when the same files would give other arrays."""
TISSUE_EDGES = (-700.0, -150.0, -20.0, 150.0)
"""HU between air, lung, fat, soft tissue and bone."""
MAX_PLACES = 4000
SUMMARY = "case.json"


class StoredArray:
    """An array in a file, of which parts are read.

    It is opened for each reading: a memory map keeps its file open, and an archive has more arrays
    than a process may have open files (1024, or 256, on most computers).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.shape = self[...].shape

    def __getitem__(self, part: Any) -> np.ndarray:
        """A part, mapped into memory.

        Raises:
            InputError: the file is damaged or gone.
        """
        try:
            return np.load(self._path, mmap_mode="r")[part]
        except (OSError, ValueError, EOFError) as error:
            raise _damaged(self._path.parent) from error

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self[...], dtype)


@dataclass(frozen=True)
class Case:
    """One volume on the model's grid.

    Attributes:
        image: (i, j, k) float16 in [0, 1], as the backbone expects it; None where it is to be
            synthesised.
        labels: (i, j, k) uint8, the class's place in the template plus 1; 0 elsewhere.
        detail: (i, j, k) uint8; for CT the tissue by HU, for synthesis every label value of the
            file as a number of its own (0 is the file's 0); None for others.
        annotated: (K,) float32, the task mask w of eq. (1).
        places: by class, (n, 3) voxels within it.
        centres: by class, (3,) its mean voxel, where it is annotated and there.
        grey: (K,) float32, the usual grey value of each class where images are synthesised, NaN
            where none is given; None where none is given at all.
        distances: by landmark, (i, j, k) uint8 as in :mod:`.landmarks`, where it is known.
    """

    name: str
    modality: str
    image: StoredArray | None
    labels: StoredArray
    detail: StoredArray | None
    annotated: np.ndarray
    places: dict[int, np.ndarray]
    centres: dict[int, np.ndarray]
    distances: dict[str, StoredArray]
    grey: np.ndarray | None = None

    @property
    def synthetic(self) -> bool:
        """Whether its image is synthesised anew for every crop."""
        return self.image is None

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels of the model grid."""
        return self.labels.shape


def prepare_case(
    assembly: Assembly,
    data_set: DataSet,
    source: Source,
    folder: Path,
    check: Callable[[], None],
    tell: Callable[[str], None] = lambda text: None,
) -> Case:
    """The case from ``folder``, put there first if it isn't.

    Its arrays are verified, by the checksums in ``case.json``, when a process first opens them. A
    case from before there were checksums is prepared anew. ``tell`` takes what a person should know
    of how an image was read.

    Raises:
        InputError: a file can't be read or used, or a prepared one is damaged.
        StorageError: the arrays can't be written.
    """
    key = _key(assembly, data_set, source)
    place = folder / key
    summary = _summary(place)
    if summary is None:
        check()
        arrays, annotated = _arrays(assembly, data_set, source, check, tell)
        names = sorted(arrays)
        for name in names:
            with replacing(place / f"{name}.npy") as partial:
                np.save(partial, arrays[name])
        sums = file_sums([place / f"{name}.npy" for name in names], check)
        arrays_sums = dict(zip(names, sums, strict=True))
        summary = {"case": key, "annotated": annotated, "arrays": arrays_sums}
        # Last, as the sign that all the others are there.
        write_json(place / SUMMARY, seal_json(summary))
    return _load(assembly, data_set, source, place, summary, check)


def _summary(place: Path) -> dict[str, Any] | None:
    """What is said of a prepared case; None where it isn't there, or has no checksums."""
    if not (place / SUMMARY).is_file():
        return None
    try:
        summary = require_json_seal(load_json(place / SUMMARY, "case"))
        if summary is not None and summary["case"] != place.name:
            raise Damaged("it is another case's")
        return summary
    except (InputError, Damaged) as error:
        raise _damaged(place) from error


def _load(
    assembly: Assembly,
    data_set: DataSet,
    source: Source,
    place: Path,
    summary: dict[str, Any],
    check: Callable[[], None],
) -> Case:
    try:
        require_sums({place / f"{name}.npy": s for name, s in summary["arrays"].items()}, check)
        arrays = {name: StoredArray(place / f"{name}.npy") for name in summary["arrays"]}
        annotated = np.isin(assembly.classes, summary["annotated"]).astype(np.float32)
        points, means = np.array(arrays["places"]), np.array(arrays["centres"])
        places = {n: points[points[:, 0] == n, 1:] for n in np.unique(points[:, 0]).tolist()}
        centres = {number: means[number] for number in places}
        labels = arrays["labels"]
    except (InputError, OSError, ValueError, LookupError, TypeError) as error:
        raise _damaged(place) from error
    return Case(
        source.name,
        data_set.modality,
        arrays.get("image"),
        labels,
        arrays.get("detail"),
        annotated,
        places,
        centres,
        {
            name: arrays[f"distance-{number}"]
            for number, name in enumerate(assembly.targets.landmarks)
            if f"distance-{number}" in arrays
        },
        np.array([data_set.grey.get(name, np.nan) for name in assembly.classes], np.float32)
        if data_set.grey
        else None,
    )


def _damaged(place: Path) -> InputError:
    return InputError(
        f"The prepared case {place} is damaged; remove that folder, and repeat the command with "
        "--resume."
    )


def _key(assembly: Assembly, data_set: DataSet, source: Source) -> str:
    """Names a case's folder by all that its arrays depend on."""
    files = [path for path in (source.image, source.segmentation) if path is not None]
    stamps = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    annotated = data_set.annotated
    recipe = [
        FORMAT,
        stamps,
        assembly.classes,
        assembly.preprocessing[data_set.modality].to_json(),
        sorted(data_set.labels.items()),
        annotated if isinstance(annotated, str) else annotated[source.name],
        data_set.modality,
        data_set.synthesis,
        assembly.targets.landmarks,
    ]
    return hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:24]


def _arrays(
    assembly: Assembly,
    data_set: DataSet,
    source: Source,
    check: Callable[[], None],
    tell: Callable[[str], None],
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays to keep, and the names of the classes that were annotated."""
    preprocessing = assembly.preprocessing[data_set.modality]
    arrays: dict[str, Any] = {}
    if source.image is None:
        file = read_file(source.segmentation)
        grid = grid_of(file)
        placement = preprocessing.place(grid)
        values = array_of(file)
        if values.ndim != 3:
            raise InputError(
                f"{source.segmentation} has {values.shape[3]} values a voxel, which no label map "
                "has; save it as a label map."
            )
        values = nearest_to_model(values, placement)
        arrays["detail"] = _numbered(values, source)
    else:
        volume = in_hounsfield(read_image(source.image), data_set.modality)
        for note in volume.notes:
            tell(f"{source.name}: {note}")
        grid = volume.grid
        check()
        image, placement = preprocessing(volume)
        arrays["image"] = image[0, 0].numpy().astype(np.float16)
        if data_set.modality == "CT":
            hu = placement.to_model(volume.array, kernel="linear")
            arrays["detail"] = (
                torch.bucketize(hu.contiguous(), torch.tensor(TISSUE_EDGES)).byte().numpy()
            )
    check()
    labels, annotated = _class_map(assembly.classes, data_set, source, grid, placement)
    tissue = arrays.get("detail") if data_set.modality == "CT" and source.image else None
    for number, name in enumerate(assembly.targets.landmarks):
        check()
        place = assembly.classes.index(name) + 1 if name in annotated else None
        distance = landmark_distance(
            name, place, labels, tissue, preprocessing.spacing, preprocessing.orientation
        )
        if distance is not None:
            arrays[f"distance-{number}"] = distance
    places, centres = _places(labels, len(assembly.classes))
    arrays |= {"labels": labels, "places": places, "centres": centres}
    return arrays, annotated


def _class_map(
    classes: Sequence[str], data_set: DataSet, source: Source, grid: Grid, placement: Placement
) -> tuple[np.ndarray, list[str]]:
    values_of: dict[str, list[int]] = {}
    for value, name in data_set.labels.items():
        values_of.setdefault(name, []).append(value)
    # Slicer's segments are found by name: that of the class, where one label value is the class.
    structures = {
        value: Structure(name if len(values) == 1 else f"{name} {value}", value)
        for name, values in values_of.items()
        for value in values
    }
    annotation = read_annotation(
        source.segmentation, grid, list(structures.values()), may_be_empty=True
    )
    listed = data_set.annotated
    labels = np.zeros(placement.shape, np.uint8)
    taken = np.zeros(grid.shape, bool)
    annotated = []
    for name, values in values_of.items():
        masks = [annotation.mask(structures[value].name) for value in values]
        found = [mask for mask in masks if mask is not None]
        if isinstance(listed, dict):
            known = set(values) <= set(listed[source.name])
        else:
            known = listed == "all" or bool(found)
        if not known:
            continue
        annotated.append(name)
        if not found:
            continue
        mask = np.logical_or.reduce(found)
        if (taken & mask).any():
            raise InputError(
                f"{source.segmentation}: '{name}' overlaps another class; pre-training needs "
                "classes that don't overlap within a data set."
            )
        taken |= mask
        inside = placement.to_model(mask, kernel="linear").numpy() >= 0.5
        labels[inside] = classes.index(name) + 1
    return labels, annotated


def nearest_to_model(array: np.ndarray, placement: Placement) -> np.ndarray:
    """Label values on the model's grid, none of them mixed."""
    turned = array.transpose(placement.sources)
    for axis, flip in enumerate(placement.flips):
        if flip:
            turned = np.flip(turned, axis)
        size, wanted = turned.shape[axis], placement.shape[axis]
        index = ((np.arange(wanted) + 0.5) * size / wanted).astype(int)
        turned = turned.take(index.clip(0, size - 1), axis)
    return turned


def _numbered(values: np.ndarray, source: Source) -> np.ndarray:
    """Label values as consecutive numbers; the file's 0 stays 0."""
    present = np.unique(values)
    present = np.concatenate([[0], present[present != 0]])
    if len(present) > 256:
        raise InputError(
            f"{source.segmentation} has {len(present) - 1} label values; 255 are possible."
        )
    order = np.argsort(present)
    return order[np.searchsorted(present[order], values)].astype(np.uint8)


def _places(labels: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Some voxels of every class as rows (class, i, j, k), and each class's centre (K, 3)."""
    rows, centres = [np.zeros((0, 4), np.int32)], np.full((classes, 3), np.nan, np.float32)
    for number in np.unique(labels[labels > 0]).astype(int) - 1:
        voxels = np.argwhere(labels == number + 1)
        centres[number] = voxels.mean(0)
        chosen = voxels[:: -(-len(voxels) // MAX_PLACES)]
        rows.append(np.insert(chosen, 0, number, axis=1).astype(np.int32))
    return np.concatenate(rows), centres
