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
    from FewShotSegSlicer.scene.results import is_in_3d

WIDTH = 400
"""Of the panel as Slicer opens it."""
EPOCHS = 0
"""As many as the module trains by default."""
STEPS = ("supportsSection", "trainSection", "segmentSection")
ADVANCED = (
    *("structuresSection", "modelSection", "adapterSection"),
    *("segmentOptionsSection", "logSection"),
)
OPEN = {
    "3-structures": ("structuresSection",),
    "advanced": ("adapterSection",),
}
"""Pictures of what is under Advanced; in all others the panel is as the work leaves it."""


def main(folder: Path, epochs: int = EPOCHS) -> None:
    """Walk the way, and save what is to be seen."""
    folder.mkdir(parents=True, exist_ok=True)
    widget = open_module()

    def look(step: str) -> None:
        save_panel(widget, step, folder / f"panel-{step}.png")

    way = Walkthrough(widget, look)
    ui = widget.ui
    look("1-empty")
    with tempfile.TemporaryDirectory() as place:
        way.load_phantoms(Path(place))
        ui.addSceneButton.click()
        way.wait_for_sizes()
        way.choose_colors()
        look("2-supports")
        look("3-structures")
        look("advanced")
        if epochs:
            way.set_epochs(epochs)
        way.press_train()
        way.wait_for_epoch(max(2, (epochs or widget.logic.methods()[0].epochs) // 2))
        look("4-training")
        way.wait_until_idle(3600)
        look("5-trained")
        way.press_segment()
        slicer_world.process_events_until(lambda: is_in_3d(widget.logic.results()[0]))
        look("6-result")
        save_overlay(folder)
        ui.acceptButton.click()
        # It begins with the present adapter: a third of the epochs, unless they were typed.
        way.wait_for_epoch(max(2, (epochs or widget.logic.methods()[0].epochs // 3) // 2))
        look("7-accepted")
        way.press_cancel()
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
    """Save the panel as wide as Slicer's, and as high as what is open in it."""
    ui, wanted = widget.ui, OPEN.get(step, ())
    before = {name: getattr(ui, name).collapsed for name in STEPS}
    ui.advancedSection.collapsed = not wanted
    ui.advancedBox.collapsed = not wanted
    for name in ADVANCED:
        getattr(ui, name).collapsed = name not in wanted
    if wanted:
        for name in STEPS:
            getattr(ui, name).collapsed = True
    settle()
    panel = widget.uiWidget
    if not slicer_world.REAL:
        panel = widget.parent
        for height in (2000, 2000):  # texts that wrap know their height once they have a width
            panel.resize(WIDTH, height)
            settle()
        panel.resize(WIDTH, ui.advancedSection.geometry.bottom() + 30)
        settle()
    panel.grab().save(str(path))
    for name, collapsed in before.items():
        getattr(ui, name).collapsed = collapsed
    ui.advancedSection.collapsed = True
    settle()


def save_overlay(folder: Path) -> None:
    """What the module shows of the result, untouched: three slice views, and 3D."""
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
