"""The flags of ``pretrain`` and ``benchmark``."""

from __future__ import annotations

from ..core.flag_types import number_flag, path_flag
from ..core.limits import MINUTES, SEED, SHOTS, STEPS, THREADS
from . import texts as cli_texts
from .shared_flags import Add, add_dask, add_runtime, add_structures


def add_pretrain(add: Add) -> None:
    """``pretrain``."""
    sub = add("pretrain", "train a foundation model on your own archive", cli_texts.PRETRAIN)
    sub.add_argument(
        "assembly", type=path_flag, metavar="ASSEMBLY.json", help="which data, classes and network"
    )
    sub.add_argument(
        "--out",
        type=path_flag,
        required=True,
        metavar="FOLDER",
        help="for the model, its curve, the checkpoint and the prepared volumes",
    )
    sub.add_argument(
        "--data",
        type=path_flag,
        metavar="FOLDER",
        help="where the folders named in the assembly are (default: beside it)",
    )
    sub.add_argument(
        "--steps",
        type=number_flag(STEPS),
        metavar="N",
        help="in place of the assembly's number of steps",
    )
    sub.add_argument(
        "--resume", action="store_true", help="go on from the checkpoint in --out, if there is one"
    )
    sub.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    sub.add_argument(
        "--threads",
        type=number_flag(THREADS),
        metavar="N",
        help="CPU threads (default: torch's choice)",
    )
    sub.add_argument("--seed", type=number_flag(SEED), default=0, metavar="N", help="default: 0")


def add_benchmark(add: Add) -> None:
    """``benchmark``."""
    sub = add("benchmark", "compare methods, with a table and plots", cli_texts.BENCHMARK)
    sub.add_argument("plan", type=path_flag, metavar="PLAN.json", help="what is run on which cases")
    sub.add_argument(
        "--new",
        type=path_flag,
        metavar="DATA",
        help="write a plan for this folder of annotated volumes, and stop",
    )
    add_structures(sub, "of a new plan (default: those of the folder's labels.json)")
    sub.add_argument("--model", metavar="ID", help="of a new plan (default: the embedded one)")
    sub.add_argument(
        "--data",
        type=path_flag,
        metavar="FOLDER",
        help="where the folders named in the plan are (default: beside it)",
    )
    sub.add_argument(
        "--out", type=path_flag, metavar="FOLDER", help="default: the plan's name without .json"
    )
    sub.add_argument(
        "--minutes",
        type=number_flag(MINUTES),
        default=float("inf"),
        metavar="N",
        help="start no training after so many (default: all is run)",
    )
    sub.add_argument(
        "--methods", nargs="+", metavar="NAME", help="run these lines of the table alone"
    )
    sub.add_argument(
        "--shots", type=_shots, nargs="+", metavar="K", help="run these numbers of shots alone"
    )
    sub.add_argument("--tasks", nargs="+", metavar="NAME", help="run these tasks alone")
    add_dask(sub, "the trainings and their queries")
    sub.add_argument("--render", action="store_true", help="only draw what is known by now")
    add_runtime(sub)


def _shots(text: str) -> int | str:
    return text if text == "all" else int(number_flag(SHOTS)(text))
