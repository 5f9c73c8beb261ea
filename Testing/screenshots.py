"""Draws the pictures of the README and the tutorial from the running panel.

Outside Slicer: ``python Testing/screenshots.py`` (FOLDER, by default Documentation/images).
In Slicer: ``Slicer --additional-module-paths FewShotSeg --python-script Testing/screenshots.py``.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent / "support"))

import slicer_world
from panel_case import settle
from walkthrough import Walkthrough

if True:  # after the world is there
    import qt
    import slicer
    import views

WIDTH = 460
EPOCHS = 0
"""As many as the module trains by default."""
OPEN = {
    "1-empty": ("modelSection", "supportsSection"),
    "2-supports": ("supportsSection",),
    "3-structures": ("structuresSection",),
    "advanced": ("adapterSection",),
    "4-training": ("adapterSection",),
    "5-trained": ("adapterSection",),
    "6-result": ("segmentSection",),
}
"""Which sections are open in each picture."""


def main(folder: Path, epochs: int = EPOCHS) -> None:
    """Walk the way, and save what is to be seen."""
    folder.mkdir(parents=True, exist_ok=True)
    widget = open_module()

    def look(step: str) -> None:
        save_panel(widget, step, folder / f"panel-{step}.png")

    way = Walkthrough(widget, look)
    with tempfile.TemporaryDirectory() as place:
        way.make_phantoms(Path(place))
        way.add_supports()
        look("3-structures")
        widget.ui.advancedBox.collapsed = False
        look("advanced")
        widget.ui.advancedBox.collapsed = True
        if epochs:
            way.set_epochs(epochs)
        way.press_train()
        way.wait_for_epoch(max(2, (epochs or widget.logic.methods()[0].epochs) // 2))
        look("4-training")
        way.wait_until_idle(3600)
        look("5-trained")
        way.choose_query()
        way.press_segment()
        look("6-result")
        save_overlay(way, folder)
    if not slicer_world.REAL:
        widget.cleanup()


def open_module() -> Any:
    """The module's widget, on screen."""
    if slicer_world.REAL:
        window = slicer.util.mainWindow()
        window.resize(1600, 1150)
        slicer.util.selectModule("FewShotSeg")
        window.findChild("QDockWidget", "PanelDockWidget").setFixedWidth(WIDTH)
        widget = slicer.modules.fewshotseg.widgetRepresentation().self()
    else:
        import FewShotSeg

        qt.QApplication.setStyle("Fusion")
        parent = slicer.qMRMLWidget()
        parent.setLayout(qt.QVBoxLayout())
        parent.setMRMLScene(slicer.mrmlScene)
        widget = FewShotSeg.FewShotSegWidget(parent)
        widget.setup()
        parent.show()
        widget.enter()
    settle()
    return widget


def save_panel(widget: Any, step: str, path: Path) -> None:
    """Save the panel as wide as Slicer's, the step's sections open, the others closed."""
    for name in ("model", "supports", "structures", "adapter", "segment", "log"):
        section = getattr(widget.ui, f"{name}Section")
        section.collapsed = section.name not in OPEN[step]
    settle()
    panel = widget.uiWidget
    if not slicer_world.REAL:
        widget.parent.resize(WIDTH, 100)
        settle()
        widget.parent.resize(WIDTH, widget.parent.minimumSizeHint().height())
        settle()
        panel = widget.parent
    panel.grab().save(str(path))


def save_overlay(way: Walkthrough, folder: Path) -> None:
    """The result in three slice views and in 3D."""
    result = way.logic.results()[0]
    slicer.util.setSliceViewerLayers(background=way.query, fit=True)
    first = result.segmentation.GetSegmentation().GetNthSegmentID(0)
    centre = result.segmentation.GetSegmentCenterRAS(first)
    slicer.modules.markups.logic().JumpSlicesToLocation(*centre, False)
    way.ui.show3DButton.click()
    settle()
    with tempfile.TemporaryDirectory() as place:
        parts = []
        for name in ("Red", "Green", "Yellow"):
            parts.append(Path(place) / f"{name}.png")
            views.save_slice(name, parts[-1])
        views.join(parts, folder / "overlay-slices.png")
    views.save_3d(folder / "overlay-3d.png")


if __name__ == "__main__":
    arguments = [a for a in sys.argv[1:] if not a.startswith("-")]
    main(
        Path(arguments[0] if arguments else Path(__file__).parents[1] / "Documentation" / "images"),
        int(arguments[1]) if len(arguments) > 1 else EPOCHS,
    )
    if slicer_world.REAL:
        slicer.util.exit()
