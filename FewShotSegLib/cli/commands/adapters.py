"""``adapt`` and ``inspect``: an adapter trained, and what one holds."""

from __future__ import annotations

import argparse
import itertools
import json
import os
from collections.abc import Mapping
from pathlib import Path
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
    if args.plot:
        _plot(args, data)
        sink(make_event("result", kind="curve", path=args.plot))
    sink(make_event("result", kind="metadata", path=args.file, metadata=data))
    text = json.dumps(data, indent=2) if args.json else adapter_text(data)
    say(args, f"{text}\n\n{args.plot}" if args.plot and not args.json else text)
    return 0


def _plot(args: argparse.Namespace, data: Mapping[str, Any]) -> None:
    """Draw an adapter's rounds.

    Raises:
        InputError: there is nothing to draw, or the picture can't have this name.
    """
    from ...core.colors import default_color
    from ...core.rounds import dice_by_supports
    from ...overlay.rounds_picture import draw_rounds
    from ...pipeline.inputs import require_no_input

    if not args.plot.lower().endswith((".png", ".svg")):
        raise InputError(f"--plot {args.plot}: let its name end with .png or .svg.")
    require_no_input(args.plot, [args.file])
    curves = dice_by_supports([data])
    if not any(len(points) > 1 for points in curves.values()):
        raise InputError(
            f"There is nothing to plot: {args.file} has no rounds with different numbers of "
            "supports whose Dice to expect was measured. 'adapt --continue' adds a round."
        )
    colors = {
        structure["name"]: tuple(structure.get("color") or default_color(structure["value"]))
        for structure in data["structures"]
    }
    draw_rounds(curves, colors, Path(args.plot))
