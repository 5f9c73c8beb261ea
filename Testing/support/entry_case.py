"""A home of its own, and a folder for registry entries elsewhere."""

from __future__ import annotations

import json
import os
import tempfile
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from tiny_model import write_model

from FewShotSegLib.core.errors import ModelError


class EntryTestCase(unittest.TestCase):
    """With a home of its own, and a folder for entries elsewhere."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="Größe ")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.home = self.folder / "home"
        self.models = self.home / "models"
        self.models.mkdir(parents=True)
        patch = mock.patch.dict(os.environ, {"FEWSHOTSEG_HOME": str(self.home)})
        patch.start()
        self.addCleanup(patch.stop)

    def entry(self, **changes: Any) -> dict[str, Any]:
        """A usable entry's JSON, with other fields."""
        data = json.loads(write_model(self.folder / "made").read_text())
        return {**data, **changes}

    def assert_refused(self, telling: str, action: Callable[[], Any]) -> None:
        with self.assertRaisesRegex(ModelError, telling) as caught:
            action()
        self.assertRegex(str(caught.exception), r"^[^\n]+\.$")

    def left(self) -> set[str]:
        return {path.name for path in self.models.iterdir()}
