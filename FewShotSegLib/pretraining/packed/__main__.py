"""``python -m FewShotSegLib.pretraining.packed``: pack data, pre-train, move a checkpoint."""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
from pathlib import Path
from typing import Any

from ...core.errors import FewShotSegError
from ...core.flag_types import Parser, number_flag, path_flag
from ...core.limits import BATCH, EPISODES, MINUTES, SEED, THREADS


def main(arguments: list[str] | None = None) -> int:
    """Run one of the commands; returns the exit status."""
    parser = Parser(prog="python -m FewShotSegLib.pretraining.packed")
    commands = parser.add_subparsers(dest="command", required=True)
    pack = commands.add_parser("pack", help="read the volumes of a description into one file")
    pack.add_argument("description", type=path_flag)
    pack.add_argument(
        "--data", type=path_flag, required=True, help="what its folders are relative to"
    )
    pack.add_argument("--out", type=path_flag, required=True)
    train = commands.add_parser("train", help="pre-train from a packed file")
    train.add_argument("recipe", type=path_flag)
    train.add_argument("--pack", type=path_flag, required=True)
    train.add_argument("--out", type=path_flag, required=True)
    train.add_argument("--resume", action="store_true")
    train.add_argument("--episodes", type=number_flag(EPISODES))
    train.add_argument("--batch", type=number_flag(BATCH))
    train.add_argument("--minutes", type=number_flag(MINUTES), default=math.inf)
    train.add_argument("--seed", type=number_flag(SEED), default=0)
    train.add_argument("--device", default="auto")
    train.add_argument("--threads", type=number_flag(THREADS))
    for name, words in (
        ("shrink", "a run's checkpoint as small files in half precision"),
        ("grow", "such files as the checkpoint of a run"),
    ):
        parcel = commands.add_parser(name, help=words)
        parcel.add_argument("source", type=path_flag)
        parcel.add_argument("target", type=path_flag)
    args = parser.parse_args(arguments)
    try:
        if args.command in ("shrink", "grow"):
            return _parcels(args)
        return _pack(args) if args.command == "pack" else _train(args)
    except FewShotSegError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2


def _pack(args: argparse.Namespace) -> int:
    from .build import build_pack

    build_pack(args.description, args.data, args.out, lambda line: print(line, flush=True))
    return 0


def _parcels(args: argparse.Namespace) -> int:
    from ..state import NAME
    from .parcels import grow, shrink

    if args.command == "shrink":
        print(*shrink(Path(args.source) / NAME, Path(args.target)), sep="\n")
    else:
        print(f"{grow(Path(args.source), Path(args.target) / NAME)} episodes")
    return 0


def _train(args: argparse.Namespace) -> int:
    from ...compute.parallel import on_threads
    from ...pipeline.runtime import Runtime
    from .run import Amount, pretrain_packed

    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
    with on_threads(args.threads):
        result = pretrain_packed(
            *(args.recipe, args.pack, args.out),
            seed=args.seed,
            amount=Amount(args.episodes, args.batch, args.minutes),
            resume=args.resume,
            runtime=Runtime(
                args.device,
                events=lambda event: print(json.dumps(event), flush=True),
                cancel=lambda: bool(asked),
            ),
        )
    print(result.entry)
    return 0


if __name__ == "__main__":
    sys.exit(main())
