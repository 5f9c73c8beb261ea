"""Image and annotation belong together, whichever way the pair comes in."""

from __future__ import annotations

import json
import unittest

import numpy as np
from annotation_grids import part_of
from tiny_model import STRUCTURES, TrainedWorld, run, write_array

from FewShotSegLib.core.annotation import (
    Annotation,
    Structure,
    parse_structures,
    require_structures,
)
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.job_protocol import ArrayFile, MaskFile, SupportFiles
from FewShotSegLib.io.volumes import read_image
from FewShotSegLib.pipeline.adapter_file import TrainedAdapter
from FewShotSegLib.pipeline.inputs import as_supports
from FewShotSegLib.training.support_set import Support, choose_structures
from FewShotSegLib.worker.inputs import read_support as read_job_support


class Everywhere(TrainedWorld):
    """Every way that a pair comes in."""

    def setUp(self) -> None:
        super().setUp()
        image = read_image(self.supports[0].image)
        labels = read_image(self.supports[0].segmentation).array
        self.cropped = self.folder / "cropped.nii.gz"
        grid = part_of(image.grid, (0, 1, 0), (24, 18, 12))
        write_array(self.cropped, labels[:, 1:], grid)
        self.image, self.labels = image, labels

    def test_adapt_and_segment(self) -> None:
        telling = "image has 24 x 19 x 12 voxels.*segmentation .*cropped.nii.gz has 24 x 18 x 12"
        pair = ["--support", str(self.supports[0].image), str(self.cropped)]
        out = self.folder / "new.fseft"
        ran = run("adapt", *pair, "--structures", STRUCTURES, "--out", str(out))
        self.assertEqual(ran.status, 2)
        self.assertRegex(ran.err, telling)
        self.assertFalse(out.exists())
        out = self.folder / "new.nii.gz"
        ran = run(*self.segment_arguments(self.adapter, out, str(self.query.image), *pair))
        self.assertEqual(ran.status, 2)
        self.assertRegex(ran.err, telling)
        self.assertFalse(out.exists())

    def test_pairs_of_a_folder(self) -> None:
        data = self.folder / "data"
        data.mkdir()
        for number, patient in enumerate((*self.supports[:1], self.query)):
            (data / f"p{number}_ct.nii.gz").write_bytes(patient.image.read_bytes())
        (data / "p0_seg.nii.gz").write_bytes(self.cropped.read_bytes())
        (data / "p1_seg.nii.gz").write_bytes(self.query.segmentation.read_bytes())
        ran = run(
            *("demo", "--data", str(data), "--supports", "1", "--structures", STRUCTURES),
            *("--model", str(self.model), "--out", str(self.folder / "demo")),
        )
        self.assertEqual(ran.status, 2)
        self.assertRegex(ran.err, "p0_seg.nii.gz has 24 x 18 x 12")

    def test_arrays_in_memory(self) -> None:
        structures = parse_structures(STRUCTURES)

        def support(**masks: np.ndarray) -> Support:
            return Support(self.image, Annotation(masks, structures), "")

        bean = self.labels == 4
        (good,) = as_supports([support(bean=bean.astype(np.uint8), pea=bean & False)], None)
        self.assertEqual(good.annotation.annotated, {"bean"})
        np.testing.assert_array_equal(good.annotation.masks["bean"], bean)
        self.assertEqual(good.annotation.masks["bean"].dtype, bool)
        for telling, masks in {
            "bean in support 1 has 24 x 18 x 12 voxels, its volume 24 x 19 x 12": {
                "bean": bean[:, 1:]
            },
            "bean in support 1 is no mask": {"bean": self.labels},
            "Nothing is annotated in support 1": {"bean": bean & False},
        }.items():
            with self.assertRaisesRegex(InputError, telling):
                as_supports([support(**masks)], None)

    def test_arrays_of_a_job(self) -> None:
        image = np.zeros((10, 10, 10), np.int16)
        np.save(self.folder / "image.npy", image)
        np.save(self.folder / "mask.npy", np.ones((10, 10, 10), np.uint8))
        for shift, refused in ((0, False), (4, False), (6, True), (-6, True)):
            moved = np.eye(4)
            moved[0, 3] = shift + 0.3
            source = SupportFiles(
                ArrayFile("image.npy", np.eye(4).tolist()),
                [MaskFile("a", ArrayFile("mask.npy", moved.tolist()))],
            )
            arguments = (self.folder, source, [Structure("a", 1)], "Support 1")
            if refused:
                with self.assertRaisesRegex(InputError, "Support 1: 60 % of its annotation"):
                    read_job_support(*arguments)
            else:
                found = read_job_support(*arguments).annotation.masks["a"]
                self.assertEqual(int(found.sum()), (10 - shift) * 100)


class StructureValues(TrainedWorld):
    """No structure is lost to the background or to another one, wherever the list comes from."""

    BAD = {
        "0 is not within 1 to 65535": [("bean", 0), ("pea", 5)],
        "65536 is not within": [("bean", 4), ("pea", 65536)],
        "-3 is not within": [("bean", 4), ("pea", -3)],
        "value 4 comes twice": [("bean", 4), ("pea", 4)],
        "name .* comes twice": [("bean", 4), ("Bean", 5)],
    }

    def test_lists_in_text_and_in_memory(self) -> None:
        image = read_image(self.supports[0].image)
        labels = read_image(self.supports[0].segmentation).array
        masks = {"bean": labels == 4, "pea": labels == 5}
        support = Support(image, Annotation(masks, parse_structures(STRUCTURES)))
        for telling, pairs in self.BAD.items():
            structures = [Structure(*pair) for pair in pairs]
            with self.subTest(telling):
                if pairs[1][1] >= 0:
                    with self.assertRaisesRegex(InputError, telling):
                        parse_structures(",".join(f"{value}={name}" for name, value in pairs))
                for use in (
                    lambda s: require_structures(s, "These"),
                    lambda s: choose_structures([support], s),
                ):
                    with self.assertRaisesRegex(InputError, telling):
                        use(structures)
        for value in (True, 1.0, "4", None):
            with self.assertRaisesRegex(InputError, "not within 1 to 65535"):
                require_structures([Structure("bean", value)], "These")
        require_structures([Structure("bean", np.int64(4)), Structure("pea", 65535)], "These")

    def test_in_an_adapter(self) -> None:
        whole = self.adapter.read_bytes()
        size = int.from_bytes(whole[:8], "little")
        header = json.loads(whole[8 : 8 + size])
        for telling, pairs in self.BAD.items():
            with self.subTest(telling):
                metadata = json.loads(header["__metadata__"]["fewshotseg"])
                for own, (name, value) in zip(metadata["structures"], pairs, strict=True):
                    metadata["priors"].setdefault(name, metadata["priors"][own["name"]])
                    own |= {"name": name, "value": value}
                changed = {**header, "__metadata__": {"fewshotseg": json.dumps(metadata)}}
                raw = json.dumps(changed).encode()
                raw += b" " * (-len(raw) % 8)
                path = self.folder / "bad.fseft"
                path.write_bytes(len(raw).to_bytes(8, "little") + raw + whole[8 + size :])
                with self.assertRaises(InputError) as caught:
                    TrainedAdapter.load(path)
                self.assertIn("bad.fseft", str(caught.exception))
                out = self.folder / "x.nii.gz"
                ran = run(*self.segment_arguments(path, out, str(self.query.image)))
                self.assertEqual((ran.status, out.exists()), (2, False))


if __name__ == "__main__":
    unittest.main()
