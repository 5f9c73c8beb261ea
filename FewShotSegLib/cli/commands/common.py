"""What several commands share: text for people, signals, and flags that they have in common."""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ...core.errors import InputError
from ...core.events import EventSink
from ...core.plain_text import printable
from ...core.sparse import AUTO

if TYPE_CHECKING:
    from ...core.options import AdaptOptions, SegmentOptions
    from ...pipeline.runtime import Runtime


def speaks() -> bool:
    """Whether this is the only process, or the first of those that ``torchrun`` started."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


def say(args: argparse.Namespace, text: str) -> None:
    """Text for a person; with ``--events`` standard output is for programs alone."""
    if not args.events and speaks():
        print(printable(text), flush=True)


def _stop(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


@contextmanager
def signals(handler: Callable[[int, Any], None] = _stop) -> Iterator[None]:
    """A polite kill stops the work as Ctrl-C does, wherever it is; files are replaced atomically.

    Ctrl-C is armed anew because shells let background jobs ignore it.
    """
    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            before[number] = signal.signal(number, handler)
        except ValueError:  # not the main thread: its owner decides
            break
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def make_runtime(args: argparse.Namespace, sink: EventSink) -> Runtime:
    """Device, cache and events as the flags say."""
    from ...pipeline.runtime import Runtime

    return Runtime(args.device, args.cache, int(args.cache_size * 2**30), sink)


def adapt_options(args: argparse.Namespace) -> AdaptOptions:
    """What the flags of a training say."""
    from ...core.options import AdaptOptions, shared_fields
    from ...core.settings import TrainingSettings

    settings = shared_fields(TrainingSettings, args)
    given = shared_fields(AdaptOptions, args) | {"priors_ml": parse_priors(args.prior)}
    given["sparse"] = parse_sparse(args.sparse)
    return AdaptOptions.of(**given, **settings)


def segment_options(args: argparse.Namespace) -> SegmentOptions:
    """What the flags of a segmentation say."""
    from ...core.options import SegmentOptions, shared_fields
    from ...core.settings import RefinementSettings

    settings = shared_fields(RefinementSettings, args)
    given = shared_fields(SegmentOptions, args) | {"priors_ml": parse_priors(args.prior)}
    given["sparse"] = parse_sparse(args.sparse)
    return SegmentOptions.of(**given, **settings)


def parse_sparse(words: Sequence[str] | None) -> str | Sequence[str] | None:
    """What ``--sparse`` says, as the options take it; alone it is ``auto``."""
    if words is None:
        return None
    return words[0] if len(words) == 1 else list(words) or AUTO


def parse_priors(texts: Sequence[str]) -> dict[str, float | None]:
    """``NAME=ML`` and ``NAME=off`` by structure name."""
    priors: dict[str, float | None] = {}
    for text in texts:
        name, _, value = text.rpartition("=")
        try:
            priors[name.strip()] = None if value.strip() == "off" else float(value)
        except ValueError:
            name = ""
        if not name.strip():
            raise InputError(f"--prior {text}: write NAME=ML, such as liver=1500, or NAME=off.")
    return priors
