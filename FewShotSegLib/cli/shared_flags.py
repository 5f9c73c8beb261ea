"""Flags that several commands have."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from ..core.flag_types import number_flag, path_flag
from ..core.limits import CACHE_GB, GAMMA, OFFSET, SEED, SIZE_WEIGHT

Add = Callable[[str, str, str], argparse.ArgumentParser]
"""Adds a command: its name, a summary, and what its help says."""


def add_support(sub: argparse.ArgumentParser, required: bool, text: str) -> None:
    """An image and its segmentation, once for each."""
    sub.add_argument(
        "--support",
        type=path_flag,
        nargs=2,
        action="append",
        required=required,
        metavar=("IMAGE", "SEG"),
        help=text,
    )


def add_sparse(sub: argparse.ArgumentParser, **form: Any) -> None:
    """What of the annotated volumes is known. ``form``: of the argument."""
    sub.add_argument(
        "--sparse",
        metavar="WHAT",
        **form,
        help="the supports are annotated on some slices only, and it is unknown what is elsewhere: "
        "axial, coronal or sagittal slices; auto to tell by the slices left out; whole; or a mask "
        "of what is known. One for all, or one for each --support in their order",
    )


def add_intensity_offset(sub: argparse.ArgumentParser) -> None:
    """What stored values lack."""
    sub.add_argument(
        "--intensity-offset",
        type=number_flag(OFFSET),
        metavar="X",
        help="add X to every value of the images, such as -1024 for CT that was stored without a "
        "sign (default: such CT is recognised, which is reported; 0 leaves all values as they are)",
    )


def add_structures(sub: argparse.ArgumentParser, text: str) -> None:
    """Label values and names."""
    sub.add_argument("--structures", metavar="VALUE=NAME,...", help=text)


def add_model_id(sub: argparse.ArgumentParser) -> None:
    """Which foundation model."""
    sub.add_argument("model", metavar="MODEL", help="its id; 'fewshotseg models' lists them")


def add_model_and_seed(sub: argparse.ArgumentParser) -> None:
    """Which foundation model, and what chance begins with."""
    sub.add_argument(
        "--model",
        metavar="ID",
        help="foundation model, by id ('fewshotseg models' lists them) or by the path of its "
        "JSON entry (default: the embedded one for the images' modality)",
    )
    sub.add_argument("--seed", type=number_flag(SEED), default=0, metavar="N", help="default: 0")


def add_priors(sub: argparse.ArgumentParser, gamma: str) -> None:
    """Known volumes and the tolerance."""
    sub.add_argument(
        "--prior",
        action="append",
        default=[],
        metavar="NAME=ML",
        help="a structure's known volume in ml, or NAME=off; once for each",
    )
    sub.add_argument(
        "--gamma",
        type=number_flag(GAMMA),
        metavar="X",
        help=f"sizes within X times the expected one around it are plausible (default: {gamma})",
    )
    sub.add_argument(
        "--lambda",
        dest="size_weight",
        type=number_flag(SIZE_WEIGHT),
        default=0.1,
        metavar="X",
        help="weight of the size term in eq. 3, beside the loss of the supports: without these it "
        "has nothing to be weighed against (default: %(default)s)",
    )


def add_dask(sub: argparse.ArgumentParser, text: str) -> None:
    """A cluster. The text says what is run there."""
    sub.add_argument(
        "--dask",
        metavar="ADDRESS",
        help=f"run {text} on the Dask cluster with this scheduler, such as tcp://head:8786, or the "
        "file that it writes; all machines see the same files",
    )


def add_runtime(sub: argparse.ArgumentParser) -> None:
    """Where it runs, and the cache."""
    sub.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    sub.add_argument("--cache", type=path_flag, metavar="DIR", help="where features are cached")
    sub.add_argument(
        "--cache-size",
        type=number_flag(CACHE_GB),
        default=20.0,
        metavar="GB",
        help="least recently used features beyond this are removed (default: %(default)s)",
    )
