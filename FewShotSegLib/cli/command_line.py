"""The ``fewshotseg`` command. Its names and flags are a contract with other programs.

Here is what all commands share from start to exit status; what each does is in ``commands``.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress

from .. import __version__
from ..compute.allocation import keep_freed_memory
from ..core.errors import Cancelled, FewShotSegError, in_words, is_out_of_memory
from ..core.events import EventSink, ignore, json_lines, make_event
from ..core.plain_text import indented
from ..core.plugins import plugin_remarks
from ..core.requirements import Outdated, outdated_packages
from .commands import COMMANDS
from .commands.common import signals, speaks
from .flags import build_parser

FAILED = 2
"""Exit status of every failure that the user can act on; the reason is one sentence on stderr."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status.

    Args:
        argv: without the program's name; those of the process where not given.
    """
    start = time.monotonic()
    # OpenMP threads that spin while they wait make training several times slower as soon as
    # another program wants a core. It must be said before torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_freed_memory()
    _prepare_streams()
    args = build_parser(COMMANDS).parse_args(argv)
    sink: EventSink = ignore
    try:
        sink = _sink(args)
        sink(make_event("started", command=args.command, version=__version__, pid=os.getpid()))
        for old in outdated_packages():
            sink(make_event("warning", message=f"{old} {_update(old)}"))
        for remark in plugin_remarks():
            sink(make_event("warning", message=remark))
        with signals(), getattr(sink, "apart", nullcontext)():
            status = args.run(args, sink)
        sink(make_event("finished", seconds=round(time.monotonic() - start, 2)))
        return status
    except Cancelled as error:
        return _fail(error if args.command == "download" else _stopped(args), "cancelled", sink)
    except KeyboardInterrupt:
        return _fail(_stopped(args), "cancelled", sink)
    except FewShotSegError as error:
        return _fail(error, "failed", sink)
    except BrokenPipeError:
        _forget_stdout()
        return FAILED
    except Exception as error:
        if is_out_of_memory(error) or isinstance(error, OSError):
            return _fail(in_words(error), "failed", sink)
        sink(make_event("failed", message=str(error), kind=type(error).__name__))
        raise


def _prepare_streams() -> None:
    """Standard output and error that take whatever is written."""
    for name in ("stdout", "stderr"):  # whoever closed them wants to hear nothing
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name need not fit a terminal's code page
            stream.reconfigure(errors="backslashreplace")


def _sink(args: argparse.Namespace) -> EventSink:
    if not speaks():
        return ignore
    if args.events:
        return json_lines(sys.stdout)
    from .progress import Progress

    return Progress(sys.stderr)


def _update(old: Outdated) -> str:
    return f'It stays until you update it: python -m pip install --upgrade "{old.requirement}"'


def _fail(error: Exception, kind: str, sink: EventSink) -> int:
    try:
        sink(make_event(kind, message=str(error), kind=type(error).__name__))
        sys.stdout.flush()
    except OSError:  # nobody reads it, or the disk that it goes to is full
        _forget_stdout()
    with suppress(OSError):
        print(f"fewshotseg: {indented(str(error))}", file=sys.stderr, flush=True)
    return FAILED


def _forget_stdout() -> None:
    """The reader of our output went away; Python would complain once more when it flushes."""
    with suppress(OSError, ValueError):  # no real file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _stopped(args: argparse.Namespace) -> Cancelled:
    """What is left after an interruption, and how to go on."""
    if args.command == "download":
        return Cancelled("Stopped; the same command goes on from what has come.")
    if getattr(args, "complete", False):
        return Cancelled(
            f"Stopped; the adapter {args.out} is complete. What to expect of it was not measured."
        )
    if args.command == "adapt" and os.path.exists(f"{args.out}.partial"):
        return Cancelled(
            "Stopped; the same command with --resume goes on from the last checkpoint "
            f"({args.out}.partial)."
        )
    return Cancelled("Stopped; nothing is half written, and what was complete before stays.")
