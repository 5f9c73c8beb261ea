"""Finding images and their segmentations in a folder, and the names of what is labelled."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.annotation import parse_structures
from ..core.errors import InputError
from ..core.json_fields import load_json
from .file_names import children, is_folder, require_usable_name
from .volumes import extension_of

IMAGE_FOLDERS = ("images", "imagestr", "image")
SEGMENTATION_FOLDERS = ("labels", "labelstr", "label", "segmentations", "masks")

_SEGMENTATION = re.compile(r"(?:(.*)[_.-])?(?:seg|segmentation|labels?|mask)", re.IGNORECASE)
_IMAGE_ENDING = r"(?:[_-](?:ct|mri?|image|img))?"
_CHANNEL_ENDING = r"_\d{4}"
_LAYOUTS = (
    "Put images and segmentations beside each other, as pt_1_ct.nii.gz and pt_1_seg.nii.gz; or in "
    "the folders images and labels, under one name; or each pair in a folder of its own."
)


@dataclass(frozen=True)
class Pair:
    """One annotated volume: what it is called, and its two files."""

    name: str
    image: Path
    segmentation: Path


def find_pairs(folder: str | os.PathLike[str]) -> list[Pair]:
    """The annotated volumes in a folder, in natural order (pt_2 before pt_13).

    Three layouts are recognised automatically:

    1. sub-folders ``images`` (``imagesTr``, ``image``) and ``labels`` (``labelsTr``, ``label``,
       ``segmentations``, ``masks``) whose files share names; images may end in nnU-Net's ``_0000``;
    2. ``STEM_seg`` (``-seg``, ``.seg``, ``_label``, ``_labels``, ``_mask``, ``_segmentation``)
       beside ``STEM`` (``STEM_ct``, ``_mr``, ``_mri``, ``_image``, ``_img``);
    3. a sub-folder a case with one image and one segmentation that ends as in 2, or is just called
       ``seg`` or the like.

    An image or a segmentation without a partner is left out; hidden files are not looked at.

    Raises:
        InputError: there is no such folder, no pair in it, or more than one way to pair.
    """
    folder = Path(folder)
    require_usable_name(folder)
    if not is_folder(folder):
        raise InputError(f"There is no folder {folder}; check the path.")
    images = _only_folder(folder, IMAGE_FOLDERS)
    segmentations = _only_folder(folder, SEGMENTATION_FOLDERS)
    if images and segmentations:
        pairs = _match(_files(images), _files(segmentations))
    else:
        pairs = _match(*separated(_files(folder))) or _cases(folder)
    if not pairs:
        raise InputError(f"There are no images with segmentations in {folder}. {_LAYOUTS}")
    return sorted(pairs, key=lambda pair: natural(pair.name))


def read_names(folder: str | os.PathLike[str]) -> str | None:
    """The structures that a folder's JSON names, as ``"1=liver,2=spleen"``, ascending by value.

    Read are ``labels.json`` and, without it, the ``labels`` of an MSD or nnU-Net ``dataset.json``;
    each either way round (``{"1": "liver"}`` or ``{"liver": 1}``). 0 is background and left out.

    Returns:
        None where there is neither file.

    Raises:
        InputError: the file is no such list, or a name or value can't be used.
    """
    for name, part in (("labels.json", None), ("dataset.json", "labels")):
        path = Path(folder) / name
        if not path.is_file():
            continue
        try:
            data = load_json(path, "list")
            values = _values(data if part is None else data[part])
        except (InputError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f'{path} is no list of label values and names such as {{"1": "liver"}}; correct '
                "it, or say which structures there are."
            ) from error
        text = ",".join(f"{value}={values[value]}" for value in sorted(values))
        parse_structures(text)
        return text
    return None


def _values(labels: Mapping[str, object]) -> dict[int, str]:
    """Names by label value, without background, from a mapping in either direction.

    Raises:
        ValueError, TypeError, AttributeError: it is no such mapping.
    """
    pairs: list[tuple[Any, Any]] = [
        (int(key), value) if key.strip().isdigit() else (value, key)
        for key, value in labels.items()
    ]
    if not all(type(value) is int and isinstance(name, str) for value, name in pairs):
        raise ValueError("a value is no integer, or a name no text")
    values = {value: name.strip() for value, name in pairs if value != 0}
    if not values or len(values) < sum(value != 0 for value, _ in pairs):
        raise ValueError("nothing is labelled, or a value comes twice")
    return values


def _only_folder(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The one sub-folder with one of these names, if any."""
    found = [child for child in children(folder) if child.is_dir() and child.name.lower() in names]
    if len(found) > 1:
        raise InputError(
            f"{folder} has the folders {_named(found)}, any of which could be meant; give a folder "
            "with one of them."
        )
    return found[0] if found else None


def _files(folder: Path) -> list[Path]:
    """The image files of a folder, by name; hidden ones (such as macOS's ``._``) are none."""
    files = sorted(
        file
        for file in children(folder)
        if file.is_file() and extension_of(file) and not file.name.startswith(".")
    )
    for file in files:
        require_usable_name(file)
    return files


def _stem(file: Path) -> str:
    return file.name[: -len(extension_of(file) or "")]


def separated(files: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Images and segmentations, by how the names end."""
    images: list[Path] = []
    segmentations: list[Path] = []
    for file in files:
        (segmentations if _SEGMENTATION.fullmatch(_stem(file)) else images).append(file)
    return images, segmentations


def _match(images: list[Path], segmentations: list[Path]) -> list[Pair]:
    """Pairs by name, unsorted."""
    pairs: dict[Path, Pair] = {}
    for segmentation in segmentations:
        ending = _SEGMENTATION.fullmatch(_stem(segmentation))
        name = (ending.group(1) if ending else None) or _stem(segmentation)
        for image_ending in (_IMAGE_ENDING, _CHANNEL_ENDING):
            wanted = re.compile(re.escape(name) + image_ending, re.IGNORECASE)
            found = [image for image in images if wanted.fullmatch(_stem(image))]
            if found:
                break
        if len(found) > 1:
            raise InputError(
                f"{segmentation} could belong to {_named(found)}; leave only the one that it was "
                "drawn on."
            )
        for image in found:
            if image in pairs:
                both = _named([pairs[image].segmentation, segmentation])
                raise InputError(f"{image} has several segmentations, {both}; leave only one.")
            pairs[image] = Pair(name, image, segmentation)
    return list(pairs.values())


def _cases(folder: Path) -> list[Pair]:
    """Pairs in a sub-folder each, unsorted."""
    pairs = []
    for case in children(folder):
        if not case.is_dir() or case.name.startswith("."):
            continue
        images, segmentations = separated(_files(case))
        if not images or not segmentations:
            continue
        if len(images) + len(segmentations) > 2:
            raise InputError(
                f"The folder {case} should have one image and one segmentation, but has "
                f"{_named(images + segmentations)}; take the others out."
            )
        pairs.append(Pair(case.name, images[0], segmentations[0]))
    return pairs


def _named(files: Iterable[Path], most: int = 5) -> str:
    names = sorted(file.name for file in files)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def natural(name: str) -> list[tuple[int, str]]:
    """A sort key by which numbers within names count as numbers."""
    parts = re.split(r"(\d+)", name.casefold())
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]
