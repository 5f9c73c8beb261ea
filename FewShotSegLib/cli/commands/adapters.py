"""``adapt`` and ``inspect``: an adapter trained, and what one holds."""

from __future__ import annotations

import argparse
import itertools
import json
import os
from typing import Any

from ...core.errors import InputError
from ...core.events import EventSink, make_event
from .common import adapt_options, make_runtime, say


def adapt_command(args: argparse.Namespace, sink: EventSink) -> int:
    """Train an adapter and tell of it."""
    from ...pipeline import adapt
    from ..describe import adapter_text

    def listen(event: dict[str, Any]) -> None:
        args.complete |= event["event"] == "result"
        sink(event)

    if args.out is None and args.continue_from is None:
        raise InputError("Say --out NAME.fseft, the adapter file to write.")
    args.out = args.out or next_name(args.continue_from)
    args.complete = False  # what a stop from now on leaves, for its message
    trained = adapt(
        [tuple(pair) for pair in args.support],
        args.out,
        adapt_options(args),
        query=args.query,
        resume=args.resume,
        continue_from=args.continue_from,
        runtime=make_runtime(args, listen),
    )
    say(args, adapter_text(trained.metadata()) + f"\n\n{args.out}")
    return 0


def next_name(path: str) -> str:
    """Where an adapter that is gone on with is written: ``NAME-2.fseft``, then ``NAME-3.fseft``;
    the first that is not there, so that none is lost."""
    from ...core.adapter_header import EXTENSION

    stem = path.removesuffix(EXTENSION)
    name, dash, number = stem.rpartition("-")
    first = 2
    if dash and number.isdecimal():
        stem, first = name, int(number) + 1
    return next(
        found
        for count in itertools.count(first)
        if not os.path.lexists(found := f"{stem}-{count}{EXTENSION}")
    )


def inspect_command(args: argparse.Namespace, sink: EventSink) -> int:
    """Tell what an adapter file holds."""
    from ...core.adapter_header import read_metadata
    from ..describe import adapter_text

    data = read_metadata(args.file)
    sink(make_event("result", kind="metadata", path=args.file, metadata=data))
    say(args, json.dumps(data, indent=2) if args.json else adapter_text(data))
    return 0
