"""Text on the panel: what a file says is shown as it stands there, and never taken for HTML."""

from __future__ import annotations

import html
from typing import Any

import qt
import slicer

from FewShotSegLib.core.plain_text import printable


def make_plain(root: Any) -> None:
    """Let no label below a widget guess from its text whether that is HTML."""
    for label in slicer.util.findChildren(root, className="QLabel"):
        label.textFormat = qt.Qt.PlainText


def tooltip(text: str) -> str:
    """A tooltip that shows this text. Qt has no plain ones: what may look like HTML is quoted."""
    text = printable(text)
    if "<" not in text and "&lt;" not in text:
        return text
    return "<qt>" + html.escape(text, quote=False).replace("\n", "<br>") + "</qt>"


def tell(text: str) -> None:
    """Say something in a message box."""
    slicer.util.infoDisplay(printable(text), textFormat=qt.Qt.PlainText)


def tell_error(text: str, details: str = "") -> None:
    """Say what went wrong in a message box, with details for whoever wants to see them."""
    more = {"detailedText": printable(details)} if details else {}
    slicer.util.errorDisplay(printable(text), textFormat=qt.Qt.PlainText, **more)


def agree(text: str, title: str) -> bool:
    """Ask whether to go on."""
    return slicer.util.confirmOkCancelDisplay(printable(text), title, textFormat=qt.Qt.PlainText)
