"""The section «Annotated volumes»: the support set that an adapter is trained on."""

from __future__ import annotations

from typing import Any

import qt
from slicer.i18n import tr as _

from FewShotSegLib.core.sparse import AUTO

from ..interface.protocol import LogicProtocol
from ..interface.rows import End, Progress, SupportRow
from ..messages import tell
from ..scene.views import drawn_on, volume_on_screen
from .annotation_chooser import AnnotationChooser
from .dialogs import choose_folder
from .navigation import open_segment_editor
from .progress import TaskView
from .tools import (
    Cell,
    Hint,
    Table,
    busy_text,
    current_id,
    fill_combo,
    gate,
    reporting,
    section_title,
)

VOLUME = 0
WIDTHS = {1: 122, 2: 90}


def state_text(row: SupportRow) -> str:
    """The state in the table."""
    return {
        "ready": _("ready"),
        "no segments": _("not annotated"),
        "nothing drawn": _("nothing drawn"),
        "missing": _("deleted"),
        "unusable": _("unusable"),
        "choose": _("to choose"),
    }[row.state]


def plane_titles() -> dict[str, str]:
    """Which slices may have been drawn on."""
    return {
        AUTO: _("found automatically"),
        "axial": _("axial"),
        "coronal": _("coronal"),
        "sagittal": _("sagittal"),
    }


class SupportsSection:
    """Add volumes, tick them, show them, edit their segments."""

    def __init__(self, ui: Any, logic: LogicProtocol) -> None:
        self.ui, self.logic = ui, logic
        self.hint = Hint(ui.supportsHintIcon, ui.supportsHint)
        self.status = Hint(ui.phantomsStatusIcon, ui.phantomsStatus)
        self.task = TaskView(ui.phantomsProgress, ui.cancelPhantomsButton, self.status, logic)
        self.table = Table(ui.supportsTable, VOLUME, WIDTHS)
        self.table.on_edit(self.on_tick)
        self.chooser = AnnotationChooser(logic)
        ui.supportsSection.layout().addWidget(self.chooser.widget)
        self.parameters: Any = None
        self._proposed: Any = None
        ui.drawnPlaneCombo.connect("activated(int)", self.on_plane)
        ui.supportsTable.connect("itemSelectionChanged()", self.refresh_buttons)
        ui.supportsTable.connect("cellDoubleClicked(int,int)", self.on_double_click)
        ui.volumeSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.on_volume_changed)
        for button, slot in (
            (ui.addSupportButton, self.on_add),
            (ui.addSceneButton, self.on_add_scene),
            (ui.addFolderButton, self.on_add_folder),
            (ui.showSupportButton, self.on_show),
            (ui.editSupportButton, self.on_edit),
            (ui.removeSupportButton, self.on_remove),
        ):
            button.connect("clicked()", slot)

    def take_volume_on_screen(self) -> None:
        """Offer the volume that is on screen for adding, unless it is the query or has a row."""
        self._offer(self.logic.proposedSupport(volume_on_screen()))

    def _offer(self, node: Any) -> None:
        self._proposed = node
        if node is not self.ui.volumeSelector.currentNode():
            self.ui.volumeSelector.setCurrentNode(node)

    def _offer_again(self) -> None:
        """Nodes came, or the query is another: what a person chose by hand stays."""
        node = self.logic.proposedSupport(volume_on_screen())
        shown = self.ui.volumeSelector.currentNode()
        if shown is None or shown is self._proposed:
            self._offer(node)

    def refresh(self) -> None:
        """Show what the logic says."""
        rows = self.logic.supports()
        warning = qt.QStyle.SP_MessageBoxWarning
        self.table.fill(
            [row.id for row in rows],
            [
                (
                    Cell(
                        row.volume_name,
                        _("{volume}\nAnnotated in: {segmentation}").format(
                            volume=row.volume_name, segmentation=row.segmentation_name or "–"
                        ),
                        checked=row.ticked,
                    ),
                    Cell(", ".join(row.structures) or "–"),
                    Cell(
                        state_text(row),
                        row.problem,
                        icon=None if row.state == "ready" else warning,
                    ),
                )
                for row in rows
            ],
        )
        ready = sum(row.ticked and row.state == "ready" for row in rows)
        more = _("{ready} of {count} ready").format(ready=ready, count=len(rows)) if rows else ""
        section_title(self.ui.supportsSection, _("1  Annotated volumes"), more)
        self.hint.show(*self._obstacle(rows, ready))
        if self.parameters is not None:
            plane = self.parameters.drawnPlane
            fill_combo(self.ui.drawnPlaneCombo, list(plane_titles().items()), plane)
            self.ui.drawnPlaneCombo.setVisible(bool(self.parameters.onlyDrawnSlices))
        making = self.logic.running() == "phantoms"
        self.task.refresh(making)
        self.ui.phantomsTask.setVisible(making)
        self._offer_again()
        self.refresh_buttons()

    def on_progress(self, progress: Progress) -> None:
        """Synthetic patients are on their way, as a user asked of Sample Data."""
        if progress.kind == "phantoms":
            self.task.show(progress)

    def on_end(self, _end: End) -> None:
        """Sample Data says how that ended."""

    def _obstacle(self, rows: list[SupportRow], ready: int) -> tuple[str, str]:
        if not rows:
            return _("Add the volumes that you annotated, 1 to 10 of them."), "missing"
        bad = [
            row for row in rows if row.state == "choose" or (row.ticked and row.state != "ready")
        ]
        if bad:
            text = _("{volume}: {problem}").format(
                volume=bad[0].volume_name, problem=bad[0].problem or state_text(bad[0])
            )
            if len(bad) > 1:
                text += " " + _("({count} more rows have a warning.)").format(count=len(bad) - 1)
            return text, "warning"
        if not ready:
            return _("Tick at least one volume."), "missing"
        return "", "missing"

    def refresh_buttons(self) -> None:
        """Enable what makes sense for the selection."""
        ui, count = self.ui, len(self.table.selected())
        self.chooser.refresh(self.logic.supports(), self.table.selected())
        busy = busy_text(self.logic)
        none = _("Select a row of the table first.") if count == 0 else ""
        many = _("Select one row alone.") if count > 1 else ""
        gate(ui.showSupportButton, none or many, _("Show this volume in the slice views."))
        gate(
            ui.editSupportButton,
            busy or none or many,
            _("Draw on this volume in Segment Editor; every structure is there as a segment."),
        )
        gate(
            ui.removeSupportButton,
            busy or none,
            _("Take the rows out. What you loaded or drew stays."),
        )
        volume = ui.volumeSelector.currentNode()
        gate(
            ui.addSupportButton,
            busy or ("" if volume else _("Choose a volume first.")),
            _("Add this volume to the annotated ones (the support set)."),
        )
        gate(
            ui.addSceneButton,
            busy,
            _("Add every volume that has a segmentation, a label map or surface models."),
        )
        gate(ui.addFolderButton, busy, _("Load pairs of image and segmentation files."))

    def selected(self) -> SupportRow | None:
        """The one selected row."""
        ids = self.table.selected()
        return next((row for row in self.logic.supports() if row.id in ids), None)

    def on_volume_changed(self, _node: Any = None) -> None:
        """Another volume is offered for adding: with its result, if nobody drew on it."""
        self.ui.segmentationSelector.setCurrentNode(self._result_of(_node))
        self.refresh_buttons()

    def _result_of(self, volume: Any) -> Any:
        """The newest result of a volume; None where there is none, or it has an annotation."""
        results = self.logic.results() if volume is not None else []
        found = [result.segmentation for result in results if result.query is volume]
        own = [n for one in results for n in (one.segmentation, one.unrefined)]
        if any(node not in own for node in drawn_on(volume)):
            return None
        return found[0] if found else None

    def on_tick(self, row_id: str, column: int, item: Any) -> None:
        """A person ticked a row on or off."""
        if column == VOLUME:
            with reporting():
                self.logic.tickSupport(row_id, item.checkState() == qt.Qt.Checked)

    def on_plane(self, _index: int = 0) -> None:
        """A person said which slices were drawn on."""
        chosen = current_id(self.ui.drawnPlaneCombo)
        if self.parameters.drawnPlane != chosen:
            self.parameters.drawnPlane = chosen

    def on_add(self) -> None:
        """Add the chosen volume."""
        with reporting():
            row_id = self.logic.addSupport(
                self.ui.volumeSelector.currentNode(), self.ui.segmentationSelector.currentNode()
            )
            self.refresh()
            self.table.select([row_id])

    def on_add_scene(self) -> None:
        """Add all volumes that have a segmentation."""
        with reporting():
            count = self.logic.addSceneSupports()
            if not count and not any(row.state == "choose" for row in self.logic.supports()):
                tell(
                    _(
                        "There is no volume with a segmentation or a label map that isn't in the "
                        "table already. To pair one by hand, choose both beside Add."
                    )
                )

    def on_add_folder(self) -> None:
        """Load a folder of pairs."""
        title = _("Folder with images and their segmentations")
        folder = choose_folder(self.ui.supportsSection, title)
        if folder:
            self.add_folder(folder)

    def add_folder(self, folder: str) -> None:
        """Load the pairs of a folder and add them."""
        with reporting():
            self.logic.addFolder(folder)

    def on_double_click(self, _row: int = 0, _column: int = 0) -> None:
        """Show the row in the slice views."""
        self.on_show()

    def on_show(self) -> None:
        """Show the selected row in the slice views."""
        row = self.selected()
        if row is not None:
            with reporting():
                self.logic.showSupport(row.id)

    def on_edit(self) -> None:
        """Open the selected row in Segment Editor."""
        row = self.selected()
        if row is not None:
            with reporting():
                volume, segmentation = self.logic.prepareEditing(row.id)
                self.logic.showSupport(row.id)
                open_segment_editor(volume, segmentation)

    def on_remove(self) -> None:
        """Take the selected rows out of the set."""
        with reporting():
            for row_id in self.table.selected():
                self.logic.removeSupport(row_id)
