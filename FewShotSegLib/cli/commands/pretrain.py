"""``pretrain``: a foundation model of one's own."""

from __future__ import annotations

import argparse
from typing import Any

from ...core.events import EventSink
from .common import say, signals


def pretrain_command(args: argparse.Namespace, sink: EventSink) -> int:
    """Pre-train, until it is done or a signal asks to stop."""
    from ...compute.parallel import on_threads
    from ...pipeline.runtime import Runtime
    from ...pretraining.run import pretrain

    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        """The step at hand is finished and its state kept; a second signal insists."""
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    with signals(ask), on_threads(args.threads):
        result = pretrain(
            args.assembly,
            args.out,
            data=args.data,
            steps=args.steps,
            seed=args.seed,
            resume=args.resume,
            runtime=Runtime(args.device, events=sink, cancel=lambda: bool(asked)),
        )
    dice: dict[str, float] = next((r["dice"] for r in reversed(result.history) if "dice" in r), {})
    lines = [f"{name}: Dice {value:.3f} on held-out cases" for name, value in dice.items()]
    say(args, "\n".join([*lines, str(result.entry)]))
    return 0
