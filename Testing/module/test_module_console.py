"""Every example of the console's documentation, run as it stands there."""

from __future__ import annotations

import re
import shutil

import slicer
import slicer_world
from module_scenes import add_patient
from process_case import ProcessTestCase
from tiny_model import write_model, write_patient

PAGE = slicer_world.ROOT / "Documentation" / "how-to" / "slicer-console.md"


class ConsoleTest(ProcessTestCase):
    """The examples, one after the other, in one namespace."""

    def test_the_examples_run(self) -> None:
        blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
        self.assertGreater(len(blocks), 3)
        for row in self.logic.supports():
            self.logic.removeSupport(row.id)
        self.logic.close()  # the module's own logic takes over
        logic = slicer.util.getModuleLogic("FewShotSeg")
        logic.setModel("tiny")
        logic.setDevice("cpu")
        logic.getParameterNode().learningRate = 0.02
        for seed in range(2):
            slicer.util.getNode(f"Patient {seed}").SetName(f"CT {seed + 1}")
        self.query.SetName("CT 3")
        models = self.folder / "home" / "models"
        write_model(models, "ward-ct")
        shutil.move(models / "ward-ct.safetensors", self.folder / "weights.safetensors")
        for seed in (8, 9):  # to be suggested
            _volume, drawn = add_patient(seed, f"CT {seed}")
            slicer.mrmlScene.RemoveNode(drawn)
        new = write_patient(self.folder / "new_patients", "p", 9)
        new.segmentation.unlink()
        names = {"slicer": slicer, "folder": str(self.folder)}
        for block in blocks:
            exec(compile(block, str(PAGE), "exec"), names)
        slicer_world.process_events_until(lambda: logic.running() is None, 300)
        self.assertEqual(logic.lastEnd().state, "finished", logic.lastEnd())
        self.assertTrue((self.folder / "glands.fseft").is_file())
        self.assertTrue((models / "ward-ct.safetensors").is_file())
