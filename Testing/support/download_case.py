"""A home with an entry that lacks its weights, and a server that has them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from file_server import FileServer
from tiny_model import write_model

from FewShotSegLib.core.errors import FewShotSegError, ModelError
from FewShotSegLib.core.model_folders import remove_model
from FewShotSegLib.models.download import download


class Terminal(io.StringIO):
    """A user who can be asked."""

    def isatty(self) -> bool:
        return True


class DownloadTestCase(unittest.TestCase):
    """With a home of its own, where an entry lies without its weights, and a server that has them.

    Pieces are small, so that a cut line has brought some; pauses are short.
    """

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.home = Path(folder.name) / "home"
        self.models = self.home / "models"
        patches = (
            mock.patch.dict(os.environ, {"FEWSHOTSEG_HOME": str(self.home)}),
            mock.patch("FewShotSegLib.models.fetching.PIECE", 512),
            mock.patch("FewShotSegLib.models.fetching.PAUSE_SECONDS", 0.01),
        )
        for patch in patches:
            patch.start()
            self.addCleanup(patch.stop)
        self.weights = self.models / "tiny.safetensors"
        self.elsewhere = Path(folder.name) / "elsewhere.safetensors"
        write_model(self.models)
        shutil.move(self.weights, self.elsewhere)
        self.content = self.elsewhere.read_bytes()
        self.digest = hashlib.sha256(self.content).hexdigest()
        self.half = len(self.content) // 2
        self.events: list[dict[str, Any]] = []
        self.server = FileServer(self.content)
        running = self.server.running()
        running.__enter__()
        self.addCleanup(running.__exit__, None, None, None)
        self.describe()

    def describe(self, **fields: Any) -> None:
        """Write the entry, with these fields."""
        path = self.models / "tiny.json"
        data = json.loads(path.read_text())
        path.write_text(json.dumps({**data, "weights_url": self.server.url, **fields}))

    def fetch(self) -> Path:
        return download("tiny", self.events.append)

    def assert_installed(self) -> None:
        self.assertEqual(self.weights.read_bytes(), self.content)
        self.assertEqual(self.left(), {"tiny.json", "tiny.safetensors", "SHA256SUMS"})

    def left(self) -> set[str]:
        """What is in the models' folder beside locks."""
        return {p.name for p in self.models.iterdir() if not p.name.startswith(".lock-")}

    def assert_refused(self, telling: str, kind: type[FewShotSegError] = ModelError) -> None:
        with self.assertRaisesRegex(kind, telling) as caught:
            self.fetch()
        self.assertNotIn("\n", str(caught.exception))
        self.assertFalse(self.weights.exists())


def remove_model_weights(weights: Path) -> None:
    """Of a model whose entry stays."""
    entry = weights.with_suffix(".json")
    text = entry.read_text()
    remove_model(weights.stem)
    entry.write_text(text)
