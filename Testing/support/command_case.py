"""The command on the tiny world, with an adapter that it trained."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tiny_model import (
    Ran,
    TinyWorld,
    run,
)

ROOT = Path(__file__).resolve().parents[2]


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A Python of its own, started in the project's folder."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=900
    )


class CommandTestCase(TinyWorld):
    """With an adapter that the command trained; every test of it starts there."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.adapter = cls.world / "trained.fseft"
        cls.trained = run(*cls.adapt_arguments(cls.adapter, epochs=20))

    def setUp(self) -> None:
        super().setUp()
        self.assertEqual(self.trained.status, 0, self.trained.err)

    def done(self, *arguments: str) -> Ran:
        """A command that must succeed."""
        ran = run(*arguments)
        self.assertEqual(ran.status, 0, ran.err)
        return ran

    def segmented(self, out: Path, *more: str) -> Ran:
        return self.done(*self.segment_arguments(self.adapter, out, *more))

    def written(self) -> list[str]:
        return sorted(os.listdir(self.folder))
