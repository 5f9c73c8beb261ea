"""A trained world with an old output in the way of every command."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from tiny_model import (
    Patient,
    Ran,
    TrainedWorld,
    run,
)

ROOT = Path(__file__).resolve().parents[2]
PROGRESS = ("foundation model", "training", "segmenting", "transduction", "Note: ")
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, to the last bit."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


class BadInputTestCase(TrainedWorld):
    """With an old output in the way of every command, which has to stay."""

    def setUp(self) -> None:
        super().setUp()
        self.bad = self.folder / "input"
        self.outputs = self.folder / "output"
        self.outputs.mkdir()
        for name in ("old.fseft", "old.nii.gz", "scores.json"):
            (self.outputs / name).write_bytes(b"old " + name.encode())

    def assert_refused(self, telling: str, *arguments: str) -> Ran:
        """The command fails as promised, and says this."""
        before = contents(self.outputs)
        ran = run(*arguments)
        self.assertEqual(ran.status, 2, ran)
        self.assertEqual(ran.out, "")
        *others, last = ran.err.splitlines()
        self.assertTrue(last.startswith("fewshotseg: "), ran.err)
        self.assertRegex(last, telling)
        self.assertRegex(last, r"\.$")
        self.assertLess(len(last), 600)
        for line in others:
            self.assertTrue(line.startswith(PROGRESS), ran.err)
        self.assertEqual(contents(self.outputs), before)
        return ran

    def adapt(self, telling: str, *more: str, supports: tuple[Patient, ...] = ()) -> Ran:
        """``adapt`` to the old file."""
        out = self.outputs / "old.fseft"
        usual = self.adapt_arguments(out, supports=supports, epochs=1)
        return self.assert_refused(telling, *usual, *more)

    def segment(self, telling: str, query: Path | None = None, *more: str) -> Ran:
        """``segment`` to the old file."""
        query = query or self.query.image
        out = self.outputs / "old.nii.gz"
        return self.assert_refused(
            telling, *self.segment_arguments(self.adapter, out, str(query), *more)
        )
