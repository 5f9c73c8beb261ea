"""Reading annotations: label maps, segmentations, folders of masks, lists of structures."""

from __future__ import annotations

import os
import unittest
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from image_files import GRIDS, LIVER, SHAPE, FilesTestCase, make_box, make_image

from FewShotSegLib.core.annotation import Structure, parse_structures
from FewShotSegLib.core.colors import default_color
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.io import annotations as annotation_files
from FewShotSegLib.io import results as result_files
from FewShotSegLib.io import volumes as volume_files


class TestLabelMaps(FilesTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.grid = GRIDS["oblique and left-handed"]
        self.labels = np.zeros(SHAPE, np.uint8)
        self.labels[1:3, 2:4, 1:3] = 4
        self.labels[4:6, 2:4, 1:3] = 200

    def read(self, path: Path, structures: str | None = None):
        parsed = parse_structures(structures) if structures else None
        return annotation_files.read_annotation(path, self.grid, parsed)

    def test_all_labels(self) -> None:
        for extension in volume_files.EXTENSIONS:
            for dtype in (np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64):
                with self.subTest(extension=extension, dtype=dtype):
                    path = self.write(
                        "x" + extension, self.labels.astype(dtype), self.grid, extension != ".nii"
                    )
                    annotation = self.read(path)
                    self.assertEqual(list(annotation.masks), ["label_4", "label_200"])
                    self.assertEqual([s.value for s in annotation.structures], [4, 200])
                    for value in (4, 200):
                        mask = annotation.masks[f"label_{value}"]
                        self.assertEqual(mask.dtype, bool)
                        np.testing.assert_array_equal(mask, self.labels == value)
            path.unlink()

    def test_by_value(self) -> None:
        path = self.write("x.nii.gz", self.labels, self.grid)
        annotation = self.read(path, "7=absent,200=liver")
        self.assertEqual(annotation.annotated, {"liver"})
        self.assertEqual(annotation.structures, [Structure("liver", 200)])
        np.testing.assert_array_equal(annotation.masks["liver"], self.labels == 200)

    def test_nothing_annotated(self) -> None:
        path = self.write("x.nii.gz", self.labels * 0, self.grid)
        self.assert_refused("is empty", self.read, path)
        self.assert_refused("is empty", self.read, path, "1=liver")
        path = self.write("x.nii.gz", self.labels, self.grid)
        self.assert_refused(r"none .* \(liver\).*label 4, label 200", self.read, path, "1=liver")

    def test_no_label_map(self) -> None:
        refused = {
            "fractional": self.labels + 0.25,
            "not numbers": np.where(self.labels, np.nan, 0),
            "outside 0 to 65535": self.labels.astype(np.int32) - 1,
            "outside 0 to": self.labels.astype(np.int32) * 1000,
        }
        for telling, array in refused.items():
            path = self.write("x.nii.gz", array, self.grid)
            self.assert_refused(telling, self.read, path)

    def test_other_grids(self) -> None:
        image = make_image(self.labels, self.grid)
        spaced, shifted, away = (sitk.Image(image) for _ in range(3))
        spaced.SetSpacing((0.7, 1.1, 3.0))
        shifted.SetOrigin((-100.0, 33.3, 7.7))
        away.SetOrigin(image.TransformIndexToPhysicalPoint((50, 0, 0)))
        flipped = sitk.Flip(image, (True, False, False))
        for other in (spaced, shifted, away, flipped):
            path = self.folder / "x.nrrd"
            sitk.WriteImage(other, str(path))
            self.assert_refused(
                "image and segmentation have different grids.*9 x 7 x 5.*1.1 x 3.*9 x 7 x 5.*mm",
                self.read,
                path,
            )


class TestSegments(FilesTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.grid = GRIDS["oblique and left-handed"]
        self.masks = {
            "Liver": make_box(SHAPE, (1, 5), (2, 5), (1, 3)),
            "tumour\\a": make_box(SHAPE, (3, 7), (3, 6), (2, 4)),
            "Größe": make_box(SHAPE, (7, 8), (1, 2), (1, 2)),
        }
        self.structures = [
            Structure("Liver", 3, (1.0, 0.5, 0.25), LIVER),
            Structure("tumour\\a", 300),
            Structure("Größe", 7),
        ]
        self.path = self.folder / "x.seg.nrrd"

    def write_segments(self, **masks: np.ndarray) -> None:
        masks = self.masks | masks
        structures = [*self.structures, *(Structure(n, 9) for n in masks if n not in self.masks)]
        result_files.write_segments(self.path, masks, structures, self.grid)

    def read(self, structures: list[Structure] | None = None):
        return annotation_files.read_annotation(self.path, self.grid, structures)

    def write_like_slicer(self, image: sitk.Image, *segments: dict[str, str]) -> None:
        for index, fields in enumerate(segments):
            for key, value in fields.items():
                image.SetMetaData(f"Segment{index}_{key}", value)
        sitk.WriteImage(image, str(self.path), True)

    def test_overlapping_segments_come_back(self) -> None:
        self.write_segments(template=np.zeros(SHAPE, bool))
        image = sitk.ReadImage(str(self.path))
        self.assertEqual(image.GetNumberOfComponentsPerPixel(), 2)
        self.assertEqual(volume_files.grid_of(image).shape, SHAPE)
        self.assertEqual(image.GetMetaData("Segment3_Name"), "template")
        self.assertEqual(image.GetMetaData("Segment0_Extent"), "0 8 0 6 0 4")
        annotation = self.read()
        self.assertEqual(annotation.annotated, set(self.masks))
        for name, mask in self.masks.items():
            np.testing.assert_array_equal(annotation.masks[name], mask)
        self.assertEqual([s.value for s in annotation.structures], [3, 300, 7])
        self.assertEqual(annotation.structures[0], self.structures[0])
        np.testing.assert_allclose(annotation.structures[2].color, default_color(7), atol=1e-5)

    def test_every_grid(self) -> None:
        for name, self.grid in GRIDS.items():
            for masks in (self.masks, {"Liver": self.masks["Liver"]}):
                with self.subTest(name):
                    result_files.write_segments(self.path, masks, self.structures, self.grid)
                    annotation = self.read()
                    for each, mask in masks.items():
                        np.testing.assert_array_equal(annotation.masks[each], mask)

    def test_by_name_ignoring_case(self) -> None:
        self.write_segments()
        wanted = [Structure("LIVER", 1), Structure("TUMOUR\\A", 2, (0.0, 0.0, 1.0), "mine")]
        annotation = self.read([*wanted, Structure("spleen", 3)])
        self.assertEqual(annotation.annotated, {"LIVER", "TUMOUR\\A"})
        self.assertEqual(
            annotation.structures, [Structure("LIVER", 1, (1.0, 0.5, 0.25), LIVER), wanted[1]]
        )

    def test_none_that_is_wanted(self) -> None:
        self.write_segments()
        self.assert_refused("asked for .spleen.*Liver, ", self.read, [Structure("spleen", 3)])

    def test_cropped_as_slicer_does(self) -> None:
        labels = (self.masks["Liver"] * 2 + self.masks["Größe"] * 5).astype(np.uint8)
        image = make_image(labels, self.grid)[1:8, 1:5, 1:3]
        tags = f"Segmentation.Status:inprogress|TerminologyEntry:{LIVER}|"
        self.write_like_slicer(
            image,
            {"ID": "Segment_1", "Name": "liver", "Color": "1 0 0", "LabelValue": "2", "Layer": "0"},
            {"ID": "Segment_2", "Name": "other", "LabelValue": "5", "Layer": "0", "Tags": tags},
            {"ID": "Segment_3", "Name": "empty", "LabelValue": "6", "Layer": "0"},
        )
        annotation = self.read()
        self.assertEqual(
            annotation.structures,
            [Structure("liver", 2, (1.0, 0.0, 0.0)), Structure("other", 5, None, LIVER)],
        )
        np.testing.assert_array_equal(annotation.masks["liver"], self.masks["Liver"])
        np.testing.assert_array_equal(annotation.masks["other"], self.masks["Größe"])

    def test_layers_before_slicer_4_11(self) -> None:
        images = [
            make_image(self.masks[name].astype(np.uint8), self.grid)
            for name in ("Liver", "tumour\\a")
        ]
        self.write_like_slicer(
            sitk.Compose(images), {"ID": "Segment_1", "Name": "a"}, {"ID": "Segment_2"}
        )
        annotation = self.read()
        np.testing.assert_array_equal(annotation.masks["a"], self.masks["Liver"])
        np.testing.assert_array_equal(annotation.masks["Segment_2"], self.masks["tumour\\a"])
        self.assertEqual([s.value for s in annotation.structures], [1, 2])

    def test_an_empty_segmentation_on_a_grid_of_its_own(self) -> None:
        self.write_like_slicer(
            sitk.Image((1, 1, 1), sitk.sitkUInt8), {"ID": "Segment_1", "Name": "liver"}
        )
        self.assert_refused("is empty", self.read)
        self.assert_refused("is empty", self.read, [Structure("liver", 1)])

    def test_damaged_descriptions(self) -> None:
        image = make_image(self.masks["Liver"].astype(np.uint8), self.grid)
        self.write_like_slicer(image, {"ID": "Segment_1", "LabelValue": "one"})
        self.assert_refused("description of its segment 0", self.read)
        self.write_like_slicer(image, {"ID": "Segment_1", "LabelValue": "1", "Layer": "3"})
        self.assert_refused("said to be in layer 3", self.read)

    def test_two_segments_of_one_name(self) -> None:
        image = make_image(self.masks["Liver"].astype(np.uint8), self.grid)
        both = (
            {"ID": "a", "Name": "liver", "Layer": "0"},
            {"ID": "b", "Name": "Liver", "Layer": "0"},
        )
        self.write_like_slicer(image, *both)
        self.assert_refused("2 segments or masks named 'liver'", self.read)

    def test_another_grid(self) -> None:
        self.write_segments()
        self.grid = GRIDS["straight"]
        self.assert_refused("different grids", self.read)

    def test_what_the_writer_refuses(self) -> None:
        write, masks = result_files.write_segments, self.masks
        self.assert_refused("seg.nrrd", write, "x.nrrd", masks, self.structures, self.grid)
        for wrong in ({}, {"unknown": masks["Liver"]}, {"Liver": masks["Liver"][1:]}):
            with self.assertRaises(ValueError):
                write(self.path, wrong, self.structures, self.grid)
        self.assertEqual(os.listdir(self.folder), [])


class TestMaskFolders(FilesTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.grid = GRIDS["oblique"]
        self.liver = make_box(SHAPE, (1, 5), (2, 5), (1, 3))
        self.spleen = make_box(SHAPE, (3, 7), (2, 5), (2, 4))
        self.masks = self.folder / "masks"

    def read(self, *structures: Structure):
        return annotation_files.read_annotation(self.masks, self.grid, list(structures) or None)

    def test_one_file_a_structure(self) -> None:
        self.write("masks/Spleen.nrrd", self.spleen.astype(np.float32), self.grid)
        self.write("masks/liver.nii.gz", self.liver.astype(np.uint8) * 255, self.grid)
        self.write("masks/empty.mha", self.liver.astype(np.uint8) * 0, self.grid)
        (self.masks / "notes.txt").write_text("by hand")
        annotation = self.read()
        self.assertEqual(annotation.structures, [Structure("liver", 2), Structure("Spleen", 3)])
        np.testing.assert_array_equal(annotation.masks["liver"], self.liver)
        np.testing.assert_array_equal(annotation.masks["Spleen"], self.spleen)
        annotation = self.read(Structure("spleen", 9), Structure("empty", 8))
        self.assertEqual(annotation.structures, [Structure("spleen", 9)])
        self.assert_refused("asked for .kidney.*liver, Spleen", self.read, Structure("kidney", 1))

    def test_what_is_no_mask(self) -> None:
        self.write("masks/liver.nii.gz", self.liver * 1 + self.spleen * 1, self.grid)
        self.assert_refused("is no mask: it has the labels 1, 2", self.read)
        self.write("masks/liver.nii.gz", self.liver * 0.5, self.grid)
        self.assert_refused("fractional", self.read)

    def test_no_files_and_two_of_one_name(self) -> None:
        self.masks.mkdir()
        self.assert_refused("no mask files", self.read)
        self.write("masks/liver.nii.gz", self.liver.astype(np.uint8), self.grid)
        self.write("masks/Liver.nrrd", self.liver.astype(np.uint8), self.grid)
        self.assert_refused("masks named 'liver'", self.read)

    def test_all_empty(self) -> None:
        self.write("masks/liver.nii.gz", self.liver.astype(np.uint8) * 0, self.grid)
        self.assert_refused("is empty", self.read)


class TestStructures(unittest.TestCase):
    def test_a_list(self) -> None:
        self.assertEqual(
            parse_structures("4=parotid_right, 5 = left lobe"),
            [Structure("parotid_right", 4), Structure("left lobe", 5)],
        )

    def test_bad_lists(self) -> None:
        refused = {
            "no value=name": ("", "4", "=a", "4=", "a=4", "4=a,", "4=a,,5=b", "-1=a", "²=a"),
            "not within 1 to 65535": ("0=a", "65536=a"),
            "value 4 comes twice": ("4=a,4=b",),
            "name A comes twice": ("4=a,5=A",),
            "file's name": ("4=a/b", "4=a\\b", "4=a:b", "4=a=b", "4=..", "4=a\tb", "4=.hidden"),
        }
        for telling, texts in refused.items():
            for text in texts:
                with self.subTest(text), self.assertRaisesRegex(InputError, telling) as caught:
                    parse_structures(text)
                self.assertIn("4=parotid_right,5=parotid_left", str(caught.exception))

    def test_colors(self) -> None:
        colors = np.array([default_color(value) for value in range(1, 61)])
        self.assertTrue(((colors >= 0) & (colors <= 1)).all())
        apart = np.linalg.norm(colors[:20, None] - colors[None, :20], axis=-1)
        self.assertGreater(apart[~np.eye(20, dtype=bool)].min(), 0.15)
        self.assertEqual(len(np.unique(colors.round(3), axis=0)), 60)


if __name__ == "__main__":
    unittest.main()
