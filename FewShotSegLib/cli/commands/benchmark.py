"""``benchmark``: a plan written, run or drawn."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from ...core.atomic import write_json
from ...core.errors import InputError
from ...core.events import EventSink, make_event
from .common import make_runtime, say


def benchmark_command(args: argparse.Namespace, sink: EventSink) -> int:
    """Write a plan, or run one and draw what is known."""
    from ...evaluation.benchmark.cells import Models, cells, unsuited
    from ...evaluation.benchmark.plan import draw_plan, part_of, read_plan
    from ...evaluation.benchmark.render import render
    from ...evaluation.benchmark.results import NAME, Results
    from ...evaluation.benchmark.run import run_benchmark

    if args.new:
        if os.path.exists(args.plan):
            raise InputError(f"{args.plan} is there already; give the new plan another name.")
        plan = draw_plan(args.new, args.structures, model=args.model)
        write_json(args.plan, plan)
        sink(make_event("result", kind="plan", path=args.plan))
        queries = sum(len(draw["queries"]) for task in plan["tasks"] for draw in task["draws"])
        times = len(plan["methods"]) * len(plan["shots"])
        say(
            args,
            f"{args.plan}\n{plan['model']}, {len(plan['methods'])} methods at {len(plan['shots'])} "
            f"numbers of supports: {times * queries} queries. The cases that the model was "
            "pre-trained on are not known here; its card may name them. Leave them out.\n"
            "Read it, change what you like, and run it without --new.",
        )
        return 0
    out = Path(args.out or Path(args.plan).with_suffix(""))
    plan = read_plan(args.plan, args.data)
    results, models = Results(out / NAME), Models(out / "untrained")
    everything = list(cells(plan, models))
    part = part_of(plan, args.methods or (), _shots(args.shots), args.tasks or ())
    now = [cell for cell in cells(part, models) if cell.suited]
    problems, failed = unsuited(part, models), []
    try:
        if not args.render:
            for sentence in problems:
                sink(make_event("warning", message=sentence))
            failed = run_benchmark(
                plan, results, now, models, problems, args.minutes, make_runtime(args, sink)
            )
    finally:
        # What is known by now is worth its table however the run ended.
        text, paths = render(plan, everything, results, out, problems)
        for path in paths:
            sink(make_event("result", kind="benchmark", path=str(path)))
        say(args, f"{text}\n{out}")
    if failed:
        raise InputError(f"{len(failed)} could not be run, the rest was:\n  " + "\n  ".join(failed))
    return 0


def _shots(texts: Sequence[str] | None) -> list[int | str]:
    return [int(text) if text.isdigit() else text for text in texts or ()]
