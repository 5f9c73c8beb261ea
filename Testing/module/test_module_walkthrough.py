"""The clinician's way on synthetic patients, click by click, through the real process."""

from __future__ import annotations

import unittest
from pathlib import Path

import numpy as np
import slicer_world
from panel_case import texts
from walk_case import WalkTestCase, masks_of
from walkthrough import Walkthrough

SMALL = {"spacing": (6.0, 6.0, 6.0), "shape": (40, 32, 26)}
"""A phantom that is quick to train on; what comes out need not be good."""


def write_small_phantoms(way: Walkthrough, folder: Path, supports: int) -> None:
    """What ``Walkthrough.make_phantoms`` makes, coarser and without a process."""
    from FewShotSegLib.core.atomic import write_json
    from FewShotSegLib.io.results import write_label_map, write_probability
    from FewShotSegLib.phantoms.patients import ORGANS, make_phantom

    way.supports_folder = folder / "supports"
    way.supports_folder.mkdir()
    for number in range(supports + 1):
        volume, annotation = make_phantom(number, **SMALL)
        labels = np.zeros(volume.grid.shape, np.uint8)
        for organ in ORGANS:
            labels[annotation.masks[organ.name]] = organ.value
        place = way.supports_folder if number < supports else folder
        image = place / f"phantom_{number:02d}_ct.nii.gz"
        write_probability(image, volume.array.astype(np.float32), volume.grid)
        if number < supports:
            write_label_map(place / f"phantom_{number:02d}_seg.nii.gz", labels, volume.grid)
        way.query_file = image
    names = {str(organ.value): organ.name for organ in ORGANS}
    write_json(way.supports_folder / "labels.json", names)


class WalkthroughTest(WalkTestCase):
    """Add a folder, train, cancel once, train again, segment, look, save, reload."""

    def test_the_way(self) -> None:
        write_small_phantoms(self.way, self.folder, 2)
        self.way.add_supports()
        self.assertEqual(self.ui.supportsSection.text, "1  Annotated volumes: 2 of 2 ready")
        names = [row[1] for row in texts(self.ui.structuresTable)]
        self.assertEqual(names, ["gland_right", "gland_left", "pouch"])
        self.assertFalse(self.ui.adapterHint.visible)
        self.train_once_more_after_cancelling(2)
        self.way.choose_query()
        first = masks_of(self.segment(names, refine=False))
        self.assertIsNone(self.logic.results()[0].unrefined)
        result = self.segment(names)
        if result.unrefined is not None:
            for name, mask in masks_of(result, refined=False).items():
                np.testing.assert_array_equal(mask, first[name])
        self.check_overlay(result)
        self.check_reload()


if __name__ == "__main__":
    assert slicer_world
    unittest.main()
