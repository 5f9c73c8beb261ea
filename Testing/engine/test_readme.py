"""The README's example on the command line and its example in Python, run as they are printed."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import unittest
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tiny_model import TinyWorld, run, write_patient

from FewShotSegLib.io.volumes import read_image
from FewShotSegLib.pipeline.adapter_file import TrainedAdapter

README = Path(__file__).resolve().parents[2] / "README.md"
COMMANDS = [["fewshotseg", "adapt"], ["fewshotseg", "segment"]]


class ExamplesTest(TinyWorld):
    """Both on the same small volumes, with the model that the examples name."""

    def test_both_train_the_same_adapter_and_give_the_same_segmentation(self) -> None:
        text = README.read_text(encoding="utf-8")
        (script,) = re.findall(r"(?ms)^```python\n(.*?)^```$", text)
        (shell,) = (
            block for block in re.findall(r"(?ms)^```\n(.*?)^```$", text) if "fewshotseg" in block
        )
        commands = [shlex.split(line) for line in shell.replace("\\\n", " ").splitlines()]
        self.assertEqual([words[:2] for words in commands], COMMANDS)
        with self.inside("shell"):
            for words in commands:
                ran = run(*words[1:])
                self.assertEqual(ran.status, 0, ran.err)
        with self.inside("python"), contextlib.redirect_stderr(io.StringIO()):
            exec(compile(script, str(README), "exec"), {})
        shell_way, python_way = self.folder / "shell", self.folder / "python"
        adapters = [TrainedAdapter.load(way / "parotids.fseft") for way in (shell_way, python_way)]
        self.assertEqual(adapters[0].content_sha256(), adapters[1].content_sha256())
        results = [read_image(way / "ct3_seg.nii.gz") for way in (shell_way, python_way)]
        self.assertGreater(np.count_nonzero(results[0].array), 0)
        np.testing.assert_array_equal(results[0].array, results[1].array)
        self.assertEqual(results[0].grid, results[1].grid)

    @contextlib.contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """A working directory with the files that the examples name."""
        folder = self.folder / name
        folder.mkdir()
        for number in (1, 2, 3):
            patient = write_patient(folder, f"patient{number}", number)
            patient.image.rename(folder / f"ct{number}.nii.gz")
            patient.segmentation.rename(folder / f"seg{number}.nii.gz")
        before = os.getcwd()
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


if __name__ == "__main__":
    unittest.main()
