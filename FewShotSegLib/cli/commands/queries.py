"""``segment`` and ``evaluate``: queries segmented, and what that is worth."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.atomic import write_json
from ...core.errors import InputError
from ...core.events import EventSink, make_event
from .common import make_runtime, say, segment_options

if TYPE_CHECKING:
    from ...pipeline.batch import Outcome


def segment_command(args: argparse.Namespace, sink: EventSink) -> int:
    """Segment every query; one that fails does not cost the others."""
    from ...core.size_prior import override_priors
    from ...pipeline import segment
    from ...pipeline.adapter_file import TrainedAdapter
    from ...pipeline.batch import Outcome, result_paths, segment_each, summary
    from ...pipeline.inputs import read_support, require_no_input

    trained = TrainedAdapter.load(args.adapter)
    single = _single_output(args.query, args.out)
    inputs = [*args.query, *(path for pair in args.support or () for path in pair)]
    for out in [args.out] if single else result_paths(args.query, args.out, trained.exclusive):
        require_no_input(out, inputs)
    trained.find_model(args.model)  # reported before any query is read
    options, runtime = segment_options(args), make_runtime(args, sink)
    override_priors(trained.priors, options.gamma, options.priors_ml)
    shared: dict[str, Any] = {
        "options": options,
        "supports": [
            read_support(image, labels, structures=trained.structures)
            for image, labels in args.support or ()
        ],
        "runtime": runtime,
    }
    if single:
        (query,) = args.query
        _tell(args, Outcome(query, args.out, segment(trained, query, args.out, **shared)))
        return 0
    failed = []
    for outcome in segment_each(trained, args.query, args.out, **shared):
        if outcome.error is None:
            _tell(args, outcome)
        elif len(args.query) == 1:
            raise outcome.error
        else:
            # One bad file must not cost a night's batch.
            failed.append(outcome)
            text = f"{outcome.query} was left out: {outcome.error}"
            sink(make_event("warning", message=text))
    if failed:
        raise InputError(summary(failed, len(args.query)))
    return 0


def _tell(args: argparse.Namespace, outcome: Outcome) -> None:
    """A result in words."""
    from ..describe import result_text

    assert outcome.result is not None  # failures are reported elsewhere
    structures = outcome.result.report["structures"]
    say(args, f"{outcome.query}\n{result_text(structures)}\n{outcome.out}\n")


def evaluate_command(args: argparse.Namespace, sink: EventSink) -> int:
    """Score a segmentation."""
    from ...core.annotation import parse_structures
    from ...evaluation.metrics import evaluate_files, format_table, scores_json

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
    title = f"{args.prediction} against {args.reference}"
    say(args, f"{title}; surface Dice within {args.tolerance:g} mm\n{format_table(scores)}")
    return 0


def _single_output(queries: Sequence[str], out: str) -> bool:
    """Whether ``--out`` is the result's own file, and no folder for results.

    Raises:
        InputError: several queries for one file, or a file of a kind that results can't be
            written as.
    """
    from ...io.results import EXTENSIONS

    if Path(out).is_dir() or out.endswith(("/", os.sep)):
        return False
    if Path(out).name.lower().endswith(EXTENSIONS):
        if len(queries) > 1:
            raise InputError(f"--out {out} is one file for {len(queries)} queries; give a folder.")
        return True
    if Path(out).suffix:
        raise InputError(
            f"--out {out}: let a file's name end with {', '.join(EXTENSIONS)}, and a folder's "
            "with /."
        )
    return False
