"""What the engine says while it works: one dictionary an event, one JSON line each on stdout.

Every event has ``"event"`` (its kind) and ``"time"`` (seconds since the epoch). Kinds:

==============  ===============================================================================
``started``     ``command``, ``version``, ``pid``
``phase``       ``phase`` (``read``, ``features``, ``train``, ``validate``, ``companion``,
                ``refine``, ``segment``, ``write``, ``prepare``, ``pretrain``, ``benchmark``,
                ``download``, ``import``, ``add``, ``volumes``, ``compare``),
                ``total`` (steps or bytes, or null) and, where it helps, ``subject``
``progress``    ``phase``, ``done``, ``total``
``model``       the foundation model was chosen by the images' ``modality``: its ``id``
``estimate``    long work begins, and its first step was timed: ``phase`` (``features``),
                ``seconds`` from now on, ``windows`` and ``window_seconds``, ``volumes``, ``bytes``
                of cache, ``device`` (``cpu``, ``cuda``)
``workload``    a benchmark is about to run: ``phase`` (``benchmark``), ``cells`` and ``queries``,
                ``cells_done`` and ``queries_done`` of them, and ``remaining``, by method:
                ``method``, ``cells``, ``queries``, ``seconds`` (or null), ``basis`` (``run``: timed
                in this run, ``rows``: by the times in earlier rows, or null)
``cell``        one training of a benchmark and its queries are done: ``phase``, ``method``,
                ``task``, ``shots``, ``draw``, ``mean_dice`` and, with transduction,
                ``mean_dice_ti``, ``seconds``, ``remaining``
``epoch``       one epoch of training or refinement: ``phase``, ``epoch``, ``epochs``, ``loss`` and
                its terms, and with transduction ``sizes_ml`` against ``bounds_ml`` by structure
                (a refinement without supports goes through the implausible ones one by one);
                of pre-training some hundred steps, with ``step`` of ``steps`` and, where it was
                validated, ``dice`` by class and ``mean_dice``
``waiting``     ``message``: another process does this work, or holds what is needed for it, for two
                seconds now; the work goes on when that has ended. ``phase`` as above
``warning``     ``message``: something a person should know; the work goes on
``result``      ``path`` of a file that is now complete, ``kind`` (``adapter``, ``segmentation``,
                ``probability``, ``report``, ``overlay``, ``model``, ``weights``, ``curve``,
                ``job``, ``plan``, ``benchmark``, and ``row`` with one ``row`` of a benchmark); and
                what a command says without a file (``path`` is null): ``evaluation``, ``models``,
                ``metadata``; or with a table of its own, or none: ``suggestions``
``heartbeat``   a background job is alive: it holds ``memory_bytes``, and the computer has
                ``available_bytes`` left of its ``total_bytes``; missing where not known
``finished``    the command succeeded; ``seconds``
``failed``      ``message``, ``kind`` (the error's class); nothing follows
``cancelled``   ``message``; nothing follows
==============  ===============================================================================

This module imports the standard library and ``errors`` alone, so that both sides of the process
boundary can share it before torch is installed.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from typing import IO, Any

from .errors import InputError

EventSink = Callable[[dict[str, Any]], None]
"""Takes one event. Sinks never raise for an event they don't know."""


def make_event(kind: str, /, **fields: Any) -> dict[str, Any]:
    """An event of a kind, stamped with the time."""
    return {"event": kind, "time": round(time.time(), 3), **fields}


def ignore(event: dict[str, Any]) -> None:
    """The sink of callers who don't listen."""


def event_line(event: Mapping[str, Any]) -> str:
    """An event as one line of JSON, its end included.

    Raises:
        InputError: a number of it has no JSON form, which NaN and infinity don't.
    """
    try:
        return json.dumps(event, allow_nan=False) + "\n"
    except ValueError as error:
        where = " and ".join(_not_finite(event)) or event["event"]
        raise InputError(
            f"The work came to a value that is no finite number ({where}), so that it was stopped. "
            "Check the intensities of the images, or use a smaller learning rate."
        ) from error


def json_lines(stream: IO[str]) -> EventSink:
    """A sink that writes each event as one line of JSON and flushes it.

    Raises:
        InputError: see :func:`event_line`.
    """

    def write(event: dict[str, Any]) -> None:
        stream.write(event_line(event))
        stream.flush()

    return write


def _not_finite(value: Any, name: str = "") -> list[str]:
    """Where in an event numbers are that JSON has not, such as ``epoch: loss``."""
    if isinstance(value, float):
        return [] if math.isfinite(value) else [name]
    if isinstance(value, Mapping):
        items = [(str(key), part) for key, part in value.items()]
        kind = value.get("event")
        name = name or (str(kind) if kind else "")
    elif isinstance(value, (list, tuple)):
        items = [(str(number), part) for number, part in enumerate(value)]
    else:
        return []
    return [
        found for key, part in items for found in _not_finite(part, f"{name}: {key}".lstrip(": "))
    ]
