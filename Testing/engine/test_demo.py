"""The demo: its files, its table, and numbers that are those of the written file."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import SimpleITK as sitk
from safetensors.torch import save_file
from tiny import FILTERS, OneThread, make_backbone
from tiny_model import run

from FewShotSegLib.cli.demo import _make_patients, _notes, run_demo
from FewShotSegLib.core.annotation import parse_structures
from FewShotSegLib.core.errors import InputError, ModelError
from FewShotSegLib.core.options import AdaptOptions
from FewShotSegLib.core.settings import TrainingSettings
from FewShotSegLib.evaluation.metrics import evaluate
from FewShotSegLib.io.annotations import read_annotation
from FewShotSegLib.io.volumes import read_image
from FewShotSegLib.phantoms.patients import make_phantom
from FewShotSegLib.pipeline import Runtime, adapt

QUICK = TrainingSettings(epochs=2, steps_per_epoch=1, crops=1, crop_size=16)
STRUCTURES = "1=gland_right,2=gland_left,3=pouch"
FILES = {"adapter.fseft", "overlay.png", "report.json"}


def write_model(folder: Path) -> str:
    """A registry entry of a tiny network with random weights; the path of its JSON."""
    weights = {name: tensor.clone() for name, tensor in make_backbone().state_dict().items()}
    save_file(weights, folder / "tiny.safetensors")
    window = {"intensity": "window", "low": -200, "high": 300}
    entry = {
        "id": "tiny",
        "title": "Tiny network",
        "modality": ["CT"],
        "architecture": {"name": "DynamicUNet", "filters": list(FILTERS), "out_channels": 2},
        "preprocessing": {"CT": {"orientation": "RAS", "spacing": [6.0, 6.0, 6.0], **window}},
        "classes": {},
        "activation": "sigmoid",
        "weights": "tiny.safetensors",
        "window": [32, 32, 32],
        "overlap": 0.25,
        "licence": "",
        "citation": "",
        "source_url": "",
        "sha256": None,
        "size": None,
    }
    path = folder / "tiny.json"
    path.write_text(json.dumps(entry), encoding="utf-8")
    return str(path)


def write_image(path: Path, array: np.ndarray, spacing: tuple[float, float, float]) -> None:
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path))


class DemoTestCase(OneThread):
    """A tiny model and a folder for what the demo writes."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        holder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(holder.cleanup)
        cls.shared = Path(holder.name)
        cls.model = write_model(cls.shared)
        cls.runtime = Runtime(device="cpu", cache=cls.shared / "cache")

    def setUp(self) -> None:
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.out = Path(holder.name) / "out"
        self.said: list[str] = []

    def run_demo(self, data: Path | None, **options) -> dict:
        supports = options.pop("supports", 1)
        options = AdaptOptions(**{"model": self.model, "settings": QUICK} | options)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            summary = run_demo(
                self.out, data, supports, options, runtime=self.runtime, say=self.said.append
            )
        self.assertEqual(printed.getvalue(), "")
        json.dumps(summary, allow_nan=False)
        return summary

    def assert_scores_are_of_the_file(self, summary: dict, reference: Path) -> None:
        structures = parse_structures(STRUCTURES)
        written = Path(summary["paths"]["segmentation"])
        grid = read_image(reference.with_name(reference.name.replace("_seg", "_ct"))).grid
        truth = read_annotation(reference, grid, structures).masks
        found = {s.name: np.zeros(grid.shape, bool) for s in structures}
        found |= read_annotation(written, grid, structures, may_be_empty=True).masks
        scores = evaluate(truth, found, grid)
        for name, row in summary["structures"].items():
            for key, value in (("dice", scores[name].dice), ("ml", scores[name].volume_ml)):
                self.assertAlmostEqual(row["transduction"][key], value, places=4)
            self.assertAlmostEqual(row["reference_ml"], scores[name].reference_ml, places=4)
        mean = np.mean([score.dice for score in scores.values()])
        self.assertAlmostEqual(summary["mean_dice"]["transduction"], mean, places=4)


class MadeUpPatientsTests(DemoTestCase):
    """Without data."""

    def test_everything_and_again(self) -> None:
        summary = self.run_demo(None)
        phantoms = self.out / "phantoms"
        self.assertEqual(
            {path.name for path in self.out.iterdir()},
            FILES | {"phantoms", "phantom_02_seg.nii.gz"},
        )
        self.assertEqual((summary["supports"], summary["query"]), (["phantom_01"], "phantom_02"))
        self.assert_scores_are_of_the_file(summary, phantoms / "phantom_02_seg.nii.gz")
        text = "\n".join(self.said)
        self.assertTrue(text.isascii())
        lines = [line for line in text.splitlines() if str(self.out) not in line]
        self.assertLessEqual(max(map(len, lines)), 100)
        mean = next(line for line in text.splitlines() if line.startswith("mean"))
        self.assertEqual(mean.split()[-1], f"{summary['mean_dice']['transduction']:.3f}")
        for name, row in summary["structures"].items():
            line = next(line for line in text.splitlines() if line.startswith(name))
            self.assertIn(f"{row['reference_ml']:.2f}", line)
            low, high = row["expected_ml"]
            self.assertIn(f"{low:.1f} to {high:.1f}" if low else f"up to {high:.1f}", line)
        for path in summary["paths"].values():
            self.assertIn(path, text)
            self.assertTrue(Path(path).is_file())
        self.assertIn("phantoms", summary["seconds"])

        made = (phantoms / "phantom_01_ct.nii.gz").stat().st_mtime_ns
        again = self.run_demo(None)
        self.assertEqual((phantoms / "phantom_01_ct.nii.gz").stat().st_mtime_ns, made)
        self.assertEqual(again["structures"], summary["structures"])
        _make_patients(phantoms, 2, 1, self.said.append)
        self.assertNotEqual((phantoms / "phantom_01_ct.nii.gz").stat().st_mtime_ns, made)

    def test_a_model_that_is_not_there(self) -> None:
        with self.assertRaises(ModelError):
            self.run_demo(None, model="no such model")
        self.assertFalse(self.out.exists())


class FolderTests(DemoTestCase):
    """With a user's own volumes."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.data = cls.shared / "data"
        cls.data.mkdir()
        for number in (1, 2, 10):
            volume, annotation = make_phantom(number, (6.0, 6.0, 6.0))
            labels = sum(s.value * annotation.masks[s.name] for s in annotation.structures)
            for kind, array in (("ct", volume.array), ("seg", labels.astype(np.uint8))):
                path = cls.data / f"case_{number}_{kind}.nii.gz"
                write_image(path, array, volume.grid.spacing)

    def test_the_first_ones_are_the_supports(self) -> None:
        before = {path: path.read_bytes() for path in self.data.iterdir()}
        summary = self.run_demo(self.data, structures=STRUCTURES, supports=2)
        self.assertEqual(summary["supports"], ["case_1", "case_2"])
        self.assertEqual(summary["query"], "case_10")
        self.assertEqual({path.name for path in self.out.iterdir()}, FILES | {"case_10_seg.nii.gz"})
        self.assert_scores_are_of_the_file(summary, self.data / "case_10_seg.nii.gz")
        self.assertEqual({path: path.read_bytes() for path in self.data.iterdir()}, before)

    def test_names_from_the_folder_and_a_query_without_a_structure(self) -> None:
        data = self.out.parent / "data"
        shutil.copytree(self.data, data)
        names = {"0": "background", "2": "gland_left", "3": "pouch"}
        (data / "labels.json").write_text(json.dumps(names), encoding="utf-8")
        path = data / "case_2_seg.nii.gz"
        image = sitk.ReadImage(str(path))
        sitk.WriteImage(image * sitk.Cast(image == 2, image.GetPixelID()), str(path))
        summary = self.run_demo(data)
        self.assertEqual(list(summary["structures"]), ["gland_left", "pouch"])
        pouch = summary["structures"]["pouch"]
        self.assertIsNone(pouch["reference_ml"])
        self.assertIsNone(pouch["transduction"]["dice"])
        left = summary["structures"]["gland_left"]["adapter"]["dice"]
        self.assertEqual(summary["mean_dice"]["adapter"], left)
        self.assertIn("not annotated", "\n".join(self.said))

    def test_structures_share_a_note(self) -> None:
        rows = {
            name: {"reference_ml": ml, "expected_ml": [10.0, 20.0]}
            for name, ml in (("a", 25.0), ("b", 15.0), ("c", 5.0), ("d", None))
        }
        result = mock.Mock(masks={"a": np.ones(2)}, unrefined={"a": np.zeros(2)})
        notes = _notes(result, {"structures": rows})
        self.assertEqual(len(notes), 2, notes)
        self.assertTrue(notes[0].endswith("aims for: a (25.0 ml), c (5.0 ml)."), notes)

    def test_a_note_is_printed_once(self) -> None:
        """And with ``--events`` it is an event."""
        data = self.out.parent / "data"
        shutil.copytree(self.data, data)
        for kind in ("ct", "seg"):  # the query is one of the supports, which is worth a note
            shutil.copy(data / f"case_1_{kind}.nii.gz", data / f"case_2_{kind}.nii.gz")

        def quickly(*supports, **options):
            return adapt(*supports, **{**options, "settings": QUICK})

        command = ("demo", "--data", str(data), "--out", str(self.out), "--supports", "1")
        places = ("--model", self.model, "--cache", str(self.shared / "cache"), "--device", "cpu")
        with mock.patch("FewShotSegLib.cli.demo.adapt", quickly):
            ran = run(*command, *places)
            reported = run(*command, *places, "--events")
        self.assertEqual((ran.status, reported.status), (0, 0), ran.err + reported.err)
        text = " ".join(f"{ran.err} {ran.out}".split())
        self.assertEqual(text.count("is one of the adapter's supports"), 1, text)
        warnings = [e["message"] for e in reported.events if e["event"] == "warning"]
        self.assertTrue(any("is one of the adapter's supports" in note for note in warnings))
        for note in warnings:
            self.assertEqual(text.count(note), 1)

    def test_too_few(self) -> None:
        with self.assertRaisesRegex(InputError, "3 annotated.*3 support.*are 4"):
            self.run_demo(self.data, supports=3)
        with self.assertRaisesRegex(InputError, "number of supports must be"):
            self.run_demo(self.data, supports=0)
        self.assertFalse(self.out.exists())

    def test_never_over_the_annotation(self) -> None:
        self.out = self.data
        with self.assertRaisesRegex(InputError, "another output folder"):
            self.run_demo(self.data)
        self.assertFalse((self.data / "adapter.fseft").exists())
