"""The section «Train», and under Advanced the list of what was trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slicer.i18n import tr as _

from FewShotSegLib.core.expected import expected_cells, expected_sentences
from FewShotSegLib.core.rounds import dice_by_supports

from ..interface.protocol import LogicProtocol
from ..interface.rows import AdapterRow, End, Epoch, Progress
from ..messages import agree
from .dialogs import open_file, save_file
from .loss_plot import LossPlot
from .method import MethodChoice
from .progress import TaskView
from .rounds_plot import RoundsPlot
from .tools import Cell, Hint, Table, busy_text, busy_with, gate, reporting

NAME = 0
WIDTHS = {1: 110, 2: 40, 3: 92}
DEFAULT_COLOR = (0.5, 0.5, 0.5)
FILES = "FewShotSeg adapter (*.fseft)"


class AdaptersSection:
    """Training, and what was trained."""

    KINDS = ("train",)

    def __init__(self, ui: Any, logic: LogicProtocol) -> None:
        self.ui, self.logic = ui, logic
        self.method = MethodChoice(ui, logic)
        self.hint = Hint(ui.adapterHintIcon, ui.adapterHint)
        self.status = Hint(ui.trainStatusIcon, ui.trainStatus)
        self.task = TaskView(ui.trainProgress, ui.cancelTrainButton, self.status, logic)
        self.plot = LossPlot()
        ui.lossPlotFrame.layout().addWidget(self.plot)
        self.rounds = RoundsPlot()
        ui.adapterSection.layout().addWidget(self.rounds)
        self.table = Table(ui.adaptersTable, NAME, WIDTHS, rows=2)
        self.table.on_edit(self.on_rename)
        ui.adaptersTable.connect("itemSelectionChanged()", self.on_selection)
        ui.trainButton.connect("clicked()", self.on_train)
        ui.loadAdapterButton.connect("clicked()", self.on_load)
        ui.saveAdapterButton.connect("clicked()", self.on_save)
        ui.deleteAdapterButton.connect("clicked()", self.on_delete)

    def refresh(self) -> None:
        """Show what the logic says."""
        rows, running = self.logic.adapters(), busy_with(self.logic)
        self.method.refresh()
        titles = {row.id: row.title for row in self.logic.methods()}
        self.table.fill([row.id for row in rows], [adapter_cells(row, titles) for row in rows])
        obstacles = self.logic.blockers("train") if not running else []
        if obstacles:
            self.hint.show(obstacles[0])
        else:
            self.hint.show("" if running else self._doubt(), "warning")
        estimate = self.logic.estimate("train") if not obstacles and not running else None
        busy = _("A task is running already.") if running else ""
        gate(
            self.ui.trainButton,
            busy or "\n".join(obstacles),
            estimate.text
            if estimate
            else _("Learn the structures from the ticked volumes (train an adapter)."),
        )
        self.task.refresh(running in self.KINDS)
        self.show_epochs()
        self.show_rounds()
        self.refresh_buttons()

    def _doubt(self) -> str:
        """What about the structures should be settled before a training, and where; or nothing."""
        rows = [row for row in self.logic.structures() if row.ticked and row.conflict]
        where = _("See Structures under Advanced.")
        return f"{rows[0].conflict} {where}" if rows else ""

    def show_epochs(self) -> None:
        """Draw the running or last training."""
        points = [point for point in self.logic.epochs() if point.phase == "train"]
        self.plot.show_points(points)
        self.ui.lossPlotFrame.setVisible(bool(points))

    def show_rounds(self) -> None:
        """Draw what the selected adapter, or the newest, and those that were trained like it are
        expected to reach, by the number of annotated volumes."""
        rows = self.logic.adapters()
        shown = self.selected() or (rows[-1] if rows else None)
        alike = [row.metadata for row in rows if shown is not None and _alike(row, shown)]
        curves = dice_by_supports(metadata for metadata in alike if metadata)
        structures = shown.metadata.get("structures", ()) if shown is not None else ()
        colors = {s["name"]: s.get("color") or DEFAULT_COLOR for s in structures}
        self.rounds.show_curves(curves, colors)

    def refresh_buttons(self) -> None:
        """Enable what makes sense for the selection."""
        busy = busy_text(self.logic)
        none = "" if self.table.selected() else _("Select an adapter in the table first.")
        gate(self.ui.loadAdapterButton, busy, _("Add an adapter from a .fseft file."))
        gate(
            self.ui.saveAdapterButton,
            none,
            _("Save as a .fseft file, to use in other scenes. It names no patient."),
        )
        gate(self.ui.deleteAdapterButton, busy or none, _("Delete it from the scene."))

    def selected(self) -> AdapterRow | None:
        """The selected adapter."""
        ids = self.table.selected()
        return next((row for row in self.logic.adapters() if row.id in ids), None)

    def on_selection(self) -> None:
        """Another adapter is selected."""
        self.show_rounds()
        self.refresh_buttons()

    def on_progress(self, progress: Progress) -> None:
        """Training went on."""
        if progress.kind in self.KINDS:
            self.task.show(progress)

    def on_epoch(self, _epoch: Epoch) -> None:
        """Another point of the curve."""
        self.show_epochs()

    def on_end(self, end: End) -> None:
        """Training ended, well or not."""
        if end.kind in self.KINDS:
            self.task.end(end)
            if end.adapter_id:
                self.table.select([end.adapter_id])

    def on_train(self) -> None:
        """Start."""
        with reporting():
            self.logic.startTraining()

    def on_rename(self, row_id: str, column: int, item: Any) -> None:
        """A person typed another name."""
        if column == NAME:
            with reporting():
                if item.text().strip():
                    self.logic.renameAdapter(row_id, item.text().strip())
                self.refresh()

    def on_load(self) -> None:
        """Add one from a file."""
        path = open_file(self.ui.adapterSection, _("Load an adapter"), FILES)
        if path:
            with reporting():
                adapter_id = self.logic.loadAdapter(path)
                self.refresh()
                self.table.select([adapter_id])

    def on_save(self) -> None:
        """Write one to a file."""
        row = self.selected()
        if row is None:
            return
        path = save_file(self.ui.adapterSection, _("Save the adapter"), f"{row.name}.fseft", FILES)
        if path:
            with reporting():
                self.logic.saveAdapter(row.id, path)

    def on_delete(self) -> None:
        """Delete after asking: what was trained can't be brought back."""
        row = self.selected()
        if row is None:
            return
        question = _("Delete the adapter {name} from the scene?").format(name=row.name)
        if agree(question, _("Delete an adapter")):
            with reporting():
                self.logic.deleteAdapter(row.id)


def _alike(row: AdapterRow, other: AdapterRow) -> bool:
    """Whether two adapters differ in their annotated volumes alone, as far as is known."""
    own = (row.structures, row.method, row.model_id, row.modality)
    return own == (other.structures, other.method, other.model_id, other.modality)


def adapter_cells(row: AdapterRow, methods: Mapping[str, str]) -> tuple[Cell, ...]:
    """One row of the list. ``methods``: their titles."""
    method = methods.get(row.method, row.method)
    tip = _(
        "{method}\nFoundation model: {model}\nModality: {modality}\nLearned from:\n{supports}"
    ).format(
        method=method,
        model=row.model_id,
        modality=row.modality,
        supports="\n".join(row.supports) or _("not known"),
    )
    sentences = expected_sentences(row.metadata)
    tip += "\n" + _("What to expect on a new volume:") + "\n"
    tip += "\n".join(f"{name}: {text}" if name else text for name, text in sentences.items())
    created = row.created.replace("T", " ")
    structures = ", ".join(expected_cells(row.metadata)) or ", ".join(row.structures)
    return (
        Cell(row.name, f"{row.name}\n{tip}", editable=True),
        Cell(structures, tip + "\n" + ", ".join(row.structures)),
        Cell(str(len(row.supports)), tip),
        Cell(created[5:16], tip + "\n" + created),
    )
