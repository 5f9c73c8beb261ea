"""``segment`` and ``evaluate``: queries segmented, and what that is worth."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from ..atomic import write_json
from ..errors import InputError
from ..events import EventSink, make_event
from .common import make_runtime, parse_priors, say


def segment_command(args: argparse.Namespace, sink: EventSink) -> int:
    """Segment every query; one that fails does not cost the others."""
    from ..adapter_file import TrainedAdapter
    from ..describe import result_text
    from ..inputs import read_support, require_no_input
    from ..pipeline import segment
    from ..refinement import RefinementSettings

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
                priors_ml=parse_priors(args.prior),
                refinement=RefinementSettings(size_weight=args.size_weight),
                largest_component=args.largest_component,
                intensity_offset=args.intensity_offset,
                seed=args.seed,
                runtime=make_runtime(args, sink),
            )
        except InputError as error:
            if len(outputs) == 1:
                raise
            # One bad file must not cost a night's batch.
            failures += 1
            sink(make_event("warning", message=f"{query} was left out: {error}"))
            continue
        say(args, f"{query}\n{result_text(result.report['structures'])}\n{out}\n")
    if failures:
        raise InputError(
            f"{failures} of {len(outputs)} queries could not be segmented (see above)."
        )
    return 0


def evaluate_command(args: argparse.Namespace, sink: EventSink) -> int:
    """Score a segmentation."""
    from ..annotation_files import parse_structures
    from ..evaluation import evaluate_files, format_table, scores_json

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


def _output_paths(queries: Sequence[str], out: str, exclusive: bool) -> list[str]:
    """Where each query's result goes: ``--out`` itself, or a file in that folder.

    In a folder that is ``STEM_seg.nii.gz``, or ``STEM.seg.nrrd`` where structures may overlap. Such
    a file may be replaced only where the folder's report says that we made it: people keep their
    own segmentations under such names.

    Raises:
        InputError: several queries for one file, two with one name for one folder, somebody's
            file in the way, or a file of a kind that results can't be written as.
    """
    from ..report import NAME, read_reports
    from ..result_files import EXTENSIONS
    from ..transaction import recover
    from ..volume_files import extension_of

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
    recover(out)  # a run that was killed may have left a result whose report is not in place yet
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
