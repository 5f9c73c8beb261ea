"""The clinician's way through the panel, click by click, over the real logic and process.

The test of the way, the pictures of the tutorial and the module's self-test all walk it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer_world
from panel_case import choose, settle

if True:  # after the world is there
    import slicer
    from FewShotSegSlicer.sample_data import PATIENTS, load_patients

COLORS = ((0.20, 0.78, 0.74), (0.98, 0.65, 0.26), (0.72, 0.55, 0.98))
Look = Callable[[str], None]
"""Called with a step's name when there is something to see."""


class Walkthrough:
    """See the module's docstring. ``widget`` is the module's, set up."""

    def __init__(self, widget: Any, look: Look | None = None) -> None:
        self.widget, self.ui, self.logic = widget, widget.ui, widget.logic
        self.look = look or (lambda step: None)
        self.query: Any = None

    def wait_until_idle(self, seconds: float = 900.0) -> Any:
        """Until no task runs any more; how the last one ended."""
        slicer_world.process_events_until(lambda: self.logic.running() is None, seconds)
        settle()
        return self.logic.lastEnd()

    def make_phantoms(self, folder: Path, supports: int = 3) -> None:
        """Synthetic patients: some annotated in ``supports``, one without annotation beside it."""
        self.wait_until_idle()
        folder.mkdir(parents=True, exist_ok=True)
        annotated = folder / "supports"
        self.logic.startPhantoms(str(annotated), supports + 1)
        self.wait_until_idle()
        last = f"phantom_{supports + 1:02d}"
        (annotated / f"{last}_ct.nii.gz").rename(folder / f"{last}_ct.nii.gz")
        (annotated / f"{last}_seg.nii.gz").rename(folder / f"{last}_reference.nii.gz")
        self.query_file = folder / f"{last}_ct.nii.gz"
        self.supports_folder = annotated

    def load_phantoms(self, folder: Path) -> None:
        """Four synthetic patients in the scene, as by Sample Data; the last one is on screen."""
        self.wait_until_idle()
        self.logic.startPhantoms(str(folder), PATIENTS)
        self.wait_until_idle()
        self.query = load_patients(folder)[-1]
        slicer.util.setSliceViewerLayers(background=self.query, fit=True)
        settle()

    def add_supports(self) -> None:
        """«Add folder...», and the query loaded beside them."""
        self.look("1-empty")
        self.widget.supports.add_folder(str(self.supports_folder))
        settle()
        self.query = slicer.util.loadVolume(str(self.query_file), {"name": "CT to segment"})
        self.wait_for_sizes()
        self.choose_colors()
        self.look("2-supports")

    def choose_colors(self) -> None:
        """Colours that are easy to tell apart: a label map has none of its own."""
        for row, color in zip(self.logic.structures(), COLORS, strict=False):
            self.logic.colorStructure(row.id, color)
        settle()

    def wait_for_sizes(self) -> None:
        """Until the priors are measured."""
        slicer_world.process_events_until(
            lambda: (
                self.logic.structures()
                and all(row.prior.mean_ml is not None for row in self.logic.structures())
            )
        )
        settle()

    def choose_model(self, model: str, device: str) -> None:
        """In the section «Foundation model»."""
        self.wait_until_idle()
        choose(self.ui.modelCombo, model)
        choose(self.ui.deviceCombo, device)

    def add_support(self, volume: Any, segmentation: Any) -> None:
        """Choose a volume and its segmentation, and press «Add»."""
        self.ui.volumeSelector.setCurrentNode(volume)
        self.ui.segmentationSelector.setCurrentNode(segmentation)
        settle()
        assert self.ui.addSupportButton.enabled, self.ui.addSupportButton.toolTip
        self.ui.addSupportButton.click()
        settle()

    def set_epochs(self, epochs: int) -> None:
        """Under Advanced."""
        self.ui.epochsSpinBox.value = epochs
        settle()

    def press_train(self) -> None:
        """And nothing else: it goes on in the background."""
        assert self.ui.trainButton.enabled, self.ui.trainButton.toolTip
        self.ui.trainButton.click()
        settle()
        assert not self.ui.trainButton.enabled, "a second training could be started"

    def wait_for_epoch(self, number: int) -> None:
        """Until the training got so far."""
        slicer_world.process_events_until(
            lambda: len(self.logic.epochs()) >= number or self.logic.running() is None, 300.0
        )
        settle()

    def press_cancel(self) -> Any:
        """Stop the training; how it ended."""
        assert self.ui.cancelTrainButton.enabled, self.ui.cancelTrainButton.toolTip
        assert self.ui.cancelTrainButton.isVisibleTo(self.ui.trainSection)
        self.ui.cancelTrainButton.click()
        return self.wait_until_idle()

    def choose_query(self) -> None:
        """In the section «Segment»."""
        self.ui.queryVolumeSelector.setCurrentNode(self.query)
        slicer.util.setSliceViewerLayers(background=self.query, fit=False)
        choose(self.ui.adapterCombo, self.logic.adapters()[-1].id)

    def set_refinement(self, wanted: bool) -> None:
        """Tick «Refine with the prior volumes» on or off."""
        if self.ui.transductiveCheckBox.checked != wanted:
            self.ui.transductiveCheckBox.click()
        settle()

    def press_segment(self) -> Any:
        """Segment, and wait; how it ended."""
        assert self.ui.segmentButton.enabled, self.ui.segmentButton.toolTip
        self.ui.segmentButton.click()
        return self.wait_until_idle()
