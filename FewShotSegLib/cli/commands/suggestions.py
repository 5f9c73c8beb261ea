"""``suggest``: which volumes to annotate next."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.atomic import require_writable
from ...core.errors import InputError
from ...core.events import EventSink, make_event
from .common import make_runtime, say

if TYPE_CHECKING:
    from ...pipeline.suggestions import Suggestion, Suggestions


def suggest_command(args: argparse.Namespace, sink: EventSink) -> int:
    """Rank volumes; one that can't be used costs no other.

    Raises:
        InputError: some can't be used; the others are ranked.
    """
    from ...io.queries import find_queries
    from ...pipeline import suggest
    from ...pipeline.inputs import require_no_input

    found, known = find_queries(args.volume), find_queries(args.annotated)
    if args.csv:
        files = [one.query for one in (*found, *known) if not Path(one.query).is_dir()]
        require_no_input(args.csv, [*files, args.adapter])
        require_writable(args.csv)
    result = suggest(
        found,
        args.adapter,
        annotated=known,
        model=args.model,
        modality=args.modality,
        intensity_offset=args.intensity_offset,
        runtime=make_runtime(args, sink),
    )
    if args.csv:
        result.write_table(args.csv)
    data = [
        {
            "name": one.name,
            "path": path_of(one),
            "reasons": list(one.reasons),
            "stands_for": list(one.stands_for),
            "distance": one.distance,
            "dice": one.dice,
            "structure": one.structure,
            "verdict": one.verdict,
        }
        for one in result
    ]
    sink(make_event("result", kind="suggestions", path=args.csv, suggestions=data))
    say(args, suggestions_text(result, args.most, args.csv))
    if result.failed:
        # Most reasons begin with the file's path.
        texts = [
            one.why if one.name in one.why else f"{one.name}: {one.why}" for one in result.failed
        ]
        lines = "\n".join(f"  {text}" for text in texts)
        total = len(found) + len(known)
        raise InputError(f"{len(result.failed)} of {total} volumes can't be used:\n{lines}")
    return 0


def path_of(one: Suggestion) -> str | None:
    """Where a volume is; None for one in memory."""
    return os.fspath(one.query) if isinstance(one.query, (str, os.PathLike)) else None


def suggestions_text(result: Suggestions, most: int, csv: str | None) -> str:
    """The first of them as a table, and what was left out.

    Args:
        most: rows of it. csv: where all of it was written, if anywhere.
    """
    from ...core.tables import text_table

    judged = any(one.dice is not None for one in result)
    rows: list[list[str]] = []
    for one in result[:most]:
        dice = ["-" if one.dice is None else f"{one.dice:.2f}"] if judged else []
        rows.append([str(one.place), one.name, *dice, "; ".join(one.reasons)])
    header = ["", "annotate next", *(["expected Dice"] if judged else []), "reason"]
    lines = [text_table(header, rows, "> >" if judged else ">")] if rows else []
    if len(result) > most:
        where = f"in {csv}" if csv else "with --most or --csv"
        lines.append(f"({len(result) - most} more {where})")
    lines += [f"{one.name} is left out. {one.why}" for one in result.left_out if not one.failed]
    if not rows:
        lines.append("There is nothing to annotate.")
    return "\n".join(lines)
