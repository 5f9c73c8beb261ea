"""What people give: volumes and annotated volumes, as files or in memory; never written over."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core.annotation import Structure
from ..core.ct_offset import in_hounsfield, is_offset_ct
from ..core.errors import InputError
from ..core.geometry import Volume
from ..core.limits import require_path
from ..core.modality import modality_of
from ..core.model_folders import DEFAULT_MODELS
from ..io.annotations import read_annotation
from ..io.volumes import read_image
from ..models.registry import Model
from ..training.support_set import Support

PathLike = str | os.PathLike[str]
SupportLike = Support | tuple[PathLike, PathLike]
"""An annotated volume, or the paths of an image and its segmentation."""


def read_support(
    image: PathLike, segmentation: PathLike, structures: Sequence[Structure] | None = None
) -> Support:
    """One annotated volume from files. ``structures``: which ones, or None for all found.

    Raises:
        InputError: either can't be read or used, or their grids differ.
    """
    volume = read_image(require_path(image))
    require_path(segmentation)
    annotation = read_annotation(segmentation, volume.grid, structures)
    return Support(volume, annotation, Path(image).name)


def as_volume(query: PathLike | Volume) -> Volume:
    """A volume, read where it is a path.

    Raises:
        InputError: it can't be read.
    """
    return query if isinstance(query, Volume) else read_image(require_path(query))


def name_of(query: PathLike | Volume) -> str:
    """What progress calls a query: its file's or folder's name; empty for a volume in memory."""
    return "" if isinstance(query, Volume) else Path(query).name


def as_supports(
    supports: Sequence[SupportLike], structures: Sequence[Structure] | None
) -> list[Support]:
    """Annotated volumes, read where they are paths: see :func:`read_support`.

    Raises:
        InputError: as there; or masks in memory are not on their volume's grid, not of 0 and 1, or
            empty.
    """
    return [
        _checked(s, number) if isinstance(s, Support) else read_support(*s, structures)
        for number, s in enumerate(supports, 1)
    ]


def _checked(support: Support, number: int) -> Support:
    """A support in memory, its masks boolean; one without voxels was not annotated."""
    name = support.subject or f"support {number}"
    shape, masks = support.volume.grid.shape, {}
    for structure, mask in support.annotation.masks.items():
        array = np.asarray(mask)
        if array.shape != shape:
            have, want = (" x ".join(map(str, size)) for size in (array.shape, shape))
            raise InputError(
                f"The mask of {structure} in {name} has {have} voxels, its volume {want}. Give "
                "masks on the volume's own grid."
            )
        if array.dtype != bool:
            if array.dtype.kind not in "uif" or not np.isin(array, (0, 1)).all():
                raise InputError(
                    f"The mask of {structure} in {name} is no mask: it has other values than 0 and "
                    "1. Give one mask a structure."
                )
            array = array.astype(bool)
        if array.any():
            masks[structure] = array
    if support.annotation.masks and not masks:
        raise InputError(f"Nothing is annotated in {name}. Annotate it, or leave it out.")
    return replace(support, annotation=replace(support.annotation, masks=masks))


def paths_of(supports: Sequence[SupportLike]) -> list[PathLike]:
    """The files of those supports that are files."""
    return [path for s in supports if not isinstance(s, Support) for path in s]


def require_no_input(out: PathLike, inputs: Sequence[Any]) -> None:
    """Nothing that somebody drew or scanned is ever written over.

    Raises:
        InputError: ``out`` is one of the inputs.
    """
    if os.path.exists(out):
        for path in inputs:
            if isinstance(path, (str, os.PathLike)) and os.path.exists(path):
                if os.path.samefile(out, path):
                    raise InputError(f"{out} is one of the inputs. Give the result another name.")


def with_known_values(
    supports: Sequence[Support], modality: str, offset: float | None
) -> list[Support]:
    """Supports with the values that the engine knows: see :func:`ct_offset.in_hounsfield`."""
    return [replace(s, volume=in_hounsfield(s.volume, modality, offset)) for s in supports]


def choose_modality(wanted: str, volumes: Sequence[Volume]) -> str:
    """What the supports are.

    ``auto`` believes the file (DICOM says), else calls images with values below -200 CT.

    Raises:
        InputError: the supports are of several kinds.
    """
    if wanted != "auto":
        return wanted
    kinds = {looks_like(volume) for volume in volumes}
    if len(kinds) > 1:
        raise InputError(
            "Some supports look like CT and others like MR. Use supports of one kind, or say which "
            "with --modality."
        )
    return kinds.pop()


def require_known(modality: str, model: Model) -> None:
    """A model without preprocessing for a modality has not learned from its images.

    Raises:
        InputError: the model does not know the modality.
    """
    if modality not in model.entry.preprocessing:
        raise InputError(
            f"The model '{model.entry.id}' is for {' and '.join(model.entry.modality)}, but these "
            f"images are {modality}. Choose another model, or say --modality if that is wrong."
        )


def default_model(image: PathLike) -> str:
    """The embedded model for what an image looks like.

    Raises:
        InputError: it can't be read.
    """
    return DEFAULT_MODELS[looks_like(read_image(image))]


def looks_like(volume: Volume) -> str:
    """``CT`` or ``MR``, by the file's word or else by the values."""
    if volume.modality:
        return volume.modality
    return "CT" if is_offset_ct(volume.array) else modality_of(float(volume.array.min()))
