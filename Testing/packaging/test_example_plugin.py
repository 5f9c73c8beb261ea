"""A method and a backbone in a package of their own: found and used without a change here."""

from __future__ import annotations

import json
import tempfile
import unittest
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
from plugins import EXAMPLE, environment, install_example, run_command
from tiny_model import STRUCTURES, Patient, write_patient

from FewShotSegLib.io.volumes import read_image


class ExampleTest(unittest.TestCase):
    """The package of ``Testing/support/example_plugin``, installed by pip into a folder."""

    @classmethod
    def setUpClass(cls) -> None:
        holder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(holder.cleanup)
        cls.folder = Path(holder.name)
        home = str(cls.folder / "home")
        cls.without = environment(FEWSHOTSEG_HOME=home)
        cls.env = environment(install_example(cls.folder / "package"), FEWSHOTSEG_HOME=home)
        cls.patients = [write_patient(cls.folder / "data", f"p{n}", n) for n in range(3)]
        for number, patient in enumerate(cls.patients):
            beside = cls.folder / "data" / f"p{number}_seg.nii.gz"
            patient.segmentation.rename(beside)
            cls.patients[number] = Patient(patient.image, beside)

    def run_with(self, *arguments: str) -> CompletedProcess[str]:
        """The command with the package; it ends well."""
        done = run_command(self.env, *arguments, cwd=self.folder)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def adapt(self, out: str, *more: str) -> list[str]:
        supports = [
            text
            for patient in self.patients[:2]
            for text in ("--support", str(patient.image), str(patient.segmentation))
        ]
        return [
            *("adapt", *supports, "--structures", STRUCTURES, "--device", "cpu", "--out", out),
            *("--epochs", "30", "--model", "example-pyramid", *more),
        ]

    def test_the_lists(self) -> None:
        models = self.run_with("models").stdout
        (line,) = (line for line in models.splitlines() if line.startswith("example-pyramid"))
        self.assertIn("BoxPyramid", line)
        self.assertIn("here, ", line)
        self.assertIn("embedded", models)
        self.assertIn("local-mean", self.run_with("adapt", "--help").stdout)
        for name, arguments in (("example-pyramid", ["models"]), ("local-mean", ["adapt", "-h"])):
            self.assertNotIn(name, run_command(self.without, *arguments).stdout)

    def test_train_segment_and_look(self) -> None:
        self.run_with(*self.adapt("a.fseft", "--method", "local-mean", "--learning-rate", "0.05"))
        query, out = self.patients[2].image, self.folder / "out.nii.gz"
        segment = ["segment", "--adapter", "a.fseft", "--device", "cpu", "--out", str(out)]
        self.run_with(*segment, str(query))
        result = read_image(out)
        self.assertTrue(result.grid.same_as(read_image(query).grid))
        found = {value: int(np.sum(result.array == value)) for value in (4, 5)}
        self.assertGreater(min(found.values()), 20, found)
        reported = json.loads(self.run_with("inspect", "a.fseft", "--json").stdout)
        self.assertEqual(
            (reported["method"], reported["model"]["id"]), ("local-mean", "example-pyramid")
        )
        network = reported["model"]["network"]
        self.assertEqual(
            network, {"name": "BoxPyramid", "revision": 1, "width": 4, "levels": 3, "rows": 1}
        )

        with self.subTest("without the package"):
            done = run_command(self.without, *segment, str(query), cwd=self.folder)
            self.assertEqual(done.returncode, 2)
            self.assertIn("with the method 'local-mean', which is not known here", done.stderr)
            self.assertNotIn("Traceback", done.stderr)

    def test_what_it_can_not_do_is_said(self) -> None:
        for more, words in (
            (("--method", "ft"), "The network BoxPyramid can't be trained itself. Choose a method"),
            (("--method", "local-mean", "--preset", "published"), "no published settings of the"),
            (("--method", "local-mean", "--decoder", "new"), "leaves the whole backbone frozen"),
        ):
            with self.subTest(more):
                done = run_command(self.env, *self.adapt("no.fseft", *more), cwd=self.folder)
                self.assertEqual(done.returncode, 2, done.stderr)
                self.assertIn(words, done.stderr)
                self.assertNotIn("Traceback", done.stderr)
                self.assertFalse((self.folder / "no.fseft").exists())

    def test_arguments_of_its_network_are_checked(self) -> None:
        folder = EXAMPLE / "fewshotseg_example" / "models"
        entry = json.loads((folder / "example-pyramid.json").read_text(encoding="utf-8"))
        for wrong, words in (
            ({"levels": 9}, "'levels' of 'architecture' (BoxPyramid) is a number of levels from 1"),
            ({"depth": 3}, "(BoxPyramid) has the unknown field 'depth'"),
        ):
            path = self.folder / "wrong.json"
            path.write_text(json.dumps({**entry, "architecture": {"name": "BoxPyramid", **wrong}}))
            done = run_command(self.env, "models", str(path))
            with self.subTest(wrong):
                self.assertEqual(done.returncode, 2)
                self.assertIn(words, " ".join(done.stderr.split()))

    def test_its_model_stays(self) -> None:
        done = run_command(self.env, "remove", "example-pyramid")
        self.assertEqual(done.returncode, 2)
        self.assertIn("ships with a package that extends it and stays", done.stderr)

    def test_a_cell_of_a_benchmark(self) -> None:
        task = {
            **{"name": "peas", "data": "data", "structures": STRUCTURES},
            "draws": [{"seed": 0, "supports": ["p0", "p1"], "queries": ["p2"]}],
        }
        plan = {
            **{"title": "One cell", "model": "example-pyramid", "shots": [2], "tasks": [task]},
            "methods": [{"name": "Mean", "method": "local-mean", "epochs": 2}],
        }
        (self.folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
        self.run_with("benchmark", "plan.json", "--device", "cpu")
        (row,) = (
            json.loads(line)
            for line in (self.folder / "plan" / "results.jsonl").read_text().splitlines()
        )
        self.assertEqual((row["query"], row["shots"]), ("p2", 2))
        self.assertIn("Mean", (self.folder / "plan" / "table.md").read_text(encoding="utf-8"))

    def test_it_is_small_and_its_page_names_every_file(self) -> None:
        page = (EXAMPLE / "README.md").read_text(encoding="utf-8")
        files = [p for p in EXAMPLE.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
        self.assertLess(sum(path.stat().st_size for path in files), 20_000)
        for path in files:
            name = path.relative_to(EXAMPLE).as_posix()
            if path.parent.name == "models":
                name = "fewshotseg_example/models/"
            if path.name not in ("README.md", "__init__.py"):
                self.assertIn(f"`{name}`", page)


if __name__ == "__main__":
    unittest.main()
