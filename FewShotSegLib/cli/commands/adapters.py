"""``adapt`` and ``inspect``: an adapter trained, and what one holds."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace

from ...core.events import EventSink, make_event
from .common import make_runtime, parse_priors, say


def adapt_command(args: argparse.Namespace, sink: EventSink) -> int:
    """Train an adapter and tell of it."""
    from ...pipeline import adapt
    from ...training.recipes import default_settings
    from ..describe import adapter_text

    given = {
        key: getattr(args, key)
        for key in ("epochs", "learning_rate")
        if getattr(args, key) is not None
    }
    trained = adapt(
        [tuple(pair) for pair in args.support],
        args.out,
        structures=args.structures,
        model=args.model,
        method=args.method,
        decoder=args.decoder,
        features=args.features,
        preset=args.preset,
        modality=args.modality,
        intensity_offset=args.intensity_offset,
        seed=args.seed,
        settings=replace(
            default_settings(args.method, args.preset, args.decoder),
            **given,
            size_weight=args.size_weight,
        ),
        gamma=args.gamma,
        priors_ml=parse_priors(args.prior),
        exclusive=not args.overlapping,
        query=args.query,
        resume=args.resume,
        runtime=make_runtime(args, sink),
    )
    say(args, adapter_text(trained.metadata()) + f"\n\n{args.out}")
    return 0


def inspect_command(args: argparse.Namespace, sink: EventSink) -> int:
    """Tell what an adapter file holds."""
    from ...core.adapter_header import read_metadata
    from ..describe import adapter_text

    data = read_metadata(args.file)
    sink(make_event("result", kind="metadata", path=args.file, metadata=data))
    say(args, json.dumps(data, indent=2) if args.json else adapter_text(data))
    return 0
