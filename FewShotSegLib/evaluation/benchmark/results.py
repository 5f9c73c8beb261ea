"""The results of a benchmark as rows of a file, one a query, each kept as soon as it is known."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from ...core.errors import InputError, StorageError
from ...core.json_fields import parse_json
from ...core.json_schema import Check, from_json
from ...core.settings import RefinementSettings
from .plan import Draw, Method, Task

NAME = "results.jsonl"
MOST_BYTES, MOST_LINE = 2**30, 2**20
_BEGIN = b'{"setting": "'
"""How every row begins."""

Count = Annotated[int, Check("a whole number, 0 or more", lambda n: 0 <= n < 2**63)]
Seconds = Annotated[float, Check("a number from 0 to 1e9", lambda s: 0 <= s <= 1e9)]
Dice = Annotated[float, Check("a number from 0 to 1", lambda d: 0 <= d <= 1)]
Scores = dict[str, Dice | None]
Measures = dict[str, dict[str, float | None]]
MEASURED = ("hd95_mm", "surface_dice", "volume_ml", "reference_ml")
"""Fields of :class:`..metrics.Scores` that a row keeps beside Dice."""


def setting_key(task: Task, method: Method, shots: int, draw: Draw, weights_sha256: str) -> str:
    """12 hexadecimal digits that stand for all that a result depends on beside its query.

    So rows of other weights, supports or settings are never taken for these, and what does not
    change a result, such as its name in the table, changes no key.
    """
    options = method.options
    parts = {
        "structures": [[s.name, s.value] for s in task.structures],
        "method": [options.method, options.decoder, options.preset, options.features],
        "training": options.training.to_json(),
        "refinement": asdict(RefinementSettings()) if method.refine else None,
        "weights": weights_sha256,
        "supports": draw.supports[:shots],
        "seed": draw.seed,
    }
    if options.companion is not None:
        parts["companion"] = [options.companion.method, options.companion.training.to_json()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Row:
    """What a line of the file says; more fields than these are left alone.

    Attributes:
        setting: :func:`setting_key`. draw: its seed.
        dice: by structure that the query annotates, on the original grid; None where both are
            empty. dice_ti: the same, refined; absent without transduction.
        parameters: trained. train_seconds: without the features of the supports, which are stored.
        query_seconds: absent in rows of before it was measured.
        scores: by structure, what :data:`MEASURED` lists; None for what is not defined, and for the
            infinite distance to what was missed (its Dice is 0). scores_ti: the same, refined.
        model, weights: id and hash of the foundation model. versions: of what computed it. These
            five are absent in rows of before they were kept.
    """

    OTHERS: ClassVar[bool] = True
    setting: str
    task: str
    method: str
    shots: Count
    draw: Count
    query: str
    dice: Scores
    parameters: Count
    train_seconds: Seconds
    dice_ti: Scores = None  # type: ignore[assignment]
    query_seconds: Seconds = None  # type: ignore[assignment]
    scores: Measures = None  # type: ignore[assignment]
    scores_ti: Measures = None  # type: ignore[assignment]
    model: str = None  # type: ignore[assignment]
    weights: str = None  # type: ignore[assignment]
    versions: dict[str, str] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.dice_ti is not None and set(self.dice_ti) != set(self.dice):
            raise InputError("'dice_ti' has the structures of 'dice'")
        for scores, what in ((self.scores, "scores"), (self.scores_ti, "scores_ti")):
            if scores is None:
                continue
            if set(scores) != set(self.dice):
                raise InputError(f"'{what}' has the structures of 'dice'")
            if any(set(one) != set(MEASURED) for one in scores.values()):
                raise InputError(f"each of '{what}' has {', '.join(MEASURED)}")


class Results:
    """Rows (:class:`Row`, as plain dictionaries) by setting and query."""

    def __init__(self, path: Path) -> None:
        """Read what is there. Nothing of it is changed before :meth:`mend` or :meth:`add`.

        Raises:
            InputError: the file holds something else.
        """
        self.path = path
        self._rows: dict[tuple[str, str], dict[str, Any]] = {}
        self._whole: int | None = None  # the bytes of whole lines, where more follow
        lines = self._read().splitlines(keepends=True)
        for number, line in enumerate(lines, 1):
            if number == len(lines) and _cut_off(line):  # a full disk, a power cut: it is run again
                self._whole = sum(map(len, lines[:-1]))
                break
            name = f"Line {number} of {path}"
            try:
                row = parse_json(line, name, max_bytes=MOST_LINE)
                from_json(Row, row, "")
            except InputError as error:
                reason = str(error).removeprefix(f"{name} can't be used: ").rstrip(".")
                raise InputError(
                    f"{name} is no result of a benchmark ({reason}); give another --out."
                ) from error
            self._rows[row["setting"], row["query"]] = row
        self._open_end = bool(lines) and self._whole is None and not lines[-1].endswith(b"\n")

    def _read(self) -> bytes:
        try:
            if not self.path.exists() and not self.path.is_symlink():
                return b""
            if not self.path.is_file():  # a pipe or a device could be read for ever
                raise InputError(f"{self.path} is not a file; give another --out.")
            with self.path.open("rb") as stream:
                data = stream.read(MOST_BYTES + 1)
        except OSError as error:
            raise InputError(f"{self.path} can't be read ({error.strerror}).") from error
        if len(data) > MOST_BYTES:
            raise InputError(f"{self.path} is larger than any benchmark's; give another --out.")
        return data

    def mend(self) -> None:
        """Cut a last line off that a full disk or a power cut left half written.

        Raises:
            StorageError: the file can't be written.
        """
        if self._whole is None and not self._open_end:
            return
        try:
            with self.path.open("r+b") as stream:
                if self._whole is not None:
                    stream.truncate(self._whole)
                else:  # a whole row without its end: the next one would stand on the same line
                    stream.seek(0, os.SEEK_END)
                    stream.write(b"\n")
                os.fsync(stream.fileno())
        except OSError as error:
            raise StorageError(f"{self.path} can't be written ({error.strerror}).") from error
        self._whole, self._open_end = None, False

    def get(self, setting: str, query: str, refined: bool = False) -> dict[str, Any] | None:
        """A row, or None where it was not run.

        Args:
            refined: whether it must have been segmented with transduction as well.
        """
        row = self._rows.get((setting, query))
        return None if refined and row is not None and row.get("dice_ti") is None else row

    def add(self, row: dict[str, Any]) -> None:
        """Keep one row.

        Raises:
            StorageError: it can't be written.
        """
        self.mend()
        self._rows[row["setting"], row["query"]] = row
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row, allow_nan=False) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise StorageError(f"{self.path} can't be written ({error.strerror}).") from error


def _cut_off(line: bytes) -> bool:
    """Whether a last line is the beginning of a row of ours, or the zeros that a power cut leaves.

    All else is a user's: it is never thrown away.
    """
    if line.endswith(b"\n"):
        return False
    text = line.rstrip(b"\0")
    if not (text.startswith(_BEGIN) or _BEGIN.startswith(text)):
        return False
    try:
        parse_json(text, "The last line")
    except InputError:
        return True
    return text != line
