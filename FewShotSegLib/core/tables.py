"""Tables: aligned for a terminal, as Markdown, or as CSV."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .atomic import replacing


def text_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], right: str = "", footers: int = 0
) -> str:
    """A header, a rule and rows, each column as wide as it needs.

    Args:
        right: one character a column, ``>`` for flush right; others are flush left.
        footers: how many of the last rows (means, sums) a second rule sets apart.

    Returns:
        lines without spaces at their ends and without a final newline.
    """
    widths = [max(len(row[n]) for row in [header, *rows]) for n in range(len(header))]
    flags = right.ljust(len(header))
    rule = ["-" * width for width in widths]
    body, last = rows[: len(rows) - footers], rows[len(rows) - footers :]
    lines = []
    for row in [header, rule, *body, *([rule] if last else []), *last]:
        cells = [
            cell.rjust(width) if flag == ">" else cell.ljust(width)
            for cell, width, flag in zip(row, widths, flags, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: str = "") -> str:
    """The same as Markdown. Cells are taken as they are: see ``plain_text.markdown``."""
    rule = ["---:" if flag == ">" else "---" for flag in right.ljust(len(header))]
    lines = [f"| {' | '.join(row)} |" for row in (header, *rows)]
    return "\n".join([lines[0], f"|{'|'.join(rule)}|", *lines[1:]])


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """A header and rows; what a row lacks, or has as None, is empty."""
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def write_csv(
    path: str | os.PathLike[str], columns: Sequence[str], rows: Iterable[Mapping[str, Any]]
) -> None:
    """Write :func:`csv_text` for a spreadsheet.

    Raises:
        StorageError: it can't be written.
    """
    with replacing(path) as partial:
        # With its mark spreadsheets know that it is UTF-8.
        partial.write_text(csv_text(columns, rows), encoding="utf-8-sig")
