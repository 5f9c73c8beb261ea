"""What the sections of the panel share: hints, gated buttons, tables, and errors in words."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import qt
from slicer.i18n import tr as _

from FewShotSegLib.core.errors import FewShotSegError
from FewShotSegLib.core.plain_text import printable

from ..interface.protocol import LogicProtocol
from ..messages import tell_error, tooltip
from .columns import Columns

MOST_LETTERS = 420
"""Of a hint; what is left out in the middle is in its tooltip."""
COMBO_LETTERS = 32
"""Of an entry in a combo box, which would cut it at its end."""
LONG_WORD = 40
"""Letters of a word, such as a path, from where on it may be broken anywhere."""
TITLE_PIXELS = 300


def elided(text: str, most: int) -> str:
    """A text with its middle left out where it has more letters than ``most``."""
    if len(text) <= most:
        return text
    end = (most - 1) // 2
    return f"{text[: most - 1 - end]}…{text[len(text) - end :]}"


def breakable(text: str) -> str:
    """A text whose long words Qt may break, so that none of them makes the panel wider."""

    def broken(word: re.Match[str]) -> str:
        parts = re.sub(r"([/\\_.-]+)(?=\w)", "\\1\u200b", word.group())
        return re.sub(rf"[^\u200b]{{{LONG_WORD}}}(?=[^\u200b])", "\\g<0>\u200b", parts)

    return re.sub(rf"\S{{{LONG_WORD + 1},}}", broken, text)


def section_title(section: Any, title: str, more: str = "") -> None:
    """Name a section and say how far it is; too long a text has its middle left out."""
    whole = f"{title}: {more}" if more else title
    metrics = section.fontMetrics()
    text = metrics.elidedText(printable(whole, False), qt.Qt.ElideMiddle, TITLE_PIXELS)
    if section.text != text:
        section.text = text
        section.setToolTip(tooltip(whole) if text != whole else "")


class Hint:
    """One sentence with a standard icon; takes no space while there is nothing to say."""

    ICONS = {
        "missing": qt.QStyle.SP_MessageBoxInformation,
        "warning": qt.QStyle.SP_MessageBoxWarning,
        "error": qt.QStyle.SP_MessageBoxCritical,
        "done": qt.QStyle.SP_DialogApplyButton,
    }

    def __init__(self, icon: Any, label: Any) -> None:
        self.icon, self.label, self.kind = icon, label, ""
        self._said: str | None = None
        self.show("")

    def show(self, text: str, kind: str = "missing") -> None:
        """Show a sentence; an empty one hides the hint."""
        if text and kind != self.kind:
            picture = self.label.style().standardIcon(self.ICONS[kind])
            self.icon.setPixmap(picture.pixmap(16, 16))
            self.kind = kind
        text = printable(text)
        if text != self._said:
            self._said = text
            short = elided(text, MOST_LETTERS)
            self.label.setText(breakable(short))
            self.label.setToolTip(tooltip(text) if short != text else "")
        self.icon.setVisible(bool(text))
        self.label.setVisible(bool(text))

    @property
    def text(self) -> str:
        """What is said, in full."""
        return self._said or ""


def gate(button: Any, obstacle: str, tip: str) -> None:
    """Enable a button unless something is in its way, which its tooltip then says."""
    button.setEnabled(not obstacle)
    button.setToolTip(tooltip(obstacle or tip))


def busy_with(logic: LogicProtocol) -> str:
    """Which task keeps a person from starting another; empty if none.

    Asking for devices doesn't: what a person starts goes first.
    """
    kind = logic.running()
    return "" if kind in (None, "devices") else kind


def busy_text(logic: LogicProtocol) -> str:
    """Why a button is off while a task runs; empty while none does."""
    return _("Wait until the running task has ended.") if busy_with(logic) else ""


@contextmanager
def reporting() -> Iterator[None]:
    """Show what goes wrong in words: the engine's errors as they are, others with their trace."""
    try:
        yield
    except FewShotSegError as error:
        tell_error(str(error))
    except Exception as error:
        tell_error(
            _("This went wrong inside FewShotSeg: {error}. Nothing of yours was changed.").format(
                error=error
            ),
            traceback.format_exc(),
        )


@dataclass(frozen=True)
class Cell:
    """One cell of a table. ``checked`` None: no check box. ``color``: a swatch before the text,
    ``mark``: a disc of this colour, ``icon``: a standard one."""

    text: str = ""
    tip: str = ""
    checked: bool | None = None
    color: tuple[float, float, float] | None = None
    mark: tuple[float, float, float] | None = None
    icon: int | None = None
    editable: bool = False
    bold: bool = False


def qcolor(color: Sequence[float]) -> Any:
    """A Qt colour of red, green, blue in 0..1."""
    return qt.QColor(*(round(255 * value) for value in color))


def disc(color: Sequence[float]) -> Any:
    """A small round mark; what is square is the colour of a structure."""
    picture = qt.QPixmap(14, 14)
    picture.fill(qt.QColor(0, 0, 0, 0))
    painter = qt.QPainter(picture)
    painter.setRenderHint(qt.QPainter.Antialiasing)
    painter.setPen(qt.QPen(qt.Qt.NoPen))
    painter.setBrush(qt.QBrush(qcolor(color)))
    painter.drawEllipse(1, 1, 12, 12)
    painter.end()
    return picture


def new_table(name: str, headers: Sequence[str], accessible: str) -> Any:
    """A table widget that a person reads and ticks, but does not write into."""
    table = qt.QTableWidget()
    table.setObjectName(name)
    table.setColumnCount(len(headers))
    table.setHorizontalHeaderLabels(list(headers))
    table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
    table.setAccessibleName(accessible)
    table.verticalHeader().setVisible(False)
    return table


class Table:
    """A table widget that is given rows, and changes no more than what differs.

    Items stay the same objects, so that an open editor and the selection survive a refresh.
    """

    def __init__(self, widget: Any, stretch: int, widths: dict[int, int], rows: int = 3) -> None:
        self.widget, self.least_rows = widget, rows
        self._filling = False
        self._shown: list[list[Cell]] = []
        self._ids: list[str] = []
        header = widget.horizontalHeader()
        header.setHighlightSections(False)
        header.setMinimumSectionSize(20)
        header.setDefaultAlignment(qt.Qt.AlignLeft | qt.Qt.AlignVCenter)
        self.columns = Columns(widget, stretch, widths)
        widget.verticalHeader().setDefaultSectionSize(22)
        widget.setHorizontalScrollBarPolicy(qt.Qt.ScrollBarAlwaysOff)
        self._fit()

    def on_edit(self, slot: Callable[[str, int, Any], None]) -> None:
        """Call ``slot(row_id, column, item)`` when a person changes a text or a check box."""

        def changed(item: Any) -> None:
            if not self._filling and item.row() < len(self._ids):
                slot(self._ids[item.row()], item.column(), item)

        self.widget.connect("itemChanged(QTableWidgetItem*)", changed)

    def fill(self, ids: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """Show these rows."""
        self._filling = True
        rows = [[replace(c, text=printable(c.text, lines=False)) for c in cells] for cells in rows]
        chosen = self.selected()
        same_rows = list(ids) == self._ids
        if self.widget.rowCount != len(rows):
            self.widget.setRowCount(len(rows))
        for r, cells in enumerate(rows):
            for c, cell in enumerate(cells):
                self._put(r, c, cell)
        self._ids, self._shown = list(ids), [list(cells) for cells in rows]
        self.columns.need([self._width_of(column) for column in range(self.widget.columnCount)])
        if not same_rows:
            self.select(chosen)
        self._fit()
        self._filling = False

    def again(self) -> None:
        """Show what the logic says once more, after an edit that it refused."""
        shown, self._shown = self._shown, []
        self.fill(self._ids, shown)

    def _put(self, row: int, column: int, cell: Cell) -> None:
        item = self.widget.item(row, column)
        if item is None:
            item = qt.QTableWidgetItem()
            self.widget.setItem(row, column, item)
        elif row < len(self._shown) and self._shown[row][column] == cell:
            if item.text() == cell.text and cell.checked is None:
                return
        flags = qt.Qt.ItemIsSelectable | qt.Qt.ItemIsEnabled
        if cell.editable:
            flags = flags | qt.Qt.ItemIsEditable
        if cell.checked is not None:
            flags = flags | qt.Qt.ItemIsUserCheckable
            item.setCheckState(qt.Qt.Checked if cell.checked else qt.Qt.Unchecked)
        item.setFlags(flags)
        item.setText(cell.text)
        item.setToolTip(tooltip(cell.tip or cell.text))
        if cell.color is not None:
            swatch = qt.QPixmap(14, 14)
            swatch.fill(qcolor(cell.color))
            item.setIcon(qt.QIcon(swatch))
        elif cell.mark is not None:
            item.setIcon(qt.QIcon(disc(cell.mark)))
        elif cell.icon is not None:
            item.setIcon(self.widget.style().standardIcon(cell.icon))
        else:
            item.setIcon(qt.QIcon())
        font = item.font()
        if font.bold() != cell.bold:
            font.setBold(cell.bold)
            item.setFont(font)

    def _width_of(self, column: int) -> float:
        """Pixels that the texts of a column take, with their boxes and swatches."""
        metrics = self.widget.fontMetrics()
        return max(
            (
                metrics.boundingRect(cell.text).width() * (1.1 if cell.bold else 1.0)
                + 22 * (cell.checked is not None)
                + 20 * any(part is not None for part in (cell.color, cell.mark, cell.icon))
                + 12
                for cell in (cells[column] for cells in self._shown)
            ),
            default=0,
        )

    def _fit(self) -> None:
        """Be as high as the rows, within reason: the panel is scrolled, its tables seldom."""
        rows = min(max(self.least_rows, self.widget.rowCount), 8)
        self.widget.setFixedHeight(22 * rows + self.widget.fontMetrics().height() + 12)

    def ids(self) -> list[str]:
        """Ids of all rows."""
        return list(self._ids)

    def selected(self) -> list[str]:
        """Ids of the selected rows."""
        found = []
        for row, row_id in enumerate(self._ids):
            item = self.widget.item(row, 0)
            if item is not None and item.isSelected():
                found.append(row_id)
        return found

    def select(self, ids: Sequence[str]) -> None:
        """Select these rows and no others."""
        for row, row_id in enumerate(self._ids):
            for column in range(self.widget.columnCount):
                item = self.widget.item(row, column)
                if item is not None:
                    item.setSelected(row_id in ids)


def fill_combo(
    combo: Any, entries: Sequence[tuple[str, str]], current: str, letters: int = COMBO_LETTERS
) -> None:
    """Offer (id, text) pairs in a combo box, one of them current; no signal is emitted.

    A long text has its middle left out; the whole is its tooltip.
    """
    whole = [printable(text, lines=False) for _entry_id, text in entries]
    entries = [
        (entry_id, elided(text, letters))
        for (entry_id, _text), text in zip(entries, whole, strict=True)
    ]
    combo.blockSignals(True)
    shown = [(combo.itemData(i), combo.itemText(i)) for i in range(combo.count)]
    if shown != entries:
        combo.clear()
        for index, (entry_id, text) in enumerate(entries):
            combo.addItem(text, entry_id)
            if whole[index] != text:
                combo.setItemData(index, tooltip(whole[index]), qt.Qt.ToolTipRole)
    ids = [entry_id for entry_id, _text in entries]
    combo.setCurrentIndex(ids.index(current) if current in ids else -1)
    combo.blockSignals(False)


def current_id(combo: Any) -> str:
    """Id of the current entry of such a combo box; empty where there is none."""
    index = combo.currentIndex
    return combo.itemData(index) if index >= 0 else ""
