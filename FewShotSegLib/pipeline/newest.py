"""Which of the results in a folder count: the newest of each volume."""

from __future__ import annotations

from collections.abc import Container, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from ..core.result_formats import volume_name


def newest_results(
    folder: Path, reports: Mapping[str, Mapping[str, Any]], this_run: Container[str] = ()
) -> dict[str, Mapping[str, Any]]:
    """One result a volume, where it was segmented again in another format or by another adapter.

    That of this run; else the one that was made last, of those whose file is still there. The
    others stay in the folder, and in its ``report.json``.

    Args:
        reports: by result file name, as :func:`.report.read_reports` gives them.
        this_run: the names of this run's result files.

    Returns:
        those of the reports that count, in their order.
    """
    best: dict[str, tuple[tuple[bool, bool, float], str]] = {}
    for name, report in reports.items():
        found = ((name in this_run, *_made(folder / name, report)), name)
        volume = volume_name(name)
        if volume not in best or found[0] >= best[volume][0]:
            best[volume] = found
    chosen = {name for _, name in best.values()}
    return {name: report for name, report in reports.items() if name in chosen}


def _made(path: Path, report: Mapping[str, Any]) -> tuple[bool, float]:
    """Whether a result is there, and when it was made, in seconds: by its report, by its file where
    the report is of before reports had a time."""
    written = None
    with suppress(OSError, ValueError):
        written = path.stat().st_mtime
    made = written or 0.0
    with suppress(KeyError, TypeError, ValueError):
        made = datetime.fromisoformat(report["time"]).timestamp()
    return written is not None, made
