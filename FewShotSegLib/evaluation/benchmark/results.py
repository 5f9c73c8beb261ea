"""The results of a benchmark as rows of a file, one a query, each kept as soon as it is known."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...core.atomic import replacing
from ...core.errors import InputError, StorageError
from ...core.json_fields import parse_json
from ...training.transduction import RefinementSettings
from .plan import Draw, Method, Task

NAME = "results.jsonl"


def setting_key(task: Task, method: Method, shots: int, draw: Draw, weights_sha256: str) -> str:
    """12 hexadecimal digits that stand for all that a result depends on beside its query.

    So rows of other weights, supports or settings are never taken for these, and what does not
    change a result, such as its name in the table, changes no key.
    """
    parts = {
        "structures": [[s.name, s.value] for s in task.structures],
        "method": [method.method, method.decoder, method.preset, method.features],
        "training": method.settings.to_json(),
        "refinement": asdict(RefinementSettings()) if method.refine else None,
        "weights": weights_sha256,
        "supports": draw.supports[:shots],
        "seed": draw.seed,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


class Results:
    """Rows by setting and query. A row has:

    ``setting`` (:func:`setting_key`), ``task``, ``method``, ``shots``, ``draw`` (its seed),
    ``query``; ``dice`` by structure on the original grid (null where both are empty) and, refined,
    ``dice_ti``; ``parameters`` trained; ``train_seconds`` (without the features of the supports,
    which are stored), ``query_seconds``.
    """

    def __init__(self, path: Path) -> None:
        """Read what is there.

        Raises:
            InputError: the file holds something else. StorageError: it can't be mended.
        """
        self.path = path
        self._rows: dict[tuple[str, str], dict[str, Any]] = {}
        try:
            text = path.read_bytes().decode("utf-8", "replace") if path.exists() else ""
        except OSError as error:
            raise InputError(f"{path} can't be read ({error.strerror}).") from error
        lines = text.splitlines()
        whole = text.endswith("\n") or not text
        for number, line in enumerate(lines, 1):
            try:
                row = parse_json(line, f"Line {number} of {path}")
                self._rows[row["setting"], row["query"]] = row
            except (InputError, KeyError, TypeError) as error:
                if number == len(lines):  # cut off by a full disk or a power cut: it is run again
                    lines, whole = lines[:-1], False
                    break
                raise InputError(
                    f"Line {number} of {path} is no result of a benchmark; give another --out."
                ) from error
        if not whole:  # the next row would come to stand on the same line
            with replacing(path) as temporary:
                temporary.write_text("".join(f"{kept}\n" for kept in lines), encoding="utf-8")

    def get(self, setting: str, query: str) -> dict[str, Any] | None:
        """A row, or None where it was not run."""
        return self._rows.get((setting, query))

    def add(self, row: dict[str, Any]) -> None:
        """Keep one row.

        Raises:
            StorageError: it can't be written.
        """
        self._rows[row["setting"], row["query"]] = row
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row, allow_nan=False) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise StorageError(f"{self.path} can't be written ({error.strerror}).") from error
