"""The few questions that need a dialog of Qt: a file, a folder, a colour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import qt


def open_file(parent: Any, title: str, filters: str) -> str:
    """Path of a file to read; empty if the person thought better of it."""
    return qt.QFileDialog.getOpenFileName(parent, title, "", filters)


def save_file(parent: Any, title: str, name: str, filters: str) -> str:
    """Path of a file to write; empty if the person thought better of it."""
    return qt.QFileDialog.getSaveFileName(parent, title, name, filters)


def choose_folder(parent: Any, title: str) -> str:
    """Path of a folder; empty if the person thought better of it."""
    return qt.QFileDialog.getExistingDirectory(parent, title, "")


def ask_text(parent: Any, title: str, question: str, proposal: str) -> str:
    """A line of text; empty if the person thought better of it."""
    return qt.QInputDialog.getText(parent, title, question, qt.QLineEdit.Normal, proposal)


def choose_color(parent: Any, color: Sequence[float]) -> tuple[float, float, float] | None:
    """Red, green and blue in 0..1; None if the person thought better of it."""
    chosen = qt.QColorDialog.getColor(qt.QColor(*(round(255 * value) for value in color)), parent)
    if not chosen.isValid():
        return None
    return chosen.red() / 255, chosen.green() / 255, chosen.blue() / 255
