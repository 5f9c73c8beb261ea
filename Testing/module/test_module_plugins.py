"""A method and a backbone of another package on the panel; a method that is no longer there."""

from __future__ import annotations

import slicer_world  # before qt, which it puts in place

# isort: split
import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from FewShotSegSlicer.machine.requirements import outdated_advice
from module_logic import LogicTestCase
from panel_case import RealPanel, settle
from plugins import environment, install_example

from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.method_catalog import METHODS

MODULE = Path(__file__).resolve().parent
PROGRAM = """
import json, sys
import slicer_world
from panel_case import RealPanel, choose, settle
assert "torch" not in sys.modules
panel = RealPanel()
settle()
logic, combo = panel.logic, panel.ui.methodCombo
listed = [combo.itemData(index) for index in range(combo.count)]
logic.setModel("example-pyramid")
choose(combo, "local-mean")
row = next(row for row in logic.methods() if row.id == "local-mean")
print(json.dumps({
    "listed": listed,
    "label": panel.ui.methodLabel.text,
    "chosen": logic.getParameterNode().method,
    "explanation": row.explanation,
    "models": [row.id for row in logic.models()],
    "blockers": [text for text in logic.blockers("train") if "annotated" not in text],
    "torch": "torch" in sys.modules,
}))
panel.close()
"""


class InstalledTest(unittest.TestCase):
    """The example package, in a process that finds it."""

    def test_the_panel_lists_its_method_and_its_model(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            support = MODULE.parent / "support"
            places = (install_example(folder / "package"), support)
            done = subprocess.run(
                [sys.executable, "-c", PROGRAM],
                env=environment(*places, FEWSHOTSEG_HOME=str(folder / "home")),
                capture_output=True,
                text=True,
                check=False,
            )
        self.assertEqual(done.returncode, 0, done.stderr)
        found = json.loads(done.stdout.splitlines()[-1])
        self.assertEqual(found["listed"], [*METHODS.own, "local-mean"])
        self.assertEqual(found["chosen"], "local-mean")
        self.assertIn("Local mean", found["label"])
        self.assertIn("their mean around each voxel", found["explanation"])
        self.assertIn("example-pyramid", found["models"])
        self.assertEqual(found["blockers"], [])
        self.assertFalse(found["torch"])


class MissingTest(LogicTestCase):
    """A scene that was saved where a package added its method, opened where it is not."""

    def setUp(self) -> None:
        super().setUp()
        self.logic.setModel("embedded")
        node = self.logic.getParameterNode()
        node.parameterNode.SetParameter("method", "local-mean")

    def test_it_is_shown_and_said(self) -> None:
        row = self.logic.methods()[-1]
        self.assertEqual((row.id, row.decoders), ("local-mean", ()))
        self.assertIn("install the package that adds it", row.explanation)
        self.assertEqual([r.id for r in self.logic.methods()[:-1]], list(METHODS))
        (text,) = (t for t in self.logic.blockers("train") if "annotated" not in t)
        self.assertIn("The method local-mean is not known here", text)
        self.support(bean=3)
        self.assertIsNone(self.logic.estimate("train"))
        with self.assertRaisesRegex(InputError, "local-mean"):
            self.logic.startTraining()

    def test_the_panel_opens(self) -> None:
        panel = RealPanel()
        self.addCleanup(panel.close)
        settle()
        self.assertIn("local-mean", panel.ui.methodLabel.text)

    def test_what_can_not_be_used_is_on_the_panel(self) -> None:
        remark = "The method 'x' of the package y 1.0 is left out: it is broken."
        with mock.patch(
            "FewShotSegSlicer.machine.requirements.plugin_remarks", return_value=[remark]
        ):
            self.assertIn(remark, outdated_advice())
            self.assertIn(remark, self.logic.outdatedPackages())


if __name__ == "__main__":
    assert slicer_world
    unittest.main()
