"""The ``fewshotseg`` command. Its names and flags are a contract with other programs."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .atomic import write_json
from .cli_flags import build_parser
from .errors import Cancelled, FewShotSegError, InputError, OutOfMemory, is_out_of_memory
from .events import EventSink, ignore, json_lines, make_event

if TYPE_CHECKING:
    from .runtime import Runtime

# torch takes seconds to load: whatever needs it is imported where it is used, so that --help and a
# wrong flag answer at once.

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
    args = build_parser(COMMANDS).parse_args(argv)
    sink: EventSink = ignore
    try:
        sink = _sink(args)
        sink(make_event("started", command=args.command, version=__version__, pid=os.getpid()))
        with _signals():
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
        # The reader of our output went away; Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if is_out_of_memory(error):
            return _fail(_out_of_memory(), "failed", sink)
        sink(make_event("failed", message=str(error), kind=type(error).__name__))
        raise


# --- the commands -----------------------------------------------------------------------------


def _adapt(args: argparse.Namespace, sink: EventSink) -> int:
    from .adapter_header import EXTENSION
    from .describe import adapter_text
    from .methods import default_settings
    from .pipeline import adapt

    if not args.out.endswith(EXTENSION):
        raise InputError(f"--out {args.out}: let the adapter's name end with {EXTENSION}.")
    given = {
        key: getattr(args, key)
        for key in ("epochs", "learning_rate")
        if getattr(args, key) is not None
    }
    trained = adapt(
        [tuple(pair) for pair in args.support],
        args.out,
        structures=args.structures,
        model=args.model or _default_model(),
        method=args.method,
        decoder=args.decoder,
        features=args.features,
        preset=args.preset,
        modality=args.modality,
        seed=args.seed,
        settings=replace(
            default_settings(args.method, args.preset, args.decoder),
            **given,
            size_weight=args.size_weight,
        ),
        gamma=args.gamma,
        priors_ml=_priors(args.prior),
        exclusive=not args.overlapping,
        query=args.query,
        resume=args.resume,
        runtime=_runtime(args, sink),
    )
    _say(args, adapter_text(trained.metadata()) + f"\n\n{args.out}")
    return 0


def _segment(args: argparse.Namespace, sink: EventSink) -> int:
    from .adapter_file import TrainedAdapter
    from .describe import result_text
    from .inputs import read_support, require_no_input
    from .pipeline import segment
    from .refinement import RefinementSettings

    trained = TrainedAdapter.load(args.adapter)
    outputs = _output_paths(args.query, args.out, trained.exclusive)
    for out in outputs:
        require_no_input(
            out, [*args.query, *(path for pair in args.support or () for path in pair)]
        )
    trained.find_model(args.model)  # told before any query is read
    supports = [read_support(*pair, structures=trained.structures) for pair in args.support or ()]
    failures = 0
    for query, out in zip(args.query, outputs, strict=True):
        try:
            result = segment(
                trained,
                query,
                out,
                transductive=args.transductive,
                probabilities=args.probabilities,
                supports=supports,
                model=args.model,
                gamma=args.gamma,
                priors_ml=_priors(args.prior),
                refinement=RefinementSettings(size_weight=args.size_weight),
                largest_component=args.largest_component,
                seed=args.seed,
                runtime=_runtime(args, sink),
            )
        except InputError as error:
            if len(outputs) == 1:
                raise
            # One bad file must not cost a night's batch.
            failures += 1
            sink(make_event("warning", message=f"{query} was left out: {error}"))
            continue
        _say(args, f"{query}\n{result_text(result.report['structures'])}\n{out}\n")
    if failures:
        raise InputError(
            f"{failures} of {len(outputs)} queries could not be segmented (see above)."
        )
    return 0


def _evaluate(args: argparse.Namespace, sink: EventSink) -> int:
    from .annotation_files import parse_structures
    from .evaluation import evaluate_files, format_table, scores_json

    structures = parse_structures(args.structures) if args.structures else None
    if args.json and {Path(args.json).resolve()} & {
        Path(path).resolve() for path in (args.reference, args.prediction)
    }:
        raise InputError(f"--json {args.json} is one of the segmentations; give another name.")
    scores = evaluate_files(args.reference, args.prediction, structures, args.tolerance)
    data = scores_json(scores, args.tolerance)
    if args.json:
        write_json(args.json, {"reference": args.reference, "prediction": args.prediction, **data})
    sink(make_event("result", kind="evaluation", path=args.json, **data))
    _say(args, format_table(scores))
    return 0


def _models(args: argparse.Namespace, sink: EventSink) -> int:
    from .describe_models import model_text, models_text
    from .model_registry import find_model, list_entries

    entries = [find_model(args.model).entry] if args.model else list_entries()
    data = [entry.to_json() for entry in entries]
    sink(make_event("result", kind="models", path=None, models=data))
    if args.json:
        _say(args, json.dumps(data, indent=2))
    else:
        _say(args, model_text(entries[0]) if args.model else models_text(entries))
    return 0


def _download(args: argparse.Namespace, sink: EventSink) -> int:
    from .describe_models import licence_text
    from .model_download import announced_size, download, require_downloadable
    from .model_registry import find_model

    entry = find_model(args.model).entry
    require_downloadable(entry)
    size = None if args.events else announced_size(entry)
    text = licence_text(entry, size)
    _say(args, text if size else f"{text}\n  size     unknown: the server does not tell")
    if not args.accept_licence:
        _require_consent(args, entry.licence)
    _installed(args, sink, download(args.model, sink))
    return 0


def _import(args: argparse.Namespace, sink: EventSink) -> int:
    from .describe_models import licence_text
    from .model_download import import_weights
    from .model_registry import find_model

    _say(args, licence_text(find_model(args.model).entry))
    _installed(args, sink, import_weights(args.model, args.file))
    return 0


def _remove(args: argparse.Namespace, sink: EventSink) -> int:
    from .model_files import remove_model

    remove_model(args.model)
    _say(args, f"The weights of '{args.model}' are removed.")
    return 0


def _inspect(args: argparse.Namespace, sink: EventSink) -> int:
    from .adapter_file import read_metadata
    from .describe import adapter_text

    data = read_metadata(args.file)
    sink(make_event("result", kind="metadata", path=args.file, metadata=data))
    _say(args, json.dumps(data, indent=2) if args.json else adapter_text(data))
    return 0


def _demo(args: argparse.Namespace, sink: EventSink) -> int:
    from .demo import run_demo

    def without_warnings(event: dict[str, Any]) -> None:
        """The demo says those itself, below its table."""
        if event["event"] != "warning":
            sink(event)

    run_demo(
        Path(args.out),
        Path(args.data) if args.data else None,
        supports=args.supports,
        structures=args.structures,
        model=args.model or _default_model(),
        seed=args.seed,
        runtime=_runtime(args, sink if args.events else without_warnings),
        say=lambda text: _say(args, text),
    )
    return 0


def _pretrain(args: argparse.Namespace, sink: EventSink) -> int:
    import torch

    from .pretraining.run import pretrain
    from .runtime import Runtime

    if args.threads:
        torch.set_num_threads(args.threads)
    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        """The step at hand is finished and its state kept; a second signal insists."""
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    with _signals(ask):
        result = pretrain(
            args.assembly,
            args.out,
            data=args.data,
            steps=args.steps,
            seed=args.seed,
            resume=args.resume,
            runtime=Runtime(args.device, events=sink, cancel=lambda: bool(asked)),
        )
    dice = next((r["dice"] for r in reversed(result.history) if "dice" in r), {})
    lines = [f"{name}: Dice {value:.3f} on held-out cases" for name, value in dice.items()]
    _say(args, "\n".join([*lines, str(result.entry)]))
    return 0


def _benchmark(args: argparse.Namespace, sink: EventSink) -> int:
    from .benchmark.cells import Models, cells
    from .benchmark.plan import draw_plan, part_of, read_plan
    from .benchmark.render import render
    from .benchmark.results import NAME, Results
    from .benchmark.run import run_benchmark

    if args.new:
        if os.path.exists(args.plan):
            raise InputError(f"{args.plan} is there already; give the new plan another name.")
        plan = draw_plan(args.new, args.structures, model=args.model or _default_model())
        write_json(args.plan, plan)
        sink(make_event("result", kind="plan", path=args.plan))
        _say(args, f"{args.plan}\nRead it, change what you like, and run it without --new.")
        return 0
    out = Path(args.out or Path(args.plan).with_suffix(""))
    plan = read_plan(args.plan, args.data)
    results, models = Results(out / NAME), Models(out / "untrained")
    everything = list(cells(plan, models))
    part = part_of(plan, args.methods or (), _shots(args.shots), args.tasks or ())
    now = list(cells(part, models))
    problems: list[str] = []
    try:
        if not args.render:
            run_benchmark(plan, results, now, models, problems, args.minutes, _runtime(args, sink))
    finally:
        # What is known by now is worth its table however the run ended.
        text, paths = render(plan, everything, results, out, problems)
        for path in paths:
            sink(make_event("result", kind="benchmark", path=str(path)))
        _say(args, f"{text}\n{out}")
    return 0


COMMANDS = {
    "adapt": _adapt,
    "segment": _segment,
    "evaluate": _evaluate,
    "models": _models,
    "download": _download,
    "import": _import,
    "remove": _remove,
    "inspect": _inspect,
    "demo": _demo,
    "pretrain": _pretrain,
    "benchmark": _benchmark,
}


# --- helpers ----------------------------------------------------------------------------------


def _sink(args: argparse.Namespace) -> EventSink:
    if not _speaks():
        return ignore
    if args.events:
        return json_lines(sys.stdout)
    from .progress import Progress

    return Progress(sys.stderr)


def _speaks() -> bool:
    """Whether this is the only process, or the first of those that ``torchrun`` started."""
    return int(os.environ.get("WORLD_SIZE", "1")) == 1 or os.environ.get("RANK", "0") == "0"


def _say(args: argparse.Namespace, text: str) -> None:
    """Text for a person; with ``--events`` standard output is for programs alone."""
    if not args.events and _speaks():
        print(text, flush=True)


def _fail(error: Exception, kind: str, sink: EventSink) -> int:
    sink(make_event(kind, message=str(error), kind=type(error).__name__))
    print(f"fewshotseg: {error}", file=sys.stderr, flush=True)
    return FAILED


def _stop(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


@contextmanager
def _signals(handler: Callable[[int, Any], None] = _stop) -> Iterator[None]:
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


def _stopped(args: argparse.Namespace) -> Cancelled:
    """What is left after an interruption, and how to go on."""
    if args.command == "download":
        return Cancelled("Stopped; the same command goes on from what has come.")
    if args.command == "adapt" and os.path.exists(f"{args.out}.partial"):
        return Cancelled(
            "Stopped; the same command with --resume goes on from the last checkpoint "
            f"({args.out}.partial)."
        )
    return Cancelled("Stopped; nothing is half written, and what was complete before stays.")


def _installed(args: argparse.Namespace, sink: EventSink, path: Path) -> None:
    sink(make_event("result", kind="weights", path=str(path)))
    _say(args, str(path))


def _require_consent(args: argparse.Namespace, licence: str) -> None:
    """Ask a person; whoever can't be asked has to say so in the command.

    Raises:
        InputError: nobody can be asked. Cancelled: the answer is no.
    """
    if args.events or not (sys.stdin and sys.stdin.isatty()):
        raise InputError(
            f"Nobody can be asked here whether the licence ({licence}) is accepted. Read it, and "
            "add --accept-licence."
        )
    print("Do you accept this licence, and download the weights? [y/N] ", end="", flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Cancelled("Nothing was downloaded.")


def _runtime(args: argparse.Namespace, sink: EventSink) -> Runtime:
    from .runtime import Runtime

    return Runtime(args.device, args.cache, int(args.cache_size * 2**30), sink)


def _default_model() -> str:
    from .model_files import DEFAULT_MODEL

    return DEFAULT_MODEL


def _shots(texts: Sequence[str] | None) -> list[int | str]:
    return [int(text) if text.isdigit() else text for text in texts or ()]


def _priors(texts: Sequence[str]) -> dict[str, float | None]:
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


def _output_paths(queries: Sequence[str], out: str, exclusive: bool) -> list[str]:
    """Where each query's result goes: ``--out`` itself, or a file in that folder.

    In a folder that is ``STEM_seg.nii.gz``, or ``STEM.seg.nrrd`` where structures may overlap. Such
    a file may be replaced only where the folder's report says that we made it: people keep their
    own segmentations under such names.

    Raises:
        InputError: several queries for one file, two with one name for one folder, somebody's
            file in the way, or a file of a kind that results can't be written as.
    """
    from .report import NAME, read_reports
    from .result_files import EXTENSIONS
    from .volume_files import extension_of

    as_folder = Path(out).is_dir() or out.endswith(("/", os.sep))
    if not as_folder and Path(out).name.lower().endswith(EXTENSIONS):
        if len(queries) > 1:
            raise InputError(f"--out {out} is one file for {len(queries)} queries; give a folder.")
        return [out]
    if not as_folder and Path(out).suffix:
        raise InputError(
            f"--out {out}: let a file's name end with {', '.join(EXTENSIONS)}, and a folder's "
            "with /."
        )
    paths: dict[str, str] = {}
    ours = read_reports(Path(out) / NAME)
    for query in queries:
        name = Path(query).name
        stem = name[: -len(extension_of(name) or "") or None]
        path = os.path.join(out, f"{stem}_seg.nii.gz" if exclusive else f"{stem}.seg.nrrd")
        if path in paths:
            raise InputError(
                f"{paths[path]} and {query} would both be written to {path}; segment them in two "
                "runs with a folder each."
            )
        if os.path.exists(path) and os.path.basename(path) not in ours:
            raise InputError(
                f"{path} is there already, and {NAME} beside it does not say that FewShotSeg made "
                "it; choose another folder."
            )
        paths[path] = query
    return list(paths)


def _out_of_memory() -> FewShotSegError:
    return OutOfMemory(
        "The memory is not enough for this volume and model. Close other programs, crop the "
        "volume, or use --device cpu."
    )
