"""The logic for tests: with a home of its own, and small supports."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import slicer_world
from FewShotSegSlicer.logic import FewShotSegLogic
from module_scenes import add_segmentation, add_volume, affine_of

SHAPE = (12, 11, 10)


class LogicTestCase(slicer_world.SceneTestCase):
    """With a logic, and a home of its own."""

    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        home = mock.patch.dict(os.environ, {"FEWSHOTSEG_HOME": str(self.folder / "home")})
        home.start()
        self.addCleanup(home.stop)
        self.logic = FewShotSegLogic()
        self.addCleanup(self.logic.close)

    def support(self, terminologies: dict[str, str] | None = None, **sizes: int) -> str:
        """A support with a box of so many planes a name; its id."""
        number = len(self.logic.supports())
        volume = add_volume(np.zeros(SHAPE, np.int16), affine_of(), f"v{number}")
        masks = {}
        for name, planes in sizes.items():
            mask = np.zeros(SHAPE, bool)
            mask[1:6, 2:7, 1 : 1 + planes] = True
            masks[name] = mask
        return self.logic.addSupport(
            volume, add_segmentation(masks, affine_of(), volume, f"s{number}", terminologies)
        )

    def classes(self) -> dict[str, Any]:
        """Rows by name, once all sizes are counted."""
        self.logic.structures()
        slicer_world.process_events_until(lambda: self.logic.session.sizes._stepper is None)
        return {row.name: row for row in self.logic.structures()}
