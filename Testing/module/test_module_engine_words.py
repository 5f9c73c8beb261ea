"""The panel speaks of boxes and buttons, not of the command line's flags."""

from __future__ import annotations

import slicer_world  # noqa: F401 - before the module, whose place it knows

# isort: split
import ast
import re
import unittest
from collections.abc import Iterator
from pathlib import Path

from FewShotSegSlicer.engine_words import TERMS, WORDS, panel_words
from FewShotSegSlicer.jobs.process import Ended
from FewShotSegSlicer.jobs.words import end_words

import FewShotSegLib
from FewShotSegLib.core.trust import _WORDS, FOREIGN, Signals

ODD = Signals(3, 0.5, 0.5, 0.5, 0.5, 2.0, 1.0, 2.0, 1.0, 1.0, 0.5, 30.0, 0.5)
ENGINE = Path(FewShotSegLib.__file__).resolve().parent
HEARD = ("core", "compute", "models", "features", "methods", "inference", "training", "pipeline")
"""Packages whose sentences a job of the panel can end with."""
ELSEWHERE = {"models/formats/adding.py", "core/register.py", "compute/cluster.py"}
"""Of commands that the panel does not run, and for developers."""
COMMAND_ALONE = (
    *("with --cache-size ", "Give this one another id with --name", "(see --help)"),
    *("what is known of supports (--sparse ", "or leave out --sparse"),
)
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


def sentences() -> Iterator[tuple[str, str]]:
    """Every text of these packages that names a flag, but docstrings; with its file."""
    for package in HEARD:
        for path in sorted((ENGINE / package).rglob("*.py")):
            name = path.relative_to(ENGINE).as_posix()
            if name in ELSEWHERE:
                continue
            tree = ast.parse(path.read_text(encoding="utf-8"))
            documented = {
                id(node.value)
                for node in ast.walk(tree)
                if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            }
            for node in ast.walk(tree):
                text = getattr(node, "value", None)
                if not isinstance(node, ast.Constant) or not isinstance(text, str):
                    continue
                # A flag alone is for a command line that is built, not for a person.
                sentence = " " in text and id(node) not in documented
                if sentence and FLAG.search(text):
                    yield name, text


class EngineWordsTest(unittest.TestCase):
    def test_no_flag_reaches_the_panel(self) -> None:
        found = list(sentences())
        self.assertGreater(len(found), 8)
        for name, text in found:
            left = panel_words(text)
            if not any(words in left for words in COMMAND_ALONE):
                self.assertNotRegex(left, FLAG, name)

    def test_every_replacement_is_of_something_that_is_said(self) -> None:
        said = " ".join(text for _name, text in sentences())
        for words, _instead in WORDS:
            self.assertIn(words, said)
        nodes = [
            node
            for name in ("pipeline/remarks", "pipeline/report", "pipeline/sparse", "core/trust")
            for node in ast.walk(ast.parse((ENGINE / f"{name}.py").read_text("utf-8")))
        ]
        values = [node.value for node in nodes if isinstance(node, ast.Constant)]
        said = " ".join(text for text in values if isinstance(text, str))
        for words, _instead in TERMS:
            self.assertIn(words.removesuffix(" more than"), said)

    def test_reasons_speak_of_annotated_volumes(self) -> None:
        said = [word(signals) for word in _WORDS.values() for signals in (ODD, Signals())]
        for reason in (*said, FOREIGN):
            self.assertNotRegex(panel_words(reason), r"\bsupports?\b|ransduction")

    def test_the_end_of_a_task_is_in_the_panels_words(self) -> None:
        message = "These images are MR. Choose another model, or say --modality if that is wrong."
        ended = Ended("exited", final={"event": "failed", "kind": "InputError", "message": message})
        state, text = end_words("train", ended, "")
        self.assertEqual(state, "failed")
        self.assertIn("or choose the modality under Advanced if that is wrong", text)


if __name__ == "__main__":
    unittest.main()
