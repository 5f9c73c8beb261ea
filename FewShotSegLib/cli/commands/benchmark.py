"""``benchmark``: a plan written, run or drawn."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ...compute.locks import only_one
from ...core.atomic import require_writable, write_json
from ...core.errors import FewShotSegError, InputError
from ...core.events import EventSink, make_event
from .common import make_runtime, say

if TYPE_CHECKING:
    from ...evaluation.benchmark.cells import Cell
    from ...evaluation.benchmark.results import Results
    from ...pipeline.runtime import Runtime

LOCK, UNTRAINED = ".benchmark.lock", "untrained"


def benchmark_command(args: argparse.Namespace, sink: EventSink) -> int:
    """Write a plan, or run one and draw what is known."""
    from ...evaluation.benchmark.cells import Models, cells, unsuited
    from ...evaluation.benchmark.export import CSV, LATEX
    from ...evaluation.benchmark.figure import PICTURE
    from ...evaluation.benchmark.plan import part_of, read_plan
    from ...evaluation.benchmark.plots import PICTURES
    from ...evaluation.benchmark.render import PAGE, render
    from ...evaluation.benchmark.results import NAME, Results
    from ...evaluation.benchmark.run import run_benchmark

    if args.new:
        return _write_new(args, sink)
    out = _out(args)
    plan = read_plan(args.plan, args.data)
    for task in plan.tasks:
        _require_apart_from(out, task.folder)
    part = part_of(plan, args.methods or (), args.shots or (), args.tasks or ())
    models = Models(out / UNTRAINED)
    everything = list(cells(plan, models))
    for name in (NAME, PAGE, CSV, LATEX, PICTURE, *PICTURES):
        require_writable(out / name)
    with only_one(out / LOCK, f"Another benchmark is running in {out}; choose another --out."):
        results = Results(out / NAME)
        now = [cell for cell in cells(part, models) if cell.suited]
        problems, failed = unsuited(part, models), []

        def show() -> None:
            text, paths = render(plan, everything, results, out, problems)
            for path in paths:
                sink(make_event("result", kind="benchmark", path=str(path)))
            say(args, f"{text}\n{out}")

        try:
            if not args.render:
                for sentence in problems:
                    sink(make_event("warning", message=sentence))
                runtime = make_runtime(args, sink)
                if args.dask is not None:
                    failed = _on_cluster(args, results, now, problems, runtime)
                else:
                    failed = run_benchmark(
                        plan, results, now, models, problems, args.minutes, runtime
                    )
        except BaseException:
            # What is known by now is worth its table however the run ended; how, is reported first.
            with suppress(FewShotSegError, OSError):
                show()
            raise
        show()
    if failed:
        raise InputError(f"{len(failed)} could not be run, the rest was:\n  " + "\n  ".join(failed))
    return 0


def _write_new(args: argparse.Namespace, sink: EventSink) -> int:
    """Write a plan for a folder."""
    from ...evaluation.benchmark.plan import draw_plan

    if os.path.exists(args.plan):
        raise InputError(f"{args.plan} is there already; give the new plan another name.")
    if args.out or Path(args.plan).suffix:
        _require_apart_from(_out(args), Path(args.new))
    drawn = draw_plan(args.new, args.structures, model=args.model)
    new = drawn.plan
    write_json(args.plan, new)
    sink(make_event("result", kind="plan", path=args.plan))
    queries = sum(len(draw["queries"]) for task in new["tasks"] for draw in task["draws"])
    times = len(new["methods"]) * len(new["shots"])
    say(
        args,
        "\n".join(
            [
                args.plan,
                f"{new['model']}, {len(new['methods'])} methods at {len(new['shots'])} numbers "
                f"of supports: {times * queries} queries.",
                *drawn.notes,
                "Read it, change what you like, and run it without --new.",
            ]
        ),
    )
    return 0


def _on_cluster(
    args: argparse.Namespace,
    results: Results,
    now: Sequence[Cell],
    problems: list[str],
    runtime: Runtime,
) -> list[str]:
    from ...compute.cluster import connect
    from ...evaluation.benchmark.cluster import Files, run_benchmark_on

    data = None if args.data is None else os.path.abspath(args.data)
    out = Path(os.path.abspath(_out(args)))
    untrained = str(out / UNTRAINED)
    files = Files(os.path.abspath(args.plan), data, untrained, str(out), args.minutes)
    with connect(args.dask, runtime.events) as cluster:
        return run_benchmark_on(cluster, files, results, now, problems, runtime)


def _require_apart_from(out: Path, data: Path) -> None:
    """Refuse a folder for results among the data, which would be taken for data the next time.

    Raises:
        InputError: it is there.
    """
    out, data = out.resolve(), data.resolve()
    if out == data or data in out.parents:
        raise InputError(
            f"The results would go to {out}, which is where the data are. Give the plan another "
            "name, or another --out."
        )


def _out(args: argparse.Namespace) -> Path:
    """Where the results go.

    Raises:
        InputError: it isn't said, and the plan's name doesn't tell.
    """
    if args.out:
        return Path(args.out)
    plan = Path(args.plan)
    if not plan.suffix:  # the folder would have the plan's own name
        raise InputError(f"The name {plan} has no .json to leave out; say --out FOLDER.")
    return plan.with_suffix("")
