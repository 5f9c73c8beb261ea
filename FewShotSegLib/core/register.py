"""A register of records by name: the project's own, and those that installed packages add.

A package adds a record through an entry point of the register's group, which names it in the
package's metadata; nothing of the project changes. ``method_catalog`` and ``architecture_catalog``
have the two registers. A record is read without torch; the class that it names, when it is used.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from .errors import InputError
from .json_fields import shown
from .plain_text import printable

HEAVY = ("torch", "monai")
"""What no record may import: Slicer's process and ``--help`` read records."""


class Record(Protocol):
    """What every record has."""

    @property
    def name(self) -> str:
        """Its key."""

    @property
    def implementation(self) -> str:
        """Its class, as ``"module:Class"``."""


_R = TypeVar("_R", bound=Record)
_C = TypeVar("_C")


@dataclass(frozen=True)
class Package:
    """An installed package that adds records.

    Attributes:
        name, version: as ``pip list`` shows them.
    """

    name: str
    version: str

    def __str__(self) -> str:
        return printable(f"{self.name} {self.version}", lines=False)


class Register(Mapping[str, _R]):
    """Records by name, the project's own first; other packages' are read at the first look.

    What can't be used of another package is left out with a remark, and hides nothing else.

    Args:
        group: of the entry points. Their names are those of the records, their values lead to
            them, as ``"package.module:NAME"``.
        kind: of the records. noun: what one is, for remarks, such as ``"method"``.
        own: the project's own.
        entry_points: gives those of a group; by default of all installed packages.
    """

    def __init__(
        self,
        group: str,
        kind: type[_R],
        noun: str,
        own: Iterable[_R],
        entry_points: Callable[[str], Iterable[Any]] | None = None,
    ) -> None:
        self.group, self.kind, self.noun = group, kind, noun
        self.own: Mapping[str, _R] = {record.name: record for record in own}
        self._entry_points = entry_points or _installed
        self._lock = threading.RLock()
        self._records: dict[str, _R] | None = None
        self._packages: dict[str, Package] = {}
        self._remarks: list[str] = []

    def __getitem__(self, name: str) -> _R:
        return self.records[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    @property
    def records(self) -> dict[str, _R]:
        """Every record by name."""
        with self._lock:
            if self._records is None:
                # Set first: a package that looks here while it is read finds the project's own.
                self._records = dict(self.own)
                self._read_others(self._records)
            return self._records

    @property
    def remarks(self) -> tuple[str, ...]:
        """What can't be used of other packages, and why: one sentence or two each."""
        _ = self.records
        return tuple(self._remarks)

    def package_of(self, name: str) -> Package | None:
        """The package that added a record; None where it is the project's own."""
        _ = self.records
        return self._packages.get(name)

    def _read_others(self, records: dict[str, _R]) -> None:
        try:
            found = sorted(self._entry_points(self.group), key=_order)
        except Exception as error:  # damaged metadata of any package
            self._remarks.append(
                f"Which packages add a {self.noun} can't be known: the list of what is installed "
                f"can't be read ({_in_short(error)}). FewShotSeg's own are there."
            )
            return
        for entry_point in found:
            package = _package(entry_point)
            try:
                record = self._read(entry_point, records)
            except InputError as error:
                reason = str(error).rstrip(".")
                self._remarks.append(
                    f"The {self.noun} {shown(entry_point.name)} of the package {package} is left "
                    f"out: {reason}. Update or uninstall that package."
                )
                continue
            records[record.name] = record
            self._packages[record.name] = package

    def _read(self, entry_point: Any, records: Mapping[str, _R]) -> _R:
        """One package's record.

        Raises:
            InputError: the name is taken, or there is no such record; a part of a sentence.
        """
        name = entry_point.name
        if name in records:
            other = self._packages.get(name)
            owner = f"the package {other}" if other else "FewShotSeg itself"
            raise InputError(f"{owner} has a {self.noun} of that name, which is kept")
        there = {heavy for heavy in HEAVY if heavy in sys.modules}
        try:
            record = entry_point.load()
        except (Exception, SystemExit) as error:  # another's code: nothing of it may end ours
            raise InputError(
                f"its record {printable(entry_point.value, lines=False)} can't be loaded "
                f"({_in_short(error)})"
            ) from error
        loaded = [heavy for heavy in HEAVY if heavy in sys.modules and heavy not in there]
        if loaded:
            raise InputError(
                f"its record imports {loaded[0]}; a record names its class as text, so that it is "
                "read without"
            )
        if not isinstance(record, self.kind):
            raise InputError(
                f"{printable(entry_point.value, lines=False)} is no {self.kind.__name__} but of "
                f"the type {type(record).__name__}"
            )
        if record.name != name:
            raise InputError(
                f"its record is called {shown(record.name)}; entry point and record have one name"
            )
        return record


class Implementations(Mapping[str, type[_C]], Generic[_C]):
    """The classes of a register's records by name, each imported when it is asked for.

    Args:
        base: what each is a subclass of. chosen: of which records.
    """

    def __init__(
        self,
        register: Register[Any],
        base: type[Any],
        chosen: Callable[[Any], bool] = lambda record: True,
    ) -> None:
        self._register, self._base, self._chosen = register, base, chosen
        self._classes: dict[str, type[_C]] = {}

    def __getitem__(self, name: str) -> type[_C]:
        """The class of a record.

        Raises:
            KeyError: there is no such record. InputError: another package's class can't be used.
        """
        record = self._register[name]
        if not self._chosen(record):
            raise KeyError(name)
        if name not in self._classes:
            self._classes[name] = self._load(record)
        return self._classes[name]

    def __contains__(self, name: object) -> bool:
        return (
            isinstance(name, str) and name in self._register and self._chosen(self._register[name])
        )

    def __iter__(self) -> Iterator[str]:
        return (name for name, record in self._register.items() if self._chosen(record))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _load(self, record: Record) -> type[_C]:
        package = self._register.package_of(record.name)
        module, _, name = record.implementation.partition(":")
        if package is None:  # a package of ours that is not installed is reported by its caller
            return getattr(importlib.import_module(module), name)
        about = f"The {self._register.noun} '{record.name}' of the package {package} can't be used"
        try:
            found = getattr(importlib.import_module(module), name)
        except (Exception, SystemExit) as error:
            raise InputError(
                f"{about}: {record.implementation} can't be loaded ({_in_short(error)}). Install "
                "that package again, with what it needs."
            ) from error
        if not (isinstance(found, type) and issubclass(found, self._base)):
            raise InputError(
                f"{about}: {record.implementation} is no {self._base.__name__}. Update that "
                "package."
            )
        # A class that knows its name, as one that trains a backbone does, is of one record.
        own = getattr(found, "name", record.name)
        if own != record.name:
            raise InputError(f"{about}: its class is called '{own}'. Update that package.")
        return found


def require_target(text: str, what: str) -> None:
    """Check that a text is of the form ``package.module:name``.

    Raises:
        InputError: it is not. ``what`` it is begins the message.
    """
    module, colon, name = text.partition(":")
    parts = [*module.split("."), name]
    if not colon or not all(part.isidentifier() for part in parts):
        raise InputError(f"{what} is of the form package.module:name, not {shown(text)}")


def _installed(group: str) -> Iterable[Any]:
    return importlib.metadata.entry_points(group=group)


def _package(entry_point: Any) -> Package:
    distribution = entry_point.dist
    if distribution is None:
        return Package("(unknown)", "")
    return Package(str(distribution.name), str(distribution.version))


def _order(entry_point: Any) -> tuple[str, str]:
    """The same on every computer: which of two of one name is kept must not hang on a folder."""
    return entry_point.name, _package(entry_point).name


def _in_short(error: BaseException) -> str:
    text = printable(" ".join(str(error).split()), lines=False)[:200].rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
