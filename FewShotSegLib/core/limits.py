"""What options may be: the one place where numbers, devices and paths of people are checked.

The flags of the command, the settings of the Python API and the jobs of the Slicer module all come
through here, so that each says the same sentence.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from .errors import InputError

StrPath = str | os.PathLike[str]
"""A path as a caller may give it."""

NAME_BYTES, PATH_BYTES = 255, 4095
"""The longest name and path that common file systems have."""
_DEVICE = re.compile(r"auto|cpu|cuda(:(0|[1-9]\d{0,2}))?")


@dataclass(frozen=True)
class Range:
    """Numbers that an option may be.

    Attributes:
        name: the option, as a sentence about it begins. least, most: both included, but ``least``
            where ``above``. whole: no fractions. unit: of the number, for the sentence.
    """

    name: str
    least: float
    most: float
    whole: bool = False
    above: bool = False
    unit: str = ""

    def check(self, value: Any) -> Any:
        """The value.

        Raises:
            InputError: it is no number, or out of range.
        """
        kind = Integral if self.whole else Real
        fits = isinstance(value, kind) and not isinstance(value, bool)
        if fits:
            fits = self.least <= value <= self.most and not (self.above and value == self.least)
        if not fits:  # NaN is within nothing
            raise InputError(f"{self.name} {self._must()}, not {_shown(value)}.")
        return value

    def _must(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        kind = "a whole number " if self.whole else ""
        if self.above:
            return f"must be above {self.least:g}{unit} and at most {self.most:g}"
        if not math.isfinite(self.most):
            return f"must be {kind}{self.least:g}{unit} or more"
        return f"must be {kind}from {self._end(self.least)} to {self._end(self.most)}{unit}"

    def _end(self, value: float) -> str:
        """An end of the range: no digit of a seed's is left out."""
        return str(value) if isinstance(value, int) else f"{value:g}"


EPOCHS = Range("The number of epochs", 1, 10**6, whole=True)
STEPS = Range("The number of steps", 1, 10**9, whole=True)
COUNT = Range("Steps, crops, crop size and patience, each,", 1, 10**6, whole=True)
WARM_UP = Range("The number of warm-up epochs", 0, 10**6, whole=True)
LEARNING_RATE = Range("The learning rate", 0, 1e30, above=True)
WEIGHT = Range("The weight of a term of the loss", 0, 1e6)
SIZE_WEIGHT = Range("The size weight lambda", 0, 1e6)
PART = Range("A part of the epochs", 0, 1)
FACTOR = Range("A factor of the learning rate", 0, 1e6, above=True)
SEED = Range("The seed", 0, 2**64 - 1, whole=True)
GAMMA = Range("The tolerance gamma", 0, 1e6)
PRIOR_ML = Range("A prior volume", 0, 1e9, above=True, unit="ml")
SPREAD_ML = Range("A spread", 0, 1e9, unit="ml")
TOLERANCE_MM = Range("The tolerance", 0, 1000.0, unit="mm")
OFFSET = Range("The intensity offset", -1e9, 1e9)
CACHE_GB = Range("The size of the cache", 0, 1e9, unit="GB")
CACHE_BYTES = Range("The size of the cache", 0, 2**60, whole=True, unit="bytes")
MINUTES = Range("The number of minutes", 0, math.inf)
THREADS = Range("The number of threads", 1, 4096, whole=True)
EPISODES = Range("The number of episodes", 1, 10**9, whole=True)
BATCH = Range("The number of episodes of a step", 1, 4096, whole=True)
SHOTS = Range("A number of shots", 1, 10**6, whole=True)
SUPPORTS = Range("The number of supports", 1, 1000, whole=True)
ROWS = Range("The number of rows", 1, 10**6, whole=True)


def require_device(name: Any) -> str:
    """The name of a device, which need not be here.

    Raises:
        InputError: it is not ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    """
    if not isinstance(name, str) or not _DEVICE.fullmatch(name):
        raise InputError(
            f"There is no device '{_shown(name)}' here. Use --device auto, cpu, cuda or cuda:N."
        )
    return name


def require_path(path: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """A path that a file can have.

    Raises:
        InputError: it is no path, empty, or too long, or has a zero byte.
    """
    text = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(text, str):
        raise InputError(f"A path is a text or a Path, not {type(path).__name__}.")
    try:
        data = os.fsencode(text)
    except UnicodeEncodeError as error:
        raise InputError(f"{_shown(text)} is no path: it has half a character.") from error
    if not data or b"\0" in data:
        raise InputError(f"A path is empty or has a zero byte ({_shown(text)}). Give another.")
    longest = max(len(part) for part in re.split(rb"[/\\]" if os.name == "nt" else b"/", data))
    if longest > NAME_BYTES or len(data) > PATH_BYTES:
        raise InputError(
            f"{_shown(text)} is too long: a name has {NAME_BYTES} bytes at most, and a path "
            f"{PATH_BYTES}. Give a shorter one."
        )
    return path


def _shown(value: Any) -> str:
    """A value in a sentence, cut where it is long."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else f"{text[:40]}... ({len(text)} characters)"
