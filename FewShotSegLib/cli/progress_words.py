"""Events as sentences: what long work says of its time, and a benchmark of its cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..core.quantities import duration_text

Remaining = Sequence[Mapping[str, Any]]
_BASES = {
    "run": "measured in this run",
    "rows": "by the times in its earlier rows, features not counted",
}


def estimate_text(event: Mapping[str, Any]) -> str:
    """An ``estimate`` event: what the foundation model will take, once its first step was timed."""
    on = "this CPU" if event["device"] == "cpu" else "this GPU"
    volumes = "1 volume" if event["volumes"] == 1 else f"{event['volumes']} volumes"
    return (
        f"The foundation model needs about {duration_text(event['seconds'])} for "
        f"{event['windows']} windows of {volumes} on {on}, {event['window_seconds']:.1f} s "
        "each. That is once: the features are cached."
    )


def workload_text(event: Mapping[str, Any]) -> str:
    """A ``workload`` event: what is there and what is to be run, and how long where it is known."""
    cells, queries = event["cells"], event["queries"]
    if not cells:
        return "There is nothing to run."
    done = f"{_cells(event['cells_done'])}, {_queries(event['queries_done'])} are there already"
    if event["queries_done"] == queries:
        done = "all are there already"
    text = f"{_cells(cells)} (method x shots x draw x task) with {_queries(queries)}: {done}"
    if not event["remaining"]:
        return f"{text}."
    left = f"{_cells(cells - event['cells_done'])}, {_queries(queries - event['queries_done'])}"
    return f"{text}; {left} are to be run.\n{remaining_text(event['remaining'])}"


def cell_text(event: Mapping[str, Any]) -> str:
    """A ``cell`` event as one line: which, its mean Dice, its time, and what is left."""
    scores = "mean Dice " + _dice(event["mean_dice"])
    if "mean_dice_ti" in event:
        scores += f", with transduction {_dice(event['mean_dice_ti'])}"
    shots = "1 shot" if event["shots"] == 1 else f"{event['shots']} shots"
    return (
        f"{event['method']}, {event['task']}, {shots}, draw {event['draw']}: {scores}, "
        f"{duration_text(event['seconds'])}; {left_text(event['remaining'])}"
    )


def remaining_text(remaining: Remaining) -> str:
    """The estimate of every method, a line each, with what it rests on."""
    width = max((len(part["method"]) for part in remaining), default=0)
    lines = ["Still to be run:"]
    for part in remaining:
        time = "time not known before its first cell"
        if part["basis"]:
            time = f"about {duration_text(part['seconds'])} ({_BASES[part['basis']]})"
        lines.append(f"  {part['method']:<{width}}  {_cells(part['cells'])}, {time}")
    return "\n".join(lines)


def left_text(remaining: Remaining) -> str:
    """The time of all that is left, in a few words; what isn't known is never taken for nothing."""
    if not remaining:
        return "that was the last"
    known = [part["seconds"] for part in remaining if part["basis"]]
    unknown = [part["method"] for part in remaining if not part["basis"]]
    if not known:
        return "time to go not known yet"
    time = f"about {duration_text(sum(known))} to go"
    return f"{time}, and {', '.join(unknown)} not known yet" if unknown else time


def _cells(count: int) -> str:
    return "1 cell" if count == 1 else f"{count} cells"


def _queries(count: int) -> str:
    return "1 query" if count == 1 else f"{count} queries"


def _dice(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
