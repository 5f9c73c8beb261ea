"""What a registry entry must say, without torch: the Slicer side reads entries as the engine does.

``Resources/Models/README.md`` documents the fields for people.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path, PureWindowsPath
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from .annotation import class_key
from .architecture_catalog import network_arguments
from .errors import InputError, ModelError
from .json_fields import load_json, shown
from .json_schema import Check, from_json
from .plain_text import printable

CHECKSUMS = "SHA256SUMS"
"""Of weights whose publisher gives no checksum, as they were first used; ``sha256sum -c`` reads it.
"""
AXES = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
"""RAS axis, and its sign, of each letter of an orientation."""
MAX_NAME_BYTES = 200
"""Of a weights file: space for what temporary files beside it have before and after the name."""
MAX_WINDOW_VOXELS = 512**3
INTENSITIES = (
    "window",
    "percentiles",
    "standardise",
    "unit",
    "above-least",
    "landmarks",
    "identity",
)
LANDMARKS = (1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 99)
"""Percentiles of a volume's bright voxels that the intensity ``landmarks`` maps to given values."""
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])([. ].*)?")
_OURS = re.compile(r"(?i)sha256sums.*|.*\.(json|tag|lock|part)")
_SIZES = "a list of three numbers of voxels from 1 to 1024, 512^3 voxels at most"


def fault_of_weights_name(name: str) -> str:
    """Why weights can't have this file name; empty where they can.

    It must mean one plain file on every system, and none that we ourselves keep in that folder.
    """
    if not name.strip() or name in (".", ".."):
        return "it is empty"
    if any(char in '/\\:<>"|?*' or not char.isprintable() for char in name):
        return "it has a character that a plain file name can't have"
    if name != name.strip() or name.endswith(".") or name.startswith((".", "-")):
        return "it begins or ends with a dot, a dash or a space"
    if len(name.encode("utf-8")) > MAX_NAME_BYTES:
        return f"it is longer than {MAX_NAME_BYTES} bytes"
    if _RESERVED.fullmatch(name):
        return "Windows keeps that name for a device"
    if _OURS.fullmatch(name):
        return "FewShotSeg keeps files of that name itself"
    return ""


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises where it is none
    except ValueError:
        return False
    plain = text.isascii() and text.isprintable() and " " not in text
    return plain and parts.scheme in ("http", "https") and bool(parts.hostname)


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _is_id(text: str) -> bool:
    odd = not text.isprintable() or any(char.isspace() or char in "/\\" for char in text)
    return 0 < len(text) <= 100 and not odd and text[0] != "-" and not text.endswith(".json")


def _is_window(sizes: tuple[int, ...]) -> bool:
    count = sizes[0] * sizes[1] * sizes[2]
    return all(1 <= size <= 1024 for size in sizes) and count <= MAX_WINDOW_VOXELS


Id = Annotated[
    str, Check("a short name without spaces and slashes that does not end in .json", _is_id)
]
Line = Annotated[str, Check("a text of up to 500 characters", lambda text: len(text) <= 500)]
Label = Annotated[
    str,
    Check(
        "a text of 1 to 200 visible characters",
        lambda text: 0 < len(text) <= 200 and printable(text, lines=False) == text,
    ),
]
"""What people call something: it is shown, drawn and part of sentences."""
Text = Annotated[str, Check("a text of up to 10,000 characters", lambda text: len(text) <= 10_000)]
Row = Annotated[int, Check("a row of the head, 0 or more", lambda row: 0 <= row < 65536)]
Sha256 = Annotated[
    str, Check("64 hexadecimal digits", lambda text: bool(re.fullmatch("[0-9a-f]{64}", text)))
]
Address = Annotated[str, Check("an address that begins with https://", _is_address)]
Day = Annotated[str, Check("a date of the form 2026-12-31", _is_date)]
Modality = Literal["CT", "MR"]


@dataclass(frozen=True)
class PreprocessingFields:
    """What a backbone needs of an image: data in its registry entry, and in an adapter's header.

    Attributes:
        orientation: the direction in which each model axis grows, e.g. ``"RAS"``.
        spacing: mm along each model axis.
        intensity: ``"window"`` (low and high are fixed values, such as HU), ``"percentiles"``
            (low and high are percentiles of the volume; for MR), ``"standardise"`` (to mean 0 and
            standard deviation 1), ``"unit"`` (the volume's least value to 0, its largest to 1),
            ``"above-least"`` (less the least value, by the standard deviation), ``"landmarks"``
            (see that) or ``"identity"``.
        low, high: see ``intensity``; values between them are mapped to [0, 1] and cut off there.
            For ``"standardise"`` values are cut off at them first, if they are given.
        mean, std: of ``"standardise"``, where they are fixed values and not the volume's own.
        mask: of ``"standardise"``: ``"nonzero"`` takes the mean of voxels that are not 0 alone, and
            leaves the others as they are; ``"filled"`` the same with the holes within them filled.
        onto: of ``"window"``, ``"percentiles"`` and ``"unit"``, where they map to another interval
            than [0, 1]. Of ``"standardise"``: what its least and largest result are then mapped to.
        cut: False where what lies beyond that interval is not cut off.
        squash: what follows: ``"sigmoid"``, or ``"tanh"``: 3 tanh(x / 3).
        landmarks: values that the percentiles :data:`LANDMARKS` of a volume's voxels above the mean
            are mapped to, by straight lines between them; then mean and deviation of the voxels
            above the new mean become 0 and 1 (NiftyNet's standardisation and whitening).
        normalised: ``"resampled"`` where intensities are those of the model grid; None of the
            volume as it is.
        crop: ``"nonzero"``: the model sees the smallest box with every voxel that is not 0,
            ``"positive"`` with every one above 0.
        margin: voxels of the volume around that box.
        resampling: ``"nnunet"``: with cubic splines and the nearest slice of thick ones, as nnU-Net
            does; ``"monai"``: linear, from the first voxel's centre on; None with a linear kernel
            that widens where voxels become larger, over the same box of space.
        keep: with ``"monai"``, the part of ``spacing`` that a volume's own may differ by along an
            axis and stay as it is.
        least: voxels along each axis that the model sees at least: zeros are put around smaller
            volumes, half of them on each side.
        most_voxels: of a model grid: where volumes have more, their spacing is made coarser. None
            keeps the spacing whatever the field of view.
    """

    orientation: str
    spacing: tuple[float, float, float]
    intensity: str
    low: int | float | None = None  # either as given: hashes are of what was written
    high: int | float | None = None
    most_voxels: int | None = None
    mean: int | float | None = None
    std: int | float | None = None
    mask: Literal["nonzero", "filled"] | None = None
    crop: Literal["nonzero", "positive"] | None = None
    resampling: Literal["nnunet", "monai"] | None = None
    least: tuple[int, int, int] | None = None
    onto: tuple[int | float, int | float] | None = None
    cut: Literal[False] | None = None
    squash: Literal["sigmoid", "tanh"] | None = None
    landmarks: tuple[float, ...] | None = None
    normalised: Literal["resampled"] | None = None
    margin: int | None = None
    keep: float | None = None

    def __post_init__(self) -> None:
        if self.most_voxels is not None and not 10_000 <= self.most_voxels <= 10**9:
            raise ModelError("most_voxels is a number of voxels from 10,000 to a billion.")
        axes = sorted(AXES.get(letter, (9, 0))[0] for letter in self.orientation)
        if axes != [0, 1, 2]:
            raise ModelError(f"Orientation {shown(self.orientation)} is not one of the kind 'RAS'.")
        if len(self.spacing) != 3 or not all(0.01 <= s < 100 for s in self.spacing):
            raise ModelError(f"Spacing {list(self.spacing)} is not three lengths in mm.")
        if self.least is not None and not _is_window(self.least):
            raise ModelError(f"'least' is {_SIZES}.")
        if self.margin is not None and (self.crop is None or not 0 <= self.margin <= 1000):
            raise ModelError("'margin' is a number of voxels up to 1000, and goes with 'crop'.")
        if self.keep is not None and (self.resampling != "monai" or not 0 < self.keep < 1):
            raise ModelError("'keep' is a number from 0 to 1, and goes with 'resampling': 'monai'.")
        if self.most_voxels is not None and self.resampling == "monai":
            raise ModelError("'most_voxels' and 'resampling': 'monai' can't be had together.")
        self._check_intensity()
        self._check_interval()

    def _check_intensity(self) -> None:
        if self.intensity not in INTENSITIES:
            raise ModelError(f"Intensity {shown(self.intensity)}: use {', '.join(INTENSITIES)}.")
        if self.intensity == "standardise":
            self._check_statistics()
        elif (self.mean, self.std, self.mask) != (None, None, None):
            raise ModelError("mean, std and mask are of the intensity 'standardise' alone.")
        if self.intensity in ("identity", "unit", "above-least", "landmarks"):
            return
        low, high = self.low, self.high
        if self.intensity == "standardise" and (low, high) == (None, None):
            return
        if low is None or high is None or not low < high:
            raise ModelError(f"Intensity '{self.intensity}' needs low < high.")
        if self.intensity == "percentiles" and not (low >= 0 and high <= 100):
            raise ModelError("The percentiles low and high are within 0 to 100.")
        # What float32 can tell apart, with the 1 / (high - low) that intensities are scaled by.
        if max(abs(low), abs(high)) > 1e6 or high - low < 1e-3:
            raise ModelError("low and high are within a million of 0, and 0.001 or more apart.")

    def _check_interval(self) -> None:
        if self.cut is False and self.intensity not in ("window", "percentiles"):
            raise ModelError("'cut' is of window and percentiles alone.")
        if self.onto is not None:
            if self.intensity not in ("window", "percentiles", "unit", "standardise"):
                raise ModelError(f"'onto' can't go with the intensity '{self.intensity}'.")
            low, high = self.onto
            if not low < high or max(abs(low), abs(high)) > 1e6:
                raise ModelError("'onto' is two numbers within a million of 0, the least first.")
        if (self.intensity == "landmarks") != (self.landmarks is not None):
            raise ModelError("'landmarks' goes with the intensity 'landmarks', which needs it.")
        if self.landmarks is not None:
            rising = all(a < b for a, b in pairwise(self.landmarks))
            if len(self.landmarks) != len(LANDMARKS) or not rising:
                raise ModelError(
                    f"'landmarks' is a list of {len(LANDMARKS)} rising values, for the percentiles "
                    f"{', '.join(map(str, LANDMARKS))}."
                )

    @property
    def in_unit_interval(self) -> bool:
        """Whether what the network sees is in [0, 1]."""
        mapped = self.intensity in ("window", "percentiles", "unit") and self.cut is None
        return (mapped and self.onto in (None, (0, 1))) or self.squash == "sigmoid"

    def _check_statistics(self) -> None:
        if (self.mean is None) != (self.std is None):
            raise ModelError("mean and std are given together, or neither.")
        if self.mean is not None and self.std is not None:
            if self.mask is not None:
                raise ModelError(
                    "A mask is for a mean of the volume's own: leave out mean and std."
                )
            if abs(self.mean) > 1e6 or not 1e-6 <= self.std <= 1e6:
                raise ModelError(
                    "mean is within a million of 0, and std from 0.000001 to a million."
                )


@dataclass(frozen=True)
class EntryFields:
    """One foundation model of the registry, as its file says it."""

    id: Id
    title: Line
    modality: Annotated[
        tuple[Modality, ...],
        Check('"CT", "MR" or both in a list', lambda v: 0 < len(v) == len(set(v))),
    ]
    architecture: dict[str, Any]
    preprocessing: dict[str, PreprocessingFields]
    window: Annotated[tuple[int, int, int], Check(_SIZES, _is_window)]
    overlap: Annotated[float, Check("a number from 0 to 0.95", lambda v: 0 <= v <= 0.95)]
    classes: dict[str, Row]
    activation: Literal["sigmoid", "softmax"]
    weights: str
    licence: Line
    citation: Text
    source_url: Text
    sha256: Sha256 | None
    size: Annotated[int, Check("a number of bytes", lambda n: 0 < n < 2**41)] | None
    description: Text = ""
    background: Row | None = None
    weights_url: Address | None = None
    licence_url: Address | None = None
    checked: Day | None = None

    def __post_init__(self) -> None:
        rows = network_arguments(self.architecture).rows
        if set(self.preprocessing) != set(self.modality):
            raise InputError("'preprocessing' must have one part for each modality")
        beyond = max([*self.classes.values(), self.background or 0])
        if beyond >= rows:
            raise InputError(f"it has a class in row {beyond} of a head of {rows} rows")
        known: dict[tuple[str, ...], str] = {}
        for name in self.classes:
            other = known.setdefault(class_key(name), name)
            if not class_key(name) or other != name:
                raise InputError(f"the class {shown(name)} has no name of its own in 'classes'")
        fault = fault_of_weights_name(self.weights_name)
        if fault or _is_elsewhere(self.weights):
            raise InputError(
                f"'weights' can't be {shown(self.weights)}: "
                f"{fault or 'it is the name of a file beside the entry, or a full path'}"
            )

    @property
    def weights_name(self) -> str:
        """Of the weights file, without a folder."""
        return os.path.basename(self.weights) if os.path.isabs(self.weights) else self.weights


def _is_elsewhere(weights: str) -> bool:
    """Whether a full path leads somewhere that it shouldn't: to another computer, or around."""
    if not os.path.isabs(weights):
        return False
    remote = PureWindowsPath(weights).drive.startswith("\\\\") or weights.startswith("//")
    return remote or ".." in Path(weights).parts or "\0" in weights


def entry_fields(data: Any, path: str | os.PathLike[str]) -> EntryFields:
    """An entry's fields, from what its file says. ``path`` is for the message.

    Raises:
        ModelError: a field is missing, unknown or out of range. One sentence says which.
    """
    try:
        return from_json(EntryFields, data, "")
    except InputError as error:
        raise ModelError(
            f"The model entry {path} can't be used: {str(error).rstrip('.')}. "
            "Resources/Models/README.md lists the fields."
        ) from error


def read_checked(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What an entry's file says, as JSON, once :func:`entry_fields` has found nothing wrong.

    Raises:
        ModelError: it can't be read, is not JSON, or see :func:`entry_fields`.
    """
    data = load_json(path, "model entry", ModelError, max_bytes=2**20)
    entry_fields(data, path)
    return data
