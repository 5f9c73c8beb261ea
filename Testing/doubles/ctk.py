"""Doubles of the ctk widgets that the panel uses: their properties, signals and about their looks.

They are strict: an attribute that the real widget lacks raises.
"""

from __future__ import annotations

from typing import Any

import qt


class _Collapsible:
    """Closing hides the children; what was hidden by hand in the meantime stays so on opening."""

    _collapsed = False
    _forcing = False

    def childEvent(self, event: Any) -> None:
        if event.added() and event.child().isWidgetType():
            event.child().installEventFilter(self)
        super().childEvent(event)

    def eventFilter(self, child: Any, event: Any) -> bool:
        if not self._forcing and event.type() in (qt.QEvent.ShowToParent, qt.QEvent.HideToParent):
            shown = event.type() == qt.QEvent.ShowToParent
            child.setProperty("visibilityToParent", shown)
            if shown and self._collapsed:
                self._show_child(child)
        return False

    def _show_child(self, child: Any) -> None:
        self._forcing = True
        wanted = child.property("visibilityToParent") is not False
        child.setVisible(wanted and not self._collapsed)
        if wanted:
            child.setAttribute(qt.Qt.WA_WState_ExplicitShowHide, False)
        self._forcing = False

    def _get_collapsed(self) -> bool:
        return self._collapsed

    def setCollapsed(self, collapsed: bool) -> None:
        if collapsed == self._collapsed:
            return
        self._collapsed = collapsed
        self.setMinimumHeight(self._header() if collapsed else 0)
        self.setMaximumHeight(self._header() if collapsed else 16777215)
        for child in self.children():
            if child.isWidgetType():
                self._show_child(child)


def _draw_header(widget: qt.QWidget, text: str, collapsed: bool, height: int) -> None:
    """A flat button with an arrow that points down where the contents show."""
    painter = qt.QPainter(widget)
    option = qt.QStyleOptionButton()
    option.initFrom(widget)
    option.rect = qt.QRect(0, 0, widget.width, height)
    widget.style().drawPrimitive(qt.QStyle.PE_PanelButtonCommand, option, painter, widget)
    arrow = qt.QStyle.PE_IndicatorArrowRight if collapsed else qt.QStyle.PE_IndicatorArrowDown
    option.rect = qt.QRect(5, (height - 10) // 2, 10, 10)
    widget.style().drawPrimitive(arrow, option, painter, widget)
    painter.setPen(widget.palette.color(qt.QPalette.ButtonText))
    area = qt.QRect(22, 0, widget.width - 28, height)
    shown = widget.fontMetrics().elidedText(text, qt.Qt.ElideRight, area.width())
    painter.drawText(area, qt.Qt.AlignVCenter | qt.Qt.AlignLeft, shown)
    painter.end()


class ctkCollapsibleButton(_Collapsible, qt.QWidget):
    """A section with a header that opens and closes it."""

    cpp_double = True
    contentsCollapsed = qt.Signal(bool)

    def __init__(self, parent: qt.QWidget | None = None) -> None:
        super().__init__(parent)
        self._text = ""
        self.setContentsMargins(0, self._header(), 0, 0)

    def _header(self) -> int:
        return self.fontMetrics().height() + 10

    def _title_size(self) -> Any:
        """What the header asks for: a long title makes the panel wider."""
        return qt.QSize(self.fontMetrics().horizontalAdvance(self._text) + 30, self._header())

    def sizeHint(self) -> Any:
        return super().sizeHint().expandedTo(self._title_size())

    def minimumSizeHint(self) -> Any:
        return super().minimumSizeHint().expandedTo(self._title_size())

    def _get_text(self) -> str:
        return self._text

    def setText(self, text: str) -> None:
        self._text = text
        self.updateGeometry()
        self.update()

    text = qt.Property(str, _get_text, setText)

    def setCollapsed(self, collapsed: bool) -> None:
        if collapsed != self._collapsed:
            super().setCollapsed(collapsed)
            self.contentsCollapsed.emit(collapsed)

    collapsed = qt.Property(bool, _Collapsible._get_collapsed, setCollapsed)

    def mousePressEvent(self, event: Any) -> None:
        if event.position().y() < self._header():
            self.setCollapsed(not self._collapsed)

    def paintEvent(self, event: Any) -> None:
        _draw_header(self, self._text, self._collapsed, self._header())


class ctkCollapsibleGroupBox(_Collapsible, qt.QGroupBox):
    """A group with a title that opens and closes it."""

    cpp_double = True

    def __init__(self, parent: qt.QWidget | None = None) -> None:
        super().__init__(parent)
        self.setContentsMargins(0, self._header(), 0, 0)

    def _header(self) -> int:
        return self.fontMetrics().height() + 6

    collapsed = qt.Property(bool, _Collapsible._get_collapsed, _Collapsible.setCollapsed)

    def mousePressEvent(self, event: Any) -> None:
        if event.position().y() < self._header():
            self.setCollapsed(not self._collapsed)

    def paintEvent(self, event: Any) -> None:
        painter = qt.QPainter(self)
        option = qt.QStyleOption()
        option.initFrom(self)
        arrow = (
            qt.QStyle.PE_IndicatorArrowRight if self._collapsed else qt.QStyle.PE_IndicatorArrowDown
        )
        option.rect = qt.QRect(2, (self._header() - 10) // 2, 10, 10)
        self.style().drawPrimitive(arrow, option, painter, self)
        painter.drawText(18, self.fontMetrics().ascent() + 3, self.title)
        painter.end()


class ctkMessageBox(qt.QMessageBox):
    """What slicer.util's displays open; a test that would wait for a person fails instead."""

    def exec_(self) -> int:
        raise AssertionError(f"a dialog would have waited for a person: {self.text}")
