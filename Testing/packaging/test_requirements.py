"""One list of packages: what is in it, what is missing, and what is too old and said to be."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import re
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import torch

from FewShotSegLib.cli import command_line as cli
from FewShotSegLib.core import requirements
from FewShotSegLib.core.errors import ModelError
from FewShotSegLib.core.requirements import Requirement, outdated, read_requirements, release
from FewShotSegLib.models import weights

ROOT = Path(__file__).resolve().parents[2]
VERSION = importlib.metadata.version


def installed(**versions: str) -> contextlib.AbstractContextManager:
    """These versions are installed, of all others the real ones."""
    return mock.patch.object(
        importlib.metadata, "version", lambda name: versions.get(name) or VERSION(name)
    )


class ListTest(unittest.TestCase):
    """``FewShotSegLib/requirements.txt``."""

    def test_everybody_reads_this_one(self) -> None:
        text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        self.assertIn('dependencies = { file = ["FewShotSegLib/requirements.txt"] }', text)
        self.assertIn('dynamic = ["dependencies"]', text)
        for path in (*ROOT.glob("FewShotSeg/**/*.py"), *ROOT.glob(".github/**/*.py")):
            own = re.findall(r'"[A-Za-z]\w+>=\d', path.read_text(encoding="utf-8"))
            self.assertEqual(own, [], f"{path.name} has a list of its own")

    def test_what_it_says(self) -> None:
        found = {need.name: need.minimum for need in read_requirements()}
        self.assertEqual(found["torch"], "2.10")
        self.assertIn("einops", found, "MONAI takes it for its Swin UNETR and does not require it")
        self.assertEqual(requirements.missing_packages(), [], "names are those of the imports")
        self.assertEqual(requirements.outdated_packages(), [])

    def test_a_line_that_is_none_is_reported(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "requirements.txt"
            path.write_text("# words\n\ntorch>=2.10\nmonai\n", encoding="utf-8")
            with mock.patch.object(requirements, "FILE", path):
                with self.assertRaisesRegex(ValueError, "'monai' is not NAME>=VERSION"):
                    read_requirements()

    def test_what_is_missing(self) -> None:
        real = requirements.find_spec
        with mock.patch.object(
            requirements, "find_spec", lambda name: None if name == "einops" else real(name)
        ):
            self.assertEqual(requirements.missing_packages(), ["einops>=0.7"])


class OutdatedTest(unittest.TestCase):
    """A version that is too old is reported, and stays."""

    def test_versions(self) -> None:
        for version, numbers in (
            *(("2.13.0+cpu", (2, 13)), ("2.10", (2, 10)), ("2.9.1", (2, 9, 1))),
            *(("2.10.0a0+git1234", (2, 10)), ("2.4.0rc1", (2, 4)), ("v1.2", (1, 2))),
            *(("1!3.0", (3,)), ("", ()), ("unknown", ())),
        ):
            with self.subTest(version):
                self.assertEqual(release(version), numbers)

    def test_which_are_too_old(self) -> None:
        need = Requirement("torch", "2.10")
        for version, old in (
            *(("2.4.1", True), ("2.5.1+cu124", True), ("2.9.1", True), ("2", True), ("1.13", True)),
            *(("2.10.0", False), ("2.10", False), ("2.13.0+cpu", False), ("3.0", False)),
        ):
            with self.subTest(version), installed(torch=version):
                self.assertEqual(outdated(need) is not None, old)
        self.assertIsNone(outdated(Requirement("notthereatall", "1")))

    def test_the_sentence(self) -> None:
        with installed(torch="2.4.1", monai="1.3.2"):
            texts = [str(old) for old in requirements.outdated_packages()]
        self.assertEqual(
            texts,
            [
                "torch 2.4.1 is installed, and FewShotSeg needs 2.10 or newer: older ones can run "
                "code that is hidden in a file of weights, or corrupt memory.",
                "monai 1.3.2 is installed, and FewShotSeg needs 1.4 or newer.",
            ],
        )

    def test_the_command_tells_and_goes_on(self) -> None:
        with (
            installed(torch="2.9.1"),
            contextlib.redirect_stderr(io.StringIO()) as stderr,
            contextlib.redirect_stdout(io.StringIO()) as stdout,
        ):
            self.assertEqual(cli.main(["models"]), 0)
        self.assertIn("torch 2.9.1 is installed, and FewShotSeg needs 2.10", stderr.getvalue())
        self.assertIn('pip install --upgrade "torch>=2.10"', stderr.getvalue())
        self.assertIn("embedded", stdout.getvalue())
        with installed(torch="2.9.1"), contextlib.redirect_stdout(io.StringIO()) as stdout:
            self.assertEqual(cli.main(["models", "--events"]), 0)
        events = [json.loads(line) for line in stdout.getvalue().splitlines()]
        (warning,) = (event for event in events if event["event"] == "warning")
        self.assertIn("torch 2.9.1", warning["message"])

    def test_nothing_is_said_of_new_ones(self) -> None:
        with (
            contextlib.redirect_stderr(io.StringIO()) as stderr,
            contextlib.redirect_stdout(io.StringIO()),
        ):
            self.assertEqual(cli.main(["models"]), 0)
        self.assertEqual(stderr.getvalue(), "")

    def test_no_pickle_is_opened_by_a_torch_that_may_run_its_code(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "w.pt"
            torch.save({"weight": torch.ones(2)}, path)
            self.assertEqual(list(weights.read_state(path.read_bytes(), path)), ["weight"])
            with installed(torch="2.5.1+cu124"), mock.patch.object(torch, "load") as load:
                with self.assertRaisesRegex(ModelError, "w.pt is not opened: torch 2.5.1.*2.10"):
                    weights.read_state(path.read_bytes(), path)
            load.assert_not_called()


if __name__ == "__main__":
    unittest.main()
