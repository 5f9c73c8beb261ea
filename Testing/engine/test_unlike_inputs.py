"""Supports and queries that differ from one another, as files through the command."""

from __future__ import annotations

import numpy as np
from tiny_model import (
    Patient,
    TrainedWorld,
    make_grid,
    make_labels,
    make_values,
    run,
    write_array,
    write_patient,
)

from FewShotSegLib.io.volumes import array_of, read_file, read_image
from FewShotSegLib.pipeline.adapter_file import TrainedAdapter


class UnlikeInputsTest(TrainedWorld):
    def test_supports_that_annotate_other_structures(self) -> None:
        first = write_patient(self.folder, "first", 0, annotated=(4,))
        second = write_patient(self.folder, "second", 1, annotated=(5,))
        out = self.folder / "x.fseft"
        ran = run(*self.adapt_arguments(out, supports=[first, second], epochs=1))
        self.assertEqual(ran.status, 0, ran.err)
        trained = TrainedAdapter.load(out)
        self.assertEqual([s.name for s in trained.structures], ["bean", "pea"])
        self.assertEqual(
            {name: p.count for name, p in trained.priors.items()}, {"bean": 1, "pea": 1}
        )

    def test_label_values_at_their_ends_and_of_other_types(self) -> None:
        grid, labels = make_grid(), make_labels(0, make_grid())
        image = write_array(self.folder / "i.nii.gz", make_values(0, labels), grid)
        wide = np.where(labels == 5, 65535, np.where(labels == 4, 1, 0))
        adapters = []
        for dtype in (np.uint16, np.int32, np.float32, np.float64):
            drawn = write_array(self.folder / f"{dtype.__name__}.nii.gz", wide.astype(dtype), grid)
            out = self.folder / f"{dtype.__name__}.fseft"
            more = ("--structures", "1=bean,65535=pea")
            ran = run(*self.adapt_arguments(out, *more, supports=[Patient(image, drawn)], epochs=1))
            self.assertEqual(ran.status, 0, ran.err)
            adapters.append(TrainedAdapter.load(out).content_sha256())
        self.assertEqual(len(set(adapters)), 1)
        result = self.folder / "r.nii.gz"
        more = ("--no-transductive",)
        ran = run(*self.segment_arguments(out, result, str(image), *more))
        self.assertEqual(ran.status, 0, ran.err)
        found = array_of(read_file(result))
        self.assertEqual(found.dtype, np.uint16)
        self.assertLessEqual(set(np.unique(found).tolist()), {0, 1, 65535})
        drawn = write_array(self.folder / "half.nii.gz", wide.astype(np.float32) / 2, grid)
        ran = run(*self.adapt_arguments(out, supports=[Patient(image, drawn)], epochs=1))
        self.assertEqual(ran.status, 2)

    def test_a_query_of_another_modality(self) -> None:
        query = write_patient(self.folder, "mr", 3, modality="MR")
        out = self.folder / "r.nii.gz"
        ran = run(*self.segment_arguments(self.adapter, out, str(query.image)))
        self.assertEqual(ran.status, 0, ran.err)
        self.assertIn("was trained on CT, but this query looks like MR", ran.err)

    def test_a_ct_that_was_stored_too_high_and_shows_no_air(self) -> None:
        """Nothing tells it from MR, which is said; with its offset it is the CT that it was."""
        volume = read_image(self.query.image)
        plain = np.maximum(volume.array, -150)
        path = write_array(self.folder / "plain.nii.gz", plain, volume.grid)
        high = write_array(
            self.folder / "high.nii.gz", (plain + 1024).astype(np.uint16), volume.grid
        )
        found = []
        for source, more in ((path, ()), (high, ("--intensity-offset", "-1024")), (high, ())):
            out = self.folder / f"p{len(found)}" / "r.nii.gz"
            more = ("--probabilities", "--no-transductive", *more)
            ran = run(*self.segment_arguments(self.adapter, out, str(source), *more))
            self.assertEqual(ran.status, 0, ran.err)
            (probability,) = out.parent.glob("*bean*.nii.gz")
            found.append(read_image(probability).array)
        np.testing.assert_array_equal(found[0], found[1])
        self.assertGreater(np.abs(found[0] - found[2]).max(), 0.01)
        self.assertIn("looks like MR", ran.err)
