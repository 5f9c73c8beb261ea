"""The loader of .ui files, which knows the doubles and refuses any other class."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import ctk
import mrml_widgets
import qt
from PySide6 import QtUiTools

DOUBLES = {
    cls.__name__: cls
    for cls in (
        ctk.ctkCollapsibleButton,
        ctk.ctkCollapsibleGroupBox,
        mrml_widgets.qMRMLWidget,
        mrml_widgets.qMRMLNodeComboBox,
    )
}


class QUiLoader(QtUiTools.QUiLoader):
    """Builds the widgets of a file, and makes its connections in Python, as doubles need."""

    def createWidget(self, name: str, parent: qt.QWidget | None = None, called: str = "") -> object:
        if name in DOUBLES:
            widget = DOUBLES[name](parent)
            widget.setObjectName(called)
            return widget
        if name not in self.availableWidgets():
            raise ValueError(f"There is no double of {name}, which the .ui file uses.")
        return super().createWidget(name, parent, called)

    def load(self, file: qt.QFile) -> qt.QWidget:
        root = ElementTree.fromstring(bytes(file.readAll()))
        connections = root.find("connections")
        wanted = [] if connections is None else list(connections)
        for connection in wanted:
            connections.remove(connection)
        buffer = qt.QBuffer()
        buffer.setData(qt.QByteArray(ElementTree.tostring(root)))
        buffer.open(qt.QBuffer.ReadOnly)
        widget = super().load(buffer)
        if widget is None:
            raise RuntimeError(self.errorString())
        named = {child.name: child for child in [widget, *widget.findChildren(qt.QWidget)]}
        for connection in wanted:
            sender, receiver = (named[connection.findtext(k)] for k in ("sender", "receiver"))
            slot = getattr(receiver, connection.findtext("slot").split("(")[0])
            sender.connect(connection.findtext("signal"), slot)
        return widget
