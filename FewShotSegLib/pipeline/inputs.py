"""What people give: volumes and annotated volumes, as files or in memory; never written over."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.annotation import (
    Annotation,
    Structure,
    as_structures,
    require_mask,
    require_structures,
)
from ..core.ct_offset import in_hounsfield, is_offset_ct
from ..core.errors import InputError
from ..core.geometry import Volume
from ..core.limits import require_path
from ..core.modality import modality_of
from ..core.model_folders import DEFAULT_MODELS
from ..io.annotations import read_annotation
from ..io.queries import DicomSeries
from ..io.volumes import read_image, usable_volume
from ..models.registry import Model
from ..training.support_set import Support

PathLike = str | os.PathLike[str]
SupportLike = Support | tuple[PathLike, PathLike]
"""An annotated volume, or the paths of an image and its segmentation."""


def read_support(
    image: PathLike,
    segmentation: PathLike,
    structures: str | Sequence[Structure] | None = None,
) -> Support:
    """One annotated volume from files. ``structures``: which ones, or None for all found.

    Raises:
        InputError: either can't be read or used, or their grids differ.
    """
    wanted = as_structures(structures)
    volume = read_image(require_path(image))
    require_path(segmentation)
    annotation = read_annotation(segmentation, volume.grid, wanted)
    return Support(volume, annotation, Path(image).name)


def as_volume(query: PathLike | Volume, name: str = "The volume") -> Volume:
    """A volume, read where it is a path; what comes from memory is held to the same as a file.

    Args:
        name: what messages call a volume in memory.

    Raises:
        InputError: it can't be read or used.
    """
    if isinstance(query, DicomSeries):
        return read_image(require_path(query), query.uid)
    if not isinstance(query, Volume):
        return read_image(require_path(query))
    usable = usable_volume(query.array, query.grid, query.modality, name)
    return replace(usable, notes=query.notes)


def name_of(query: PathLike | Volume) -> str:
    """What progress calls a query: its file's or folder's name; empty for a volume in memory.

    Raises:
        InputError: it is neither a path nor a volume.
    """
    return "" if isinstance(query, Volume) else Path(require_path(query)).name


def support_list(supports: Iterable[SupportLike]) -> list[SupportLike]:
    """Supports of any kind of sequence, each known to be a Support or a pair of paths; unread.

    Raises:
        InputError: they are something else.
    """
    if isinstance(supports, (str, bytes, os.PathLike, Support)) or not isinstance(
        supports, Iterable
    ):
        raise InputError(_SUPPORTS)
    found = []
    for support in supports:
        if not isinstance(support, Support):
            if not isinstance(support, (tuple, list)) or len(support) != 2:
                raise InputError(_SUPPORTS)
            image, labels = support
            support = require_path(image), require_path(labels)
        found.append(support)
    return found


_SUPPORTS = (
    "Supports are a list of annotated volumes, each a pair of paths (image, segmentation) or what "
    "read_support gives."
)


def as_supports(
    supports: Iterable[SupportLike], structures: Sequence[Structure] | None
) -> list[Support]:
    """Annotated volumes, read where they are paths: see :func:`read_support`.

    Raises:
        InputError: as there; or one in memory can't be used: its volume, or masks that are not on
            its volume's grid, not of 0 and 1, or empty.
    """
    return [
        _checked(s, number) if isinstance(s, Support) else read_support(*s, structures)
        for number, s in enumerate(support_list(supports), 1)
    ]


def _checked(support: Support, number: int) -> Support:
    """A support in memory, its masks boolean; one without voxels was not annotated."""
    name, annotation = support.subject or f"support {number}", support.annotation
    if not isinstance(support.volume, Volume) or not isinstance(annotation, Annotation):
        raise InputError(f"A Support has a Volume and an Annotation, which {name} has not.")
    volume = as_volume(support.volume, name)
    if not isinstance(annotation.masks, Mapping):
        raise InputError(f"The masks in {name} are no dictionary by structure name.")
    require_structures(annotation.structures, f"The structures in {name}")
    known = annotation.known
    if known is not None:
        known = require_mask(known, volume.grid.shape, f"What is known of {name}")
        known = None if known.all() else known
    masks = {}
    for structure, mask in annotation.masks.items():
        array = require_mask(mask, volume.grid.shape, f"The mask of {structure} in {name}")
        if known is not None:
            array = array & known
        if array.any():
            masks[structure] = array
    if annotation.masks and not masks:
        raise InputError(f"Nothing is annotated in {name}. Annotate it, or leave it out.")
    return replace(support, volume=volume, annotation=replace(annotation, masks=masks, known=known))


def paths_of(supports: Sequence[SupportLike]) -> list[PathLike]:
    """The files of those supports that are files."""
    return [path for s in supports if not isinstance(s, Support) for path in s]


def require_no_input(out: PathLike, inputs: Sequence[Any]) -> None:
    """Nothing that a user drew or scanned is ever written over.

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
