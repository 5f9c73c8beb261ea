"""Models as others publish them: found out, asked about, converted, added."""

from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from entry_case import EntryTestCase
from tiny_model import make_network, run, write_model

from FewShotSegLib import add_model
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.model_answers import Answers
from FewShotSegLib.models.formats.base import Found, Open, Question
from FewShotSegLib.models.formats.safe_files import (
    load_tensors,
    state_dict_of,
    without_wrappers,
)
from FewShotSegLib.models.registry import find_model


class Pebbles:
    """A format of the tests: a folder with ``pebbles.pt``, which doesn't say its orientation."""

    NAME = "a folder of pebbles"

    def __init__(self, entry: dict) -> None:
        self.entry = entry

    def recognise(self, path: Path) -> bool:
        return (path / "pebbles.pt").is_file()

    def read(self, path: Path, answers: Answers) -> Found | Open:
        facts = ("It knows kidney_left and liver.",)
        if answers.orientation is None:
            text = "The files don't say where the axes of its images grow."
            return Open((Question("orientation", text, "RAS"),), facts)
        state = state_dict_of(load_tensors(path / "pebbles.pt"), path, "weights")
        return Found(self.entry, without_wrappers(state, path), facts)


class FormatCase(EntryTestCase):
    """With the format of the tests alone, and a folder of it."""

    def setUp(self) -> None:
        super().setUp()
        entry = {k: v for k, v in self.entry().items() if k not in ("weights", "sha256", "size")}
        patch = mock.patch("FewShotSegLib.models.formats.adding.FORMATS", [Pebbles(entry)])
        patch.start()
        self.addCleanup(patch.stop)
        self.theirs = self.folder / "their model"
        self.write(make_network(3).state_dict())

    def write(self, state: object, **more: object) -> None:
        self.theirs.mkdir(exist_ok=True)
        torch.save({"weights": state, **more}, self.theirs / "pebbles.pt")


class AddingTest(FormatCase):
    """What the command and the function do, whatever the format."""

    def test_what_is_missing_is_asked_for_by_its_flag(self) -> None:
        ran = run("models", "add", str(self.theirs))
        self.assertEqual(ran.status, 2)
        self.assertIn("This is a folder of pebbles.\nIt knows kidney_left and liver.", ran.out)
        self.assertRegex(ran.err, "where the axes.*Say it with --orientation, such as")
        self.assertEqual(self.left(), set())

    def test_a_model_is_added_and_loads(self) -> None:
        before = sorted(self.theirs.iterdir())
        ran = run("models", "add", str(self.theirs), "--orientation", "RAS", "--name", "ours")
        self.assertEqual(ran.status, 0, ran.err)
        self.assertIn("--model ours", ran.out)
        self.assertEqual(self.left(), {"ours.json", "ours.safetensors"})
        self.assertEqual(sorted(self.theirs.iterdir()), before)
        torch.testing.assert_close(
            dict(find_model("ours").backbone.state_dict()), dict(make_network(3).state_dict())
        )

    def test_events_tell_a_program(self) -> None:
        ran = run("models", "add", str(self.theirs), "--orientation", "RAS", "--events")
        result = next(e for e in ran.events if e["event"] == "result")
        self.assertEqual((result["kind"], result["id"]), ("model", "tiny"))
        self.assertEqual(Path(result["path"]), self.models / "tiny.json")
        self.assertEqual(result["found"][0], "This is a folder of pebbles.")

    def test_an_id_is_taken_once(self) -> None:
        self.assertEqual(add_model(self.theirs, orientation="RAS").id, "tiny")
        self.assert_refused(
            "tiny' already.*--name", lambda: add_model(self.theirs, orientation="R")
        )
        self.assertEqual(add_model(self.theirs, orientation="RAS", name="other").id, "other")

    def test_half_precision_prefixes_and_numpy_numbers_are_read(self) -> None:
        state = {f"_orig_mod.module.{k}": v for k, v in make_network(3).half().state_dict().items()}
        self.write(state, loss=np.float64(0.25), epoch=np.int64(7), best=np.float32(1))
        add_model(self.theirs, orientation="RAS")
        self.assertEqual(next(find_model("tiny").backbone.parameters()).dtype, torch.float32)

    def test_weights_of_another_network_add_nothing(self) -> None:
        self.write({"one.weight": torch.zeros(3)})
        self.assert_refused(
            "not of the architecture", lambda: add_model(self.theirs, orientation="RAS")
        )
        self.assertEqual(self.left(), set())

    def test_an_entry_of_our_own_is_copied(self) -> None:
        path = write_model(self.folder / "entry", "own")
        self.assertEqual(run("models", "add", str(path)).status, 0)
        self.assertIsNotNone(find_model("own").backbone)
        self.assertEqual(run("models", "add", str(path), "--name", "x").status, 2)

    def test_what_is_no_model_is_refused(self) -> None:
        for path, telling in (
            (self.folder / "nowhere", "There is no file or folder"),
            (self.folder, "of no format that is known"),
        ):
            ran = run("models", "add", str(path))
            self.assertEqual(ran.status, 2)
            self.assertIn(telling, ran.err)
        self.assertEqual(run("models", "add").status, 2)
        for flags in (["tiny", str(self.folder)], ["--name", "x"]):
            ran = run("models", *flags)
            self.assertEqual(ran.status, 2)
            self.assertIn("goes with 'models add PATH' alone", ran.err)

    def test_answers_are_texts(self) -> None:
        for value in ("", " ", 7, "x" * 2001):
            with self.assertRaisesRegex(InputError, "--name is a text"):
                add_model(self.theirs, name=value)
        with self.assertRaisesRegex(InputError, "What can be said of a model is name"):
            add_model(self.theirs, colour="red")


class Trap:
    """Runs code where a pickle with it is opened."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path("opened"),)


class SafetyTest(FormatCase):
    """Files that mean harm, or are damaged: one sentence, nothing run."""

    def test_pickled_objects_are_named_and_not_run(self) -> None:
        self.write(make_network(3).state_dict(), trainer=Trap())
        self.assert_refused(
            r"a Python object \(\S+\) beside its tensors",
            lambda: add_model(self.theirs, orientation="RAS"),
        )
        self.assertFalse(Path("opened").exists())

    def test_damaged_files_and_odd_tensors_are_refused(self) -> None:
        state = make_network(3).state_dict()
        name = next(iter(state))
        odd = {
            "is no tensor": {**state, "more": [1, 2]},
            "twice": {**state, f"module.{name}": state[name]},
            "sparse": {**state, "more": torch.eye(3).to_sparse()},
            "no tensors by name": {},
        }
        for telling, what in odd.items():
            with self.subTest(telling):
                self.write(what)
                self.assert_refused(telling, lambda: add_model(self.theirs, orientation="RAS"))
        file = self.theirs / "pebbles.pt"
        for data in (b"", b"no weights", file.read_bytes()[:200]):
            file.write_bytes(data)
            self.assert_refused(
                "is not used: it is", lambda: add_model(self.theirs, orientation="R")
            )
        self.assertEqual(self.left(), set())
        self.assertEqual(json.loads(run("models", "--json").out)[0]["id"], "embedded")
