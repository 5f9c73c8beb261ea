"""FewShotSeg in Slicer: registration only; ``FewShotSegSlicer`` beside it holds the module."""

from __future__ import annotations

import slicer
from FewShotSegSlicer import sample_data
from FewShotSegSlicer.logic import FewShotSegLogic
from FewShotSegSlicer.machine import extension
from FewShotSegSlicer.panel.widget import PanelWidget
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleTest

__all__ = ["FewShotSeg", "FewShotSegLogic", "FewShotSegTest", "FewShotSegWidget"]


class FewShotSeg(ScriptedLoadableModule):
    """What Slicer's module list shows."""

    def __init__(self, parent) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("FewShotSeg")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["Segmentations", "SegmentEditor", "Terminologies"]
        parent.contributors = ["FewShotSeg contributors"]
        parent.helpText = _(
            "Segments a structure that no ready-made model knows from 1 to 10 volumes that you "
            "annotated yourself. Not a medical device; not for clinical decisions."
        )
        parent.acknowledgementText = _(
            "The method is FSEFT (Silva-Rodríguez, Dolz, Ben Ayed: Medical Image Analysis 103, "
            "2025, 103596)."
        )
        slicer.app.connect("startupCompleted()", self.registerSampleData)

    def registerSampleData(self) -> None:
        """Sample Data is there only once all modules are loaded."""
        sample_data.register(self.resourcePath("Icons/FewShotSeg.png"))
        if extension.is_awaited():  # Slicer was restarted to go on with an installation
            slicer.util.selectModule("FewShotSeg")


class FewShotSegWidget(PanelWidget):
    """The panel."""


class FewShotSegTest(ScriptedLoadableModuleTest):
    """Runs the module's tests in this Slicer (Reload and Test)."""

    def runTest(self, **kwargs) -> None:
        """Run the suite of the source checkout, where there is one."""
        from FewShotSegSlicer.self_test import run_suite

        run_suite(self)
