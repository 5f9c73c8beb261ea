"""What the engine needs of its Python, what of it is missing, and what is too old.

``requirements.txt`` in the package's folder is the one list, for ``pyproject.toml``, for Slicer and
for here. Nothing is imported to find out, so that torch stays out of the Slicer process. What is
installed already is never replaced: the user is informed.
"""

from __future__ import annotations

import importlib.metadata
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from .file_cache import FileCache

FILE = Path(__file__).resolve().parents[1] / "requirements.txt"
REASONS = {
    "torch": "older ones can run code that is hidden in a file of weights, or corrupt memory",
}
"""Why an old one is more than an inconvenience."""


@dataclass(frozen=True)
class Requirement:
    """One line of the list.

    Attributes:
        name: of the package, which is also the name that it is imported by.
        minimum: the lowest version that will do.
    """

    name: str
    minimum: str

    def __str__(self) -> str:
        return f"{self.name}>={self.minimum}"


@dataclass(frozen=True)
class Outdated:
    """A package that is installed in a version below the lowest that will do."""

    requirement: Requirement
    installed: str

    def __str__(self) -> str:
        name, reason = self.requirement.name, REASONS.get(self.requirement.name)
        text = (
            f"{name} {self.installed} is installed, and FewShotSeg needs "
            f"{self.requirement.minimum} or newer"
        )
        return f"{text}: {reason}." if reason else f"{text}."


def read_requirements() -> list[Requirement]:
    """The list.

    Raises:
        ValueError: a line is not of the form NAME>=VERSION.
    """
    return list(_parsed(FILE))


def _parse(path: Path) -> list[Requirement]:
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        parts = re.fullmatch(r"(\w+)>=(\d+(?:\.\d+)*)", line.strip())
        if parts is None:
            raise ValueError(f"{path.name}: '{line}' is not NAME>=VERSION")
        found.append(Requirement(*parts.groups()))
    return found


_parsed = FileCache(_parse)


def missing_packages() -> list[str]:
    """Requirements that this Python lacks, such as ``torch>=2.10``."""
    return [str(need) for need in read_requirements() if find_spec(need.name) is None]


def outdated_packages() -> list[Outdated]:
    """What is installed, but too old. What doesn't tell its version is taken to be right."""
    return [found for need in read_requirements() if (found := outdated(need)) is not None]


def outdated(need: Requirement) -> Outdated | None:
    """The same of one requirement; None where it is new enough, or not there."""
    try:
        installed = importlib.metadata.version(need.name)
    except importlib.metadata.PackageNotFoundError:
        return None
    too_old = installed and release(installed) < release(need.minimum)
    return Outdated(need, installed) if too_old else None


def release(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with: (2, 13) of 2.13.0+cpu and of 2.13.0rc1."""
    found = re.match(r"v?(?:\d+!)?(\d+(?:\.\d+)*)", version.strip())
    numbers = [int(part) for part in found.group(1).split(".")] if found else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
