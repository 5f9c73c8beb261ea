"""Text from files, for people to see: it says what it says, and does nothing else.

A name in a file may hold characters that move a terminal's cursor, turn the reading direction of
what follows or can't be seen at all, and marks of HTML or Markdown. Whatever is put before a person
goes through here where it leaves the program; data and result files keep what was read.
"""

from __future__ import annotations

import html
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence

_HALF = re.compile("[\ud800-\udfff]")


def printable(text: str, lines: bool = True) -> str:
    """The same text with every character that can't be seen written as its escape (``\\x1b``).

    These are control, format (bidirectional and zero-width), surrogate and private characters, and
    separators of lines and paragraphs. All letters, marks, signs and spaces stay.

    Args:
        lines: whether a line may end; a name has one line.
    """
    if text.isprintable():
        return text
    return "".join(
        char if _is_seen(char) or (lines and char == "\n") else _escaped(char) for char in text
    )


def path_text(path: str | os.PathLike[str]) -> str:
    """A path as text that any program can write: bytes that are no UTF-8 as ``\\xff``.

    The same characters that :func:`half_characters_shown` puts in their place.
    """
    return half_characters_shown(os.fspath(path)).replace("\0", "\\x00")


def half_characters_shown(text: str, mark: str = "\\") -> str:
    """The text with every half character (Python's form of a file name's odd byte) as an escape.

    Args:
        mark: what an escape begins with; two of them within a text of JSON.
    """
    return _HALF.sub(
        lambda half: (
            f"{mark}x{ord(half[0]) - 0xDC00:02x}"
            if 0xDC80 <= ord(half[0]) <= 0xDCFF
            else f"{mark}u{ord(half[0]):04x}"
        ),
        text,
    )


def sentence(error: Exception) -> str:
    """What an error says of a file's content, as part of another sentence: one line, without its
    full stop, and with no name of a whole page."""
    text = re.sub(r"'([^']{80})[^']{20,}'", r"'\1...'", str(error).rstrip("."))
    text = printable(text, lines=False)
    return text if len(text) <= 1000 else f"{text[:1000]}..."


def indented(text: str) -> str:
    """Such a message whose further lines can't be taken for lines of ours."""
    return printable(text).replace("\n", "\n  ")


def markdown(text: str) -> str:
    """The text as Markdown that shows just this, in a cell of a table too."""
    return html.escape(re.sub(r"([\\`*\[\]|])", r"\\\1", printable(text, lines=False)), quote=False)


def html_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table that a notebook shows, whatever is in its cells."""

    def line(cells: Sequence[str], tag: str) -> str:
        texts = (html.escape(printable(cell, lines=False)) for cell in cells)
        return "<tr>" + "".join(f"<{tag}>{text}</{tag}>" for text in texts) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<table><thead>{line(header, 'th')}</thead><tbody>{body}</tbody></table>"


def _is_seen(char: str) -> bool:
    return char.isprintable() or unicodedata.category(char) == "Zs"


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
