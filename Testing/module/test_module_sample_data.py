"""The tutorial's data: registered, loaded, ready to be supports."""

from __future__ import annotations

import shutil
import sys
import tempfile
import types
import unittest
from pathlib import Path
from unittest import mock

import slicer_world

if True:  # after the world is there
    from FewShotSegSlicer import sample_data
    from FewShotSegSlicer.interface.rows import End, Progress
    from FewShotSegSlicer.scene.views import volume_on_screen

    from FewShotSegLib.phantoms.patients import write_phantoms


class SampleDataTest(slicer_world.SceneTestCase):
    """Slicer's Sample Data module is not in the doubles; its one call is checked by its names."""

    def test_it_is_registered_with_a_downloader_of_its_own(self) -> None:
        module = types.ModuleType("SampleData")
        module.SampleDataLogic = mock.Mock()
        with mock.patch.dict(sys.modules, SampleData=module):
            sample_data.register("icon.png")
        given = module.SampleDataLogic.registerCustomSampleDataSource.call_args.kwargs
        self.assertEqual(given["category"], "FewShotSeg")
        with mock.patch.object(sample_data, "make_patients", return_value=["nodes"]):
            self.assertEqual(given["customDownloader"](None), ["nodes"])

    def test_the_last_patient_comes_without_annotation(self) -> None:
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        write_phantoms(folder, 2)
        nodes = sample_data.load_patients(folder)
        self.assertEqual(
            [node.GetClassName() for node in nodes],
            ["vtkMRMLScalarVolumeNode", "vtkMRMLSegmentationNode", "vtkMRMLScalarVolumeNode"],
        )
        segments = nodes[1].GetSegmentation()
        names = {segments.GetNthSegment(k).GetName() for k in range(3)}
        self.assertEqual(names, {"gland_right", "gland_left", "pouch"})

    def test_one_patient_alone_is_on_screen(self) -> None:
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        write_phantoms(folder, 3)
        nodes = sample_data.load_patients(folder)
        self.assertIs(volume_on_screen(), nodes[0])
        shown = [
            node.GetName()
            for node in nodes
            if node.IsA("vtkMRMLSegmentationNode") and node.GetDisplayNode().GetVisibility()
        ]
        self.assertEqual(shown, ["Phantom 1 segmentation"])

    def test_how_far_it_is_stands_in_the_status_bar(self) -> None:
        logic = mock.Mock()
        logic.wait.return_value = End("phantoms", "cancelled", "Stopped.")
        with (
            mock.patch.object(sample_data.slicer.util, "getModuleLogic", return_value=logic),
            mock.patch.object(sample_data.slicer.util, "showStatusMessage") as shown,
        ):
            self.assertEqual(sample_data.make_patients(), [])
            (listener,) = logic.listen.call_args.args
            listener(Progress("phantoms", "phantoms", "Making patients, 25%", 0.25))
        self.assertEqual(shown.call_args.args[0], "FewShotSeg: Making patients, 25%")
        logic.listen.return_value.assert_called_once()

    def test_a_failure_is_reported_and_nothing_is_loaded(self) -> None:
        logic = mock.Mock()
        logic.startPhantoms.side_effect = RuntimeError("Wait until the running task has ended.")
        with (
            mock.patch.object(sample_data.slicer.util, "getModuleLogic", return_value=logic),
            mock.patch.object(sample_data.slicer.util, "errorDisplay") as shown,
        ):
            self.assertEqual(sample_data.make_patients(), [])
        self.assertEqual(shown.call_args.args, ("Wait until the running task has ended.",))


if __name__ == "__main__":
    unittest.main()
