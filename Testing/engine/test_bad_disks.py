"""Places that can't be written to and full disks: one sentence, and nothing is lost."""

from __future__ import annotations

import unittest
from typing import BinaryIO
from unittest import mock

import numpy as np
from bad_input_case import FULL, BadInputTestCase


class BadDisks(BadInputTestCase):
    """Places that can't be written to, and disks that are full."""

    def test_a_place_that_cannot_be_written_to(self) -> None:
        inside = self.outputs / "scores.json"  # a file where a folder should be
        self.assert_refused("is not a folder", *self.adapt_arguments(inside / "x.fseft"))
        query = str(self.query.image)
        self.assert_refused(
            "is not a folder", *self.segment_arguments(self.adapter, inside / "x.nrrd", query)
        )
        truth = str(self.query.segmentation)
        self.assert_refused(
            "is not a folder",
            *("evaluate", "--reference", truth, "--prediction", truth),
            *("--json", str(inside / "x.json")),
        )

    def test_a_folder_in_the_way(self) -> None:
        (self.outputs / "x.fseft").mkdir()
        self.assert_refused("it is a folder", *self.adapt_arguments(self.outputs / "x.fseft"))

    def test_another_users_report_in_the_way(self) -> None:
        (self.outputs / "report.json").write_text('{"patients": 3}')
        self.segment("report.json is not a FewShotSeg report")

    def test_the_disk_is_full_while_caching(self) -> None:
        cache = ("--cache", str(self.folder / "cache"))
        for number in (0, 2):
            written = 0

            def write(file: BinaryIO, place: int, array: np.ndarray, number: int = number) -> None:
                nonlocal written
                file.write(b"half")
                written += 1
                if written > number:
                    raise FULL

            with mock.patch("FewShotSegLib.features.writer._write_at", write):
                telling = r"feature cache .*cache is full .* MB were needed.*--cache"
                self.adapt(telling, *cache)
                written = 0
                self.segment(telling, None, *cache)
            left = [p for p in (self.folder / "cache").iterdir() if p.suffix != ".lock"]
            self.assertEqual(left, [])

    def test_a_cache_that_cannot_be_made(self) -> None:
        cache = ("--cache", str(self.outputs / "scores.json" / "cache"))
        self.adapt("scores.json.cache can't be written to .*--cache", *cache)
        self.segment("scores.json.cache can't be written to .*--cache", None, *cache)

    def test_the_disk_is_full_while_a_result_is_written(self) -> None:
        with mock.patch("FewShotSegLib.io.results._planes", side_effect=FULL):
            self.segment("old.nii.gz.*is full")
        with mock.patch("FewShotSegLib.pipeline.adapter_file.write_sealed", side_effect=FULL):
            with mock.patch("FewShotSegLib.training.checkpoint.Checkpoint.save"):
                self.adapt("old.fseft.*is full")

    def test_memory_is_not_enough(self) -> None:
        for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")):
            with mock.patch(
                "FewShotSegLib.pipeline.segmentation.model_probabilities", side_effect=error
            ):
                self.segment("memory is not enough")


if __name__ == "__main__":
    unittest.main()
