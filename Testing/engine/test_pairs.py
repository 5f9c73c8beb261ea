"""Images and segmentations that belong together, in every layout; and what can't be determined."""

from __future__ import annotations

import json
import tempfile
import unittest
from pathlib import Path

from shared_data import data_folder

from FewShotSegLib.core.errors import InputError
from FewShotSegLib.io.pairs import find_pairs, read_names


class PairsTestCase(unittest.TestCase):
    """A folder with files that are only names."""

    def setUp(self) -> None:
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = Path(holder.name)

    def make(self, *names: str) -> None:
        for name in names:
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    def found(self) -> list[tuple[str, str, str]]:
        return [
            (
                pair.name,
                pair.image.relative_to(self.folder).as_posix(),
                pair.segmentation.relative_to(self.folder).as_posix(),
            )
            for pair in find_pairs(self.folder)
        ]

    def assert_refused(self, telling: str) -> None:
        with self.assertRaisesRegex(InputError, telling) as caught:
            find_pairs(self.folder)
        self.assertNotIn("\n", str(caught.exception))


class LayoutTests(PairsTestCase):
    """What belongs together."""

    def test_beside_each_other_in_natural_order(self) -> None:
        self.make("pt_13_ct.nii.gz", "pt_13_seg.nii.gz", "pt_2_ct.nii.gz", "pt_2_seg.nii.gz")
        self.make("pt_7_ct.nii.gz", "pt_8_seg.nii.gz", "._pt_2_seg.nii.gz", "labels.json")
        self.assertEqual(
            self.found(),
            [
                ("pt_2", "pt_2_ct.nii.gz", "pt_2_seg.nii.gz"),
                ("pt_13", "pt_13_ct.nii.gz", "pt_13_seg.nii.gz"),
            ],
        )

    def test_every_ending(self) -> None:
        expected = []
        endings = [
            ("_ct", "_seg"), ("_mr", "-seg"), ("_image", "_label"), ("_img", "_labels"),
            ("", "_mask"), ("", ".seg"), ("_MRI", "_Segmentation"), ("-ct", "_seg"),
        ]  # fmt: skip
        for number, (image, segmentation) in enumerate(endings):
            names = f"a{number}{image}.nrrd", f"a{number}{segmentation}.nrrd"
            self.make(*names)
            expected.append((f"a{number}", *names))
        self.assertEqual(self.found(), expected)

    def test_an_image_named_as_an_ending(self) -> None:
        self.make("ct.nii.gz", "ct_seg.nii.gz", "mr.nii.gz", "mr_seg.nii.gz")
        self.assertEqual([name for name, _, _ in self.found()], ["ct", "mr"])

    def test_two_folders(self) -> None:
        for images in ("images", "imagesTr", "image"):
            for labels in ("labels", "labelsTr", "label", "segmentations", "masks"):
                with self.subTest(images=images, labels=labels):
                    self.make(f"x/{images}/a.nii.gz", f"x/{images}/b.mha", f"x/{labels}/b.nii.gz")
                    self.make("x/imagesTs/a.nii.gz")
                    (pair,) = find_pairs(self.folder / "x")
                    self.assertEqual((pair.name, pair.image.name), ("b", "b.mha"))
                    self.assertEqual(pair.segmentation, self.folder / "x" / labels / "b.nii.gz")
                    (self.folder / "x").rename(self.folder / f"done-{images}-{labels}")

    def test_nnunet(self) -> None:
        self.make("imagesTr/la_003_0000.nii.gz", "labelsTr/la_003.nii.gz")
        self.make("imagesTr/la_0010.nii.gz", "labelsTr/la_0010.nii.gz")
        self.assertEqual(
            self.found(),
            [
                ("la_003", "imagesTr/la_003_0000.nii.gz", "labelsTr/la_003.nii.gz"),
                ("la_0010", "imagesTr/la_0010.nii.gz", "labelsTr/la_0010.nii.gz"),
            ],
        )

    def test_a_folder_each(self) -> None:
        self.make("case 10/image.nii.gz", "case 10/segmentation.nii.gz")
        self.make("case 9/t1.nii.gz", "case 9/t1_mask.nii.gz", "empty/t1.nii.gz", "notes/a.txt")
        self.assertEqual(
            self.found(),
            [
                ("case 9", "case 9/t1.nii.gz", "case 9/t1_mask.nii.gz"),
                ("case 10", "case 10/image.nii.gz", "case 10/segmentation.nii.gz"),
            ],
        )

    def test_the_shared_data(self) -> None:
        for part, count, first in (("openkbp/dev", 24, "pt_1"), ("hippocampus", 60, None)):
            pairs = find_pairs(data_folder() / part)
            self.assertEqual(len(pairs), count)
            self.assertEqual(len({pair.name for pair in pairs}), count)
            if first:
                self.assertEqual([p.name for p in pairs[:3]], [first, "pt_2", "pt_4"])


class RefusalTests(PairsTestCase):
    """What nobody should guess."""

    def test_nothing(self) -> None:
        self.assert_refused("no images with segmentations.*pt_1_ct")
        self.make("a_ct.nii.gz", "images/b.nii.gz")
        self.assert_refused("no images with segmentations")
        self.folder = self.folder / "absent"
        self.assert_refused("There is no folder")

    def test_several_images_for_one_segmentation(self) -> None:
        self.make("a_ct.nii.gz", "a_mr.nii.gz", "a_seg.nii.gz")
        self.assert_refused("could belong to a_ct.nii.gz, a_mr.nii.gz")

    def test_several_channels(self) -> None:
        self.make("images/a_0000.nii.gz", "images/a_0001.nii.gz", "labels/a.nii.gz")
        self.assert_refused("could belong to a_0000.nii.gz, a_0001.nii.gz")

    def test_several_segmentations_for_one_image(self) -> None:
        self.make("a_ct.nii.gz", "a_seg.nii.gz", "a_label.nii.gz")
        self.assert_refused("several segmentations, a_label.nii.gz, a_seg.nii.gz")

    def test_several_files_of_one_case(self) -> None:
        self.make("a/t1.nii.gz", "a/t2.nii.gz", "a/seg.nii.gz")
        self.assert_refused("one image and one segmentation.*seg.nii.gz, t1.nii.gz, t2.nii.gz")

    def test_two_folders_of_images(self) -> None:
        self.make("images/a.nii.gz", "imagesTr/a.nii.gz", "labels/a.nii.gz")
        self.assert_refused("folders images, imagesTr")


class NamesTests(PairsTestCase):
    """Structures from JSON."""

    def write(self, name: str, data: object) -> None:
        (self.folder / name).write_text(json.dumps(data), encoding="utf-8")

    def test_either_way_round_without_background(self) -> None:
        for labels in (
            {"0": "background", "10": "left one", "2": "liver"},
            {"background": 0, "left one": 10, "liver": 2},
        ):
            for name, data in (("labels.json", labels), ("dataset.json", {"labels": labels})):
                with self.subTest(name=name, labels=labels):
                    self.write(name, data)
                    self.assertEqual(read_names(self.folder), "2=liver,10=left one")
                    (self.folder / name).unlink()

    def test_none(self) -> None:
        self.assertIsNone(read_names(self.folder))

    def test_what_is_no_list_of_names(self) -> None:
        for data in (
            [], {}, {"0": "background"}, {"ct": {"1": "liver"}}, {"1": 2}, {"whole": [1, 2]},
            {"liver": True}, {"a": 1, "b": 1}, 3,
        ):  # fmt: skip
            with self.subTest(data=data):
                self.write("labels.json", data)
                with self.assertRaisesRegex(InputError, "no list of label values"):
                    read_names(self.folder)
        self.write("labels.json", {"1": "a/b"})
        with self.assertRaisesRegex(InputError, "part of a file's name"):
            read_names(self.folder)


if __name__ == "__main__":
    unittest.main()
