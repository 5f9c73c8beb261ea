"""What the documentation promises: each promise is tested, and some of the tests are here.

``Documentation/explanation/safety.md`` names for each sentence the tests that check it.
"""

from __future__ import annotations

import ast
import re
import socket
import unittest
from pathlib import Path
from unittest import mock

from tiny_model import STRUCTURES, Patient, TinyWorld, run

ROOT = Path(__file__).resolve().parents[2]
SAFETY = ROOT / "Documentation" / "explanation" / "safety.md"
ROW = "| «"
ENGINE = ROOT / "FewShotSegLib"
MODULE = ROOT / "FewShotSeg"
NETWORK = {
    *("requests", "urllib", "urllib3", "http", "socket", "ssl", "ftplib", "smtplib", "asyncio"),
    "distributed",
}
ONLINE = {"fetching.py", "model_download.py", "cluster.py"}
"""The only files of the engine that may use the network."""


class TableTest(unittest.TestCase):
    """The table of promises and tests."""

    def rows(self) -> list[tuple[str, list[str]]]:
        """The sentences, and the tests of each."""
        lines = SAFETY.read_text(encoding="utf-8").splitlines()
        cells = [line.strip("| ").split(" | ") for line in lines if line.startswith(ROW)]
        return [(cell[0], re.findall(r"`(test_[\w.:]+)`", cell[1])) for cell in cells]

    def test_each_sentence_is_in_the_readme_or_the_documentation(self) -> None:
        """Outside the table itself, so that a user meets it where it matters."""
        pages = [ROOT / "README.md", *(ROOT / "Documentation").rglob("*.md")]
        lines = [
            line
            for page in pages
            for line in page.read_text(encoding="utf-8").splitlines()
            if not line.startswith(ROW)
        ]
        text = " ".join(" ".join(lines).split())
        for sentence, _ in self.rows():
            with self.subTest(sentence):
                self.assertIn(sentence.strip("«»"), text)

    def test_each_test_is_there(self) -> None:
        self.assertGreater(len(self.rows()), 15)
        for sentence, tests in self.rows():
            self.assertTrue(tests, f"no test for: {sentence}")
            for name in tests:
                with self.subTest(name):
                    file, cls, function = name.split("::")
                    (path,) = (ROOT / "Testing").rglob(file)
                    tree = ast.parse(path.read_text(encoding="utf-8"))
                    (found,) = (
                        node
                        for node in tree.body
                        if isinstance(node, ast.ClassDef) and node.name == cls
                    )
                    functions = [n.name for n in found.body if isinstance(n, ast.FunctionDef)]
                    self.assertIn(function, functions)


class NetworkTest(TinyWorld):
    """Nothing leaves the machine."""

    def test_the_whole_job_opens_no_connection(self) -> None:
        asked: list[str] = []

        def refuse(*arguments: object, **_: object) -> None:
            asked.append(str(arguments[-1]))
            raise OSError("there is no network")

        out, result = self.folder / "a.fseft", self.folder / "r_seg.nii.gz"
        query = (str(self.query.image), "--seed", "0")
        with (
            mock.patch.object(socket.socket, "connect", refuse),
            mock.patch.object(socket.socket, "connect_ex", refuse),
            mock.patch.object(socket.socket, "sendto", refuse),
            mock.patch.object(socket, "create_connection", refuse),
            mock.patch.object(socket, "getaddrinfo", refuse),
        ):
            for arguments in (
                self.adapt_arguments(out),
                self.segment_arguments(out, result, *query),
                ("evaluate", "--reference", str(self.query.segmentation))
                + ("--prediction", str(result), "--structures", STRUCTURES),
                ("inspect", str(out)),
                ("models",),
                ("models", "btcv"),
            ):
                ran = run(*arguments)
                self.assertEqual((ran.status, asked), (0, []), f"{arguments}: {ran.err}")
            ran = run("download", "btcv", "--accept-licence")  # what it looks like when one does
            self.assertEqual(ran.status, 2)
            self.assertNotEqual(asked, [])

    def test_only_downloads_know_of_the_network(self) -> None:
        for folder in (ENGINE, MODULE):
            for path in folder.rglob("*.py"):
                names = set()
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                    if isinstance(node, ast.Import):
                        names |= {alias.name for alias in node.names}
                    elif isinstance(node, ast.ImportFrom) and not node.level:
                        names.add(node.module or "")
                names.discard("urllib.parse")  # it takes addresses apart
                if path.name not in ONLINE:
                    self.assertFalse({name.split(".")[0] for name in names} & NETWORK, path.name)


class CacheTest(TinyWorld):
    """What the cache holds."""

    def test_no_images_and_no_names(self) -> None:
        secret = self.folder / "Praxis Dr Sommer"
        secret.mkdir()
        supports = [
            Patient(
                patient.image.rename(secret / f"Mustermann_{n}.nii.gz"),
                patient.segmentation.rename(secret / f"Mustermann_{n}_manual.nii.gz"),
            )
            for n, patient in enumerate(self.more_supports())
        ]
        cache = self.folder / "cache"
        arguments = self.adapt_arguments(self.folder / "a.fseft", supports=supports)
        arguments[arguments.index("--cache") + 1] = str(cache)
        self.assertEqual(run(*arguments).status, 0)
        files = [path for path in cache.rglob("*") if path.is_file()]
        kinds = {path.suffix for path in files if path.stat().st_size}
        self.assertIn(".npy", kinds)
        self.assertLessEqual(kinds, {".npy", ".json", ".lock"})
        for path in files:
            content = path.read_bytes()
            for word in ("Mustermann", "Sommer", "manual"):
                self.assertNotIn(word, str(path.relative_to(cache)))
                self.assertNotIn(word.encode(), content, path.name)

    def more_supports(self) -> list[Patient]:
        """Two patients that no other test has, so that nothing of them is cached."""
        from tiny_model import write_patient

        return [write_patient(self.folder, f"more{n}", 40 + n) for n in range(2)]


if __name__ == "__main__":
    unittest.main()
