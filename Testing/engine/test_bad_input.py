"""Everything that can be wrong: one clear sentence, exit status 2, and nothing is overwritten."""

from __future__ import annotations

import json
import unittest
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import safetensors.torch
import SimpleITK as sitk
from bad_input_case import BadInputTestCase
from tiny_model import (
    DIRECTIONS,
    SHAPE,
    Patient,
    make_grid,
    make_labels,
    make_values,
    run,
    write_array,
    write_model,
    write_patient,
)

from FewShotSegLib.core.adapter_header import KEY
from FewShotSegLib.core.checksums import write_sealed
from FewShotSegLib.io.volumes import read_image


class BadImages(BadInputTestCase):
    """As a support's image and as a query."""

    def bad_images(self) -> Mapping[str, Path]:
        """What a message has to say, and the file that it is about."""
        self.bad.mkdir()
        values, grid = make_values(0, make_labels(0, make_grid())), make_grid()
        flat = replace(grid, shape=(*SHAPE[:2], 1))
        numbers = values.astype(np.float32)
        numbers[3, 4, 5] = np.nan
        series = sitk.GetImageFromArray(np.zeros((2, 3, 4, 5), np.int16), isVector=False)
        colours = sitk.GetImageFromArray(np.zeros((3, 4, 5, 3), np.uint8), isVector=True)
        images = {
            "does not exist": self.bad / "missing.nii.gz",
            "is 4-dimensional": self.bad / "series.nii.gz",
            "has 3 values a voxel": self.bad / "colours.nrrd",
            "1 voxels that are not numbers": write_array(self.bad / "nan.nii.gz", numbers, grid),
            "1 voxels that are not numbers .*": write_array(self.bad / "nan.nrrd", numbers, grid),
            "is a single slice": write_array(self.bad / "slice.nii.gz", values[..., :1], flat),
            "damaged or cut short": write_array(self.bad / "cut.nii.gz", values, grid),
            "can't be read": self.bad / "garbage.mha",
            "is empty": self.bad / "empty.nrrd",
            "unknown kind": self.bad / "image.png",
            "has no DICOM images": self.bad / "folder",
            "segmentation, not an image": self.bad / "a.seg.nrrd",
        }
        sitk.WriteImage(series, str(images["is 4-dimensional"]))
        sitk.WriteImage(colours, str(images["has 3 values a voxel"]))
        cut = images["damaged or cut short"]
        cut.write_bytes(cut.read_bytes()[:-200])
        images["can't be read"].write_bytes(b"garbage " * 99)
        images["is empty"].touch()
        images["unknown kind"].touch()
        images["has no DICOM images"].mkdir()
        segments = sitk.GetImageFromArray(np.ones((3, 4, 5), np.uint8))
        segments.SetMetaData("Segment0_ID", "a")
        sitk.WriteImage(segments, str(images["segmentation, not an image"]))
        return images

    def test_as_a_support(self) -> None:
        for telling, path in self.bad_images().items():
            with self.subTest(path.name):
                ran = self.adapt(telling, supports=(Patient(path, self.supports[0].segmentation),))
                self.assertIn(str(path), ran.err)

    def test_as_a_query(self) -> None:
        for telling, path in self.bad_images().items():
            with self.subTest(path.name):
                ran = self.segment(telling, path)
                self.assertIn(str(path), ran.err)

    def test_as_the_query_of_a_joint_training(self) -> None:
        self.adapt("does not exist", "--query", str(self.bad / "missing.nrrd"))

    def test_an_image_without_contrast_on_mr(self) -> None:
        path = write_array(self.bad / "flat.nrrd", np.full(SHAPE, 7, np.int16), make_grid())
        support = Patient(path, self.supports[0].segmentation)
        self.adapt("same value almost everywhere", supports=(support,))


class BadSegmentations(BadInputTestCase):
    """A support's annotation, and the two of ``evaluate``."""

    def bad_segmentations(self) -> Mapping[str, Path]:
        grid = read_image(self.supports[0].image).grid
        labels = make_labels(0, grid)
        shifted = replace(grid, origin=(grid.origin[0] + 1, *grid.origin[1:]))
        coarse = replace(grid, spacing=tuple(2 * s for s in grid.spacing))
        turned = replace(grid, direction=tuple(np.ravel(DIRECTIONS["left-handed"]).tolist()))
        smaller = replace(grid, shape=(12, 9, 6))
        bad = self.bad
        images = {
            "does not exist": bad / "missing.nii.gz",
            "have different grids": write_array(bad / "shifted.nii.gz", labels, shifted),
            "have different grids: the image has 24 x 19 x 12": write_array(
                bad / "coarse.nii.gz", labels, coarse
            ),
            "have different grids.*resample": write_array(bad / "turned.nii.gz", labels, turned),
            "different grids.*12 x 9 x 6": write_array(
                bad / "smaller.nii.gz", labels[6:18, 5:14, 3:9], replace(smaller, spacing=(9, 9, 9))
            ),
            "is empty: nothing is annotated": write_array(bad / "none.nrrd", labels * 0, grid),
            "fractional values": write_array(bad / "half.nrrd", labels / np.float32(8), grid),
            "label values outside": write_array(bad / "ct.nrrd", labels - np.int16(1), grid),
            "damaged or cut short": write_array(bad / "cut.nii.gz", labels, grid),
            "has no mask files": bad / "folder",
        }
        images["has no mask files"].mkdir()
        cut = images["damaged or cut short"]
        cut.write_bytes(cut.read_bytes()[:-20])
        return images

    def test_of_a_support(self) -> None:
        for telling, path in self.bad_segmentations().items():
            with self.subTest(path.name):
                bad = Patient(self.supports[0].image, path)
                ran = self.adapt(telling, supports=(self.supports[1], bad))
                self.assertIn(str(path), ran.err)

    def test_of_evaluate(self) -> None:
        paths = self.bad_segmentations()
        good, scores = str(self.supports[0].segmentation), str(self.outputs / "scores.json")
        for telling, path in paths.items():
            if path.is_dir():
                continue
            telling = telling.split(":")[0]
            with self.subTest(path.name):
                usual = ("--reference", str(path), "--prediction", good, "--json", scores)
                self.assert_refused(telling, "evaluate", *usual)
                if "empty" not in telling:
                    usual = ("--reference", good, "--prediction", str(path), "--json", scores)
                    self.assert_refused(telling, "evaluate", *usual)

    def test_a_structure_that_no_support_has(self) -> None:
        for structures in ("4=bean,9=nut", "9=nut"):
            ran = self.adapt("nut", "--structures", structures)
            self.assertRegex(ran.err, "is not annotated in any support|annotates none of the")
            self.assertRegex(ran.err, "bean|label 4, label 5")

    def test_several_structures_of_one_value(self) -> None:
        self.adapt("value 4 comes twice", "--structures", "4=bean,4=pea")


class BadFlags(BadInputTestCase):
    """What was written wrong on the command line."""

    def test_structures(self) -> None:
        for text in ("4", "bean", "4:bean", "4=bean,", "0=bean", "4=a/b", ""):
            with self.subTest(text):
                self.adapt("Structures .*write it like 4=parotid_right", "--structures", text)

    def test_priors(self) -> None:
        for text in ("bean", "=5", "bean=", "bean=much"):
            with self.subTest(text):
                self.adapt("--prior .*write NAME=ML", "--prior", text)
                self.segment("--prior .*write NAME=ML", None, "--prior", text)
        for text in ("bean=0", "bean=-3", "bean=nan", "bean=inf"):
            with self.subTest(text):
                self.segment("must be above 0 ml", None, "--prior", text)
        self.segment("no structure 'nut' to set a prior for", None, "--prior", "nut=3")
        self.adapt("no structure 'nut' to set a prior for", "--prior", "nut=3")

    def test_a_device_that_is_not_here(self) -> None:
        for device in ("cuda:99", "abacus"):
            self.adapt(f"no device '{device}'", "--device", device)
            self.segment(f"no device '{device}'", None, "--device", device)

    def test_an_adapters_name(self) -> None:
        for name in ("old.pt", "old", "old.fseft.txt"):
            (self.outputs / name).write_bytes(b"old")
            arguments = self.adapt_arguments(self.outputs / name)
            self.assert_refused("name end with .fseft", *arguments)

    def test_a_results_name(self) -> None:
        for name in ("x.png", "x.mhd", "x.nii.zip"):
            self.assert_refused(
                r"let a file's name end with \.nii\.gz",
                *self.segment_arguments(self.adapter, self.outputs / name, str(self.query.image)),
            )

    def test_several_queries_for_one_file(self) -> None:
        queries = (str(self.query.image), str(self.supports[0].image))
        out = self.outputs / "old.nii.gz"
        self.assert_refused(
            "one file for 2 queries", *self.segment_arguments(self.adapter, out, *queries)
        )

    def test_two_queries_of_one_name(self) -> None:
        other = write_patient(self.bad, "query", 3)
        queries = (str(self.query.image), str(other.image))
        self.assert_refused(
            "would both be written to",
            *self.segment_arguments(self.adapter, self.outputs, *queries),
        )

    def test_the_query_as_output(self) -> None:
        image = write_patient(self.outputs, "q", 3).image
        self.assert_refused(
            "is one of the inputs", *self.segment_arguments(self.adapter, image, str(image))
        )

    def test_no_command_and_no_such_command(self) -> None:
        for arguments in ((), ("train",), ("adapt",), ("segment", "--adapter", "a.fseft")):
            ran = run(*arguments)
            self.assertEqual((ran.status, ran.out), (2, ""))
            self.assertIn("usage: fewshotseg", ran.err)


class BadModels(BadInputTestCase):
    """Foundation models and adapters that don't fit or aren't there."""

    def test_a_model_that_nobody_knows(self) -> None:
        telling = "no model 'nobody'. Known models: embedded"
        self.adapt(telling, "--model", "nobody")
        self.segment(telling, None, "--model", "nobody")
        self.adapt("no model entry at", "--model", str(self.bad / "x.json"))

    def test_an_adapter_of_another_backbone(self) -> None:
        other = write_model(self.bad, "other", seed=5)
        ran = self.segment("was trained on 'tiny'.*'other' here", None, "--model", str(other))
        self.assertIn("Use the same model, or train the adapter again", ran.err)

    def test_weights_that_are_damaged_or_not_there(self) -> None:
        path = write_model(self.bad, "mine", sha256="0" * 64)
        self.adapt("are damaged or another version", "--model", str(path))
        (self.bad / "mine.safetensors").unlink()
        self.adapt("Get mine.safetensors from https://example.org", "--model", str(path))

    def test_files_that_are_no_adapters(self) -> None:
        self.bad.mkdir()
        out, query = self.outputs / "old.nii.gz", str(self.query.image)
        whole = self.adapter.read_bytes()
        for name, data, telling in (
            ("missing", None, "no adapter file at"),
            ("garbage", b"garbage " * 20, "not a FewShotSeg adapter"),
            ("weights", (self.model.parent / "tiny.safetensors").read_bytes(), "not a FewShotSeg"),
            ("cut", whole[:-10], "not a FewShotSeg adapter, or is damaged"),
            ("newer", self.newer(whole), "newer FewShotSeg"),
            ("flipped", whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:], "or is damaged"),
        ):
            path = self.bad / f"{name}.fseft"
            if data is not None:
                path.write_bytes(data)
            with self.subTest(name):
                self.assert_refused(telling, *self.segment_arguments(path, out, query))
                self.assert_refused(telling, "inspect", str(path))

    def newer(self, whole: bytes) -> bytes:
        """The file as a later version of the program might have written it."""
        path = self.bad / "written.fseft"
        with safetensors.safe_open(self.adapter, "pt") as file:
            header = json.loads(file.metadata()[KEY])
        tensors = safetensors.torch.save(safetensors.torch.load(whole))
        write_sealed(path, tensors, {KEY: json.dumps({**header, "format": 99})})
        return path.read_bytes()

    def test_a_damaged_entry_in_the_users_folder(self) -> None:
        path = self.world / "home" / "models" / "broken.json"
        path.parent.mkdir(parents=True)
        path.write_text("{")
        self.addCleanup(path.parent.rmdir)
        self.addCleanup(path.unlink)
        ran = run("models")
        self.assertEqual((ran.status, ran.err), (0, ""))
        usable, _, unusable = ran.out.partition("Can't be used")
        self.assertIn("embedded", usable)
        self.assertRegex(unusable, "broken.json is not JSON")


if __name__ == "__main__":
    unittest.main()
