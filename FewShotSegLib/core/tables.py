"""Tables as text: aligned for a terminal, or as Markdown."""

from __future__ import annotations

from collections.abc import Sequence


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
