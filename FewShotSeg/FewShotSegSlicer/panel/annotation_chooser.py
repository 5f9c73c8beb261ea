"""Which annotation is a volume's, where the scene does not tell: a person chooses."""

from __future__ import annotations

from collections.abc import Sequence

import qt
from slicer.i18n import tr as _

from FewShotSegLib.core.plain_text import printable

from ..interface.protocol import LogicProtocol
from ..interface.rows import SupportRow
from ..messages import tooltip
from .tools import breakable, current_id, fill_combo, reporting

ASK, NEW = "ask", "new"
"""Entries that are no annotation of the scene: none chosen yet, and one to be drawn."""


class AnnotationChooser:
    """A line with a question and a combo box; it takes no space while nothing is to be chosen.

    ``widget`` can be placed into any layout; :meth:`refresh` is to be called with the rows of the
    support set, and whichever of them is selected.
    """

    def __init__(self, logic: LogicProtocol) -> None:
        self.logic = logic
        self.row_id = ""
        self.widget = qt.QWidget()
        self.widget.setObjectName("annotationChooser")
        layout = qt.QVBoxLayout(self.widget)
        layout.setContentsMargins(0, 0, 0, 0)
        self.label = qt.QLabel()
        self.label.setObjectName("annotationLabel")
        self.label.setTextFormat(qt.Qt.PlainText)
        # Before it wraps, which gives the policy a height for each width.
        self.label.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Minimum)
        self.label.setWordWrap(True)
        self.combo = qt.QComboBox()
        self.combo.setObjectName("annotationCombo")
        self.combo.setMinimumWidth(0)
        self.combo.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Fixed)
        self.combo.setAccessibleName(_("Annotation of the volume"))
        layout.addWidget(self.label)
        layout.addWidget(self.combo)
        self.combo.connect("activated(int)", self.on_choice)
        self.widget.setVisible(False)

    def refresh(self, rows: Sequence[SupportRow], selected: Sequence[str] = ()) -> None:
        """Ask for the first row that waits for a choice, a selected one before others."""
        waiting = [row for row in rows if row.state == "choose"]
        waiting.sort(key=lambda row: row.id not in selected)
        self.widget.setVisible(bool(waiting))
        if not waiting:
            self.row_id = ""
            return
        row = waiting[0]
        self.row_id = row.id
        text = _("Which annotation is of «{volume}»?").format(volume=row.volume_name)
        self.label.setText(breakable(printable(text, lines=False)))
        entries = [(ASK, _("Choose..."))]
        entries += [(choice.id, choice.title) for choice in row.choices]
        entries.append((NEW, _("None of these: draw a new one")))
        fill_combo(self.combo, entries, ASK)
        self.combo.setToolTip(tooltip(row.problem))

    def on_choice(self, _index: int = 0) -> None:
        """A person chose."""
        choice = current_id(self.combo)
        if choice == ASK or not self.row_id:
            return
        with reporting():
            self.logic.chooseAnnotation(self.row_id, "" if choice == NEW else choice)
