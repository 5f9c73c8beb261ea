"""``demo``: the whole job on a folder or on synthetic patients."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ...core.events import EventSink
from .common import make_runtime, say


def demo_command(args: argparse.Namespace, sink: EventSink) -> int:
    """Run the demo; it says its warnings below its table."""
    from ...core.options import AdaptOptions, shared_fields
    from ..demo import run_demo

    def without_warnings(event: dict[str, Any]) -> None:
        """The demo says those itself, below its table."""
        if event["event"] != "warning":
            sink(event)

    run_demo(
        Path(args.out),
        Path(args.data) if args.data else None,
        args.supports,
        AdaptOptions(**shared_fields(AdaptOptions, args)),
        runtime=make_runtime(args, sink if args.events else without_warnings),
        say=lambda text: say(args, text),
    )
    return 0
