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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .errors import Cancelled, FewShotSegError, InputError, OutOfMemory, is_out_of_memory
from .events import EventSink, ignore, json_lines, make_event

if TYPE_CHECKING:
    from .pipeline import Runtime

# torch takes seconds to load: whatever needs it is imported where it is used, so that --help and a
# wrong flag answer at once.

FAILED = 2
"""Exit status of every failure that the user can act on; the reason is one sentence on stderr."""
METHODS = ("adapter", "linear-probe", "adapter-1x1")

_OVERVIEW = """\
Segment a structure that no ready-made model knows, from a handful of annotated volumes.

A frozen foundation model gives features; a small adapter is trained on them with your 1 to 10
annotated volumes (the supports); new volumes (the queries) are segmented, and the size that the
structure has in the supports steadies the result (transduction).

  1. train    fewshotseg adapt --support ct1.nii.gz seg1.nii.gz --support ct2.nii.gz seg2.nii.gz \\
                  --structures 4=parotid_right,5=parotid_left --out parotids.fseft
  2. segment  fewshotseg segment --adapter parotids.fseft --out ct3_seg.nii.gz ct3.nii.gz
  3. check    fewshotseg evaluate --reference ct3_manual.nii.gz --prediction ct3_seg.nii.gz \\
                  --structures 4=parotid_right,5=parotid_left
"""
_EPILOG = """\
Images: NIfTI, NRRD, MetaImage, or a folder with one DICOM series. Segmentations: a label map, a
Slicer segmentation (.seg.nrrd), or a folder with one mask file a structure.

Exit status: 0 done; 2 something is wrong with the input, the disk or the model, or the run was
interrupted (one sentence on standard error says what; no file is ever half written).
Features of the foundation model are cached in ~/.fewshotseg/cache (FEWSHOTSEG_HOME moves it), so
that the same volume never costs twice. Nothing leaves this computer.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status.

    Args:
        argv: without the program's name; those of the process where not given.
    """
    start = time.monotonic()
    # OpenMP threads that spin while they wait make training several times slower as soon as
    # another program wants a core. It must be said before torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    args = _parser().parse_args(argv)
    sink: EventSink = ignore
    try:
        sink = _sink(args)
        sink(make_event("started", command=args.command, version=__version__, pid=os.getpid()))
        with _signals():
            status = args.run(args, sink)
        sink(make_event("finished", seconds=round(time.monotonic() - start, 2)))
        return status
    except (KeyboardInterrupt, Cancelled):
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
    from .pipeline import adapt
    from .training import TrainingSettings

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
        features=args.features,
        modality=args.modality,
        seed=args.seed,
        settings=TrainingSettings(**given, size_weight=args.size_weight),
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
    from .pipeline import read_support, require_no_input, segment
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
    from .atomic import write_json
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
    from .describe import models_text
    from .model_registry import list_entries

    entries = list_entries()
    data = [entry.to_json() for entry in entries]
    sink(make_event("result", kind="models", path=None, models=data))
    if args.json:
        _say(args, json.dumps(data, indent=2))
    else:
        _say(args, models_text(entries))
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

    run_demo(
        Path(args.out),
        Path(args.data) if args.data else None,
        supports=args.supports,
        structures=args.structures,
        model=args.model or _default_model(),
        seed=args.seed,
        runtime=_runtime(args, sink),
        say=lambda text: _say(args, text),
    )
    return 0


def _pretrain(args: argparse.Namespace, sink: EventSink) -> int:
    import torch

    from .pipeline import Runtime
    from .pretraining.run import pretrain

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
            steps=args.steps,
            seed=args.seed,
            resume=args.resume,
            runtime=Runtime(args.device, events=sink, cancel=lambda: bool(asked)),
        )
    dice = next((r["dice"] for r in reversed(result.history) if "dice" in r), {})
    lines = [f"{name}: Dice {value:.3f} on held-out cases" for name, value in dice.items()]
    _say(args, "\n".join([*lines, str(result.entry)]))
    return 0


# --- the flags --------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fewshotseg",
        description=_OVERVIEW,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fewshotseg {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(name: str, run: Callable[..., int], summary: str, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=summary,
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(run=run)
        sub.add_argument(
            "--events",
            action="store_true",
            help="write progress and results as JSON lines to standard output, and nothing else",
        )
        return sub

    _add_adapt(add)
    _add_segment(add)
    sub = add("evaluate", _evaluate, "score a segmentation against a reference", _EVALUATE)
    sub.add_argument("--reference", required=True, metavar="SEG", help="the true segmentation")
    sub.add_argument("--prediction", required=True, metavar="SEG", help="the one to be scored")
    _add_structures(sub, "score these (default: all that the reference annotates)")
    sub.add_argument(
        "--tolerance",
        type=_number(0),
        default=2.0,
        metavar="MM",
        help="for surface Dice (default: %(default)s)",
    )
    sub.add_argument("--json", metavar="FILE", help="write the scores here as well")
    sub = add("models", _models, "list the foundation models", "List the foundation models.")
    sub.add_argument("--json", action="store_true", help="the registry entries as JSON")
    sub = add("inspect", _inspect, "show what an adapter file holds", _INSPECT)
    sub.add_argument("file", metavar="FILE.fseft")
    sub.add_argument("--json", action="store_true", help="its whole metadata as JSON")
    sub = add("demo", _demo, "run the whole job on made-up patients or your own folder", _DEMO)
    sub.add_argument("--data", metavar="DIR", help="a folder of images and segmentations")
    sub.add_argument("--out", default="demo-output", metavar="DIR", help="default: %(default)s")
    sub.add_argument("--supports", type=_whole(1), default=3, metavar="N", help="default: 3")
    _add_structures(sub, "learn these (default: all that are annotated)")
    _add_model_and_seed(sub)
    _add_runtime(sub)
    _add_pretrain(add)
    return parser


def _add_adapt(add: Callable[..., argparse.ArgumentParser]) -> None:
    sub = add("adapt", _adapt, "train an adapter on annotated volumes", _ADAPT)
    _add_support(sub, required=True, text="an annotated volume; once for each")
    sub.add_argument("--out", required=True, metavar="NAME.fseft", help="the adapter file to write")
    _add_structures(sub, "which to learn, and their label values (default: all annotated)")
    sub.add_argument(
        "--method", choices=METHODS, default=METHODS[0], help="what is trained (default: adapter)"
    )
    sub.add_argument(
        "--features",
        choices=("multi", "last"),
        default="multi",
        help="adapt every feature level of the model, or the last alone as published "
        "(default: multi)",
    )
    _add_model_and_seed(sub)
    sub.add_argument(
        "--modality",
        choices=("auto", "CT", "MR"),
        default="auto",
        help="what the images are (default: told from their header or values)",
    )
    sub.add_argument(
        "--query", metavar="IMAGE", help="train jointly for this volume (eq. 3 as published)"
    )
    sub.add_argument("--epochs", type=_whole(1), metavar="N", help="at most so many")
    sub.add_argument("--learning-rate", type=_number(0), metavar="X", help="the first step size")
    sub.add_argument(
        "--overlapping", action="store_true", help="a voxel may belong to several structures"
    )
    _add_priors(sub, gamma="from the supports' spread, 0.3 or more")
    sub.add_argument(
        "--resume", action="store_true", help="go on from an interrupted run with the same inputs"
    )
    _add_runtime(sub)


def _add_segment(add: Callable[..., argparse.ArgumentParser]) -> None:
    sub = add("segment", _segment, "segment volumes with an adapter", _SEGMENT)
    sub.add_argument("--adapter", required=True, metavar="NAME.fseft", help="from 'adapt'")
    sub.add_argument("query", nargs="+", metavar="QUERY", help="the volumes to segment")
    sub.add_argument(
        "--out",
        required=True,
        metavar="SEG.nii.gz",
        help="the label map (.nii.gz, .nii, .nrrd, .mha) or named segments (.seg.nrrd) to write; "
        "a folder for QUERYSTEM_seg.nii.gz of each query",
    )
    sub.add_argument(
        "--transductive",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="refine a copy of the adapter until each structure's size is plausible (default: on)",
    )
    sub.add_argument(
        "--probabilities", action="store_true", help="write each structure's probability as well"
    )
    sub.add_argument(
        "--largest-component",
        action="store_true",
        help="keep only the largest connected piece of each structure",
    )
    _add_support(sub, required=False, text="a support of the training, to steady the refinement")
    _add_priors(sub, gamma="the adapter's")
    sub.add_argument("--model", metavar="ID", help="another installation of the adapter's model")
    sub.add_argument("--seed", type=_whole(0), default=0, metavar="N", help="default: 0")
    _add_runtime(sub)


def _add_pretrain(add: Callable[..., argparse.ArgumentParser]) -> None:
    sub = add("pretrain", _pretrain, "train a foundation model on your own archive", _PRETRAIN)
    sub.add_argument("assembly", metavar="ASSEMBLY.json", help="which data, classes and network")
    sub.add_argument(
        "--out",
        required=True,
        metavar="FOLDER",
        help="for the model, its curve, the checkpoint and the prepared volumes",
    )
    sub.add_argument(
        "--steps", type=_whole(1), metavar="N", help="in place of the assembly's number of steps"
    )
    sub.add_argument(
        "--resume", action="store_true", help="go on from the checkpoint in --out, if there is one"
    )
    sub.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    sub.add_argument(
        "--threads", type=_whole(1), metavar="N", help="CPU threads (default: torch's choice)"
    )
    sub.add_argument("--seed", type=_whole(0), default=0, metavar="N", help="default: 0")


def _add_support(sub: argparse.ArgumentParser, required: bool, text: str) -> None:
    sub.add_argument(
        "--support",
        nargs=2,
        action="append",
        required=required,
        metavar=("IMAGE", "SEG"),
        help=text,
    )


def _add_structures(sub: argparse.ArgumentParser, text: str) -> None:
    sub.add_argument("--structures", metavar="VALUE=NAME,...", help=text)


def _add_model_and_seed(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--model",
        metavar="ID",
        help="foundation model, by id ('fewshotseg models' lists them) or by the path of its "
        "JSON entry (default: the embedded one)",
    )
    sub.add_argument("--seed", type=_whole(0), default=0, metavar="N", help="default: 0")


def _add_priors(sub: argparse.ArgumentParser, gamma: str) -> None:
    sub.add_argument(
        "--prior",
        action="append",
        default=[],
        metavar="NAME=ML",
        help="a structure's known volume in ml, or NAME=off; once for each",
    )
    sub.add_argument(
        "--gamma",
        type=_number(0),
        metavar="X",
        help=f"sizes within X times the expected one around it are plausible (default: {gamma})",
    )
    sub.add_argument(
        "--lambda",
        dest="size_weight",
        type=_number(0),
        default=0.1,
        metavar="X",
        help="weight of the size term in eq. 3, beside the loss of the supports: without these it "
        "has nothing to be weighed against (default: %(default)s)",
    )


def _add_runtime(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    sub.add_argument("--cache", metavar="DIR", help="where features are cached")
    sub.add_argument(
        "--cache-size",
        type=_number(0),
        default=20.0,
        metavar="GB",
        help="least recently used features beyond this are removed (default: %(default)s)",
    )


_ADAPT = """\
Train an adapter on annotated volumes and write it as one .fseft file.

A structure that is not annotated in a support is unknown there, not background. The label values
of --structures are those of the results; in Slicer segmentations and folders of masks, structures
are found by name.

  fewshotseg adapt --support ct1.nii.gz seg1.nii.gz --support ct2.nrrd seg2.seg.nrrd \\
      --structures 4=parotid_right,5=parotid_left --out parotids.fseft
"""
_SEGMENT = """\
Segment volumes with a trained adapter. The result lies on the query's own grid; report.json beside
it says how large each structure is, what was expected, and what transduction changed.

  fewshotseg segment --adapter parotids.fseft --out results/ ct3.nii.gz ct4.nii.gz
"""
_EVALUATE = """\
Dice, HD95, surface Dice and volume error by structure, on the original grid. A structure that the
reference does not annotate is unknown, and not scored.
"""
_INSPECT = "Show what an adapter was trained on, what it segments, and which sizes it expects."
_DEMO = """\
Run the whole job: adapt on a few volumes, segment the next one with and without transduction,
print Dice before and after, and draw an overlay. Without --data on made-up patients.
"""


_PRETRAIN = """\
Train a foundation model on an assembly of data sets that each annotate only some classes (eq. 1):
a class counts only in volumes where it was annotated. The assembly is a JSON file that names the
data sets, their folders, and which of their label values is which class of one common template;
Documentation/pretraining.md explains every field and has a complete example.

  fewshotseg pretrain assembly.json --out pretraining/
  fewshotseg pretrain assembly.json --out pretraining/ --resume        after an interruption
  torchrun --nproc-per-node 4 -m FewShotSegLib pretrain assembly.json --out pretraining/
  fewshotseg adapt --model pretraining/ID.json ...                     with the finished model

Ctrl-C stops within a second or so and keeps what was done. FOLDER then holds ID.json and
ID.safetensors (the model), curve.png, pretraining.json (every figure), the checkpoint, and cases/
(the prepared volumes; they can be removed once the model is finished).
"""


def _whole(least: int) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{text} is below {least}")
        return value

    return whole_number


def _number(least: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = float(text)
        if not least <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is below {least:g} or not finite")
        return value

    return number


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
    if args.command == "adapt" and os.path.exists(f"{args.out}.partial"):
        return Cancelled(
            "Stopped; the same command with --resume goes on from the last checkpoint "
            f"({args.out}.partial)."
        )
    return Cancelled("Stopped; nothing is half written, and what was complete before stays.")


def _runtime(args: argparse.Namespace, sink: EventSink) -> Runtime:
    from .pipeline import Runtime

    return Runtime(args.device, args.cache, int(args.cache_size * 2**30), sink)


def _default_model() -> str:
    from .model_files import DEFAULT_MODEL

    return DEFAULT_MODEL


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
