"""The flags of the ``fewshotseg`` command and what ``--help`` says; nothing here runs anything."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import fields

from .. import __version__
from ..core.events import EventSink
from ..core.flag_types import Parser, number_flag, path_flag
from ..core.limits import (
    EPOCHS,
    LEARNING_RATE,
    ROWS,
    SEED,
    SUPPORTS,
    TOLERANCE_MM,
)
from ..core.method_catalog import (
    DECODERS,
    DEFAULT_METHOD,
    EFFORTS,
    METHODS,
    PRESETS,
    white_box_methods,
)
from ..core.model_answers import Answers, flag
from ..core.result_formats import FORMATS as RESULT_FORMATS
from . import texts as cli_texts
from .shared_flags import (
    Add,
    add_dask,
    add_intensity_offset,
    add_model_and_seed,
    add_model_id,
    add_priors,
    add_runtime,
    add_sparse,
    add_structures,
    add_support,
)
from .study_flags import add_benchmark, add_pretrain

# Neither this nor anything it imports may load torch: --help and a wrong flag answer immediately.

Command = Callable[[argparse.Namespace, EventSink], int]


def build_parser(commands: Mapping[str, Command]) -> argparse.ArgumentParser:
    """The parser of the whole command.

    Args:
        commands: what runs each, by its name; ``args.run`` of what was parsed.
    """
    parser = Parser(
        prog="fewshotseg",
        description=cli_texts.OVERVIEW,
        epilog=cli_texts.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fewshotseg {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(name: str, summary: str, text: str) -> argparse.ArgumentParser:
        sub = subparsers.add_parser(
            name,
            help=summary,
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(run=commands[name])
        sub.add_argument(
            "--events",
            action="store_true",
            help="write progress and results as JSON lines to standard output, and nothing else",
        )
        return sub

    _add_adapt(add)
    _add_segment(add)
    sub = add("evaluate", "score a segmentation against a reference", cli_texts.EVALUATE)
    sub.add_argument(
        "--reference",
        type=path_flag,
        required=True,
        metavar="SEG",
        help="the true segmentation, or a folder",
    )
    sub.add_argument(
        "--prediction",
        type=path_flag,
        required=True,
        metavar="SEG",
        help="the one to be scored, or a folder",
    )
    add_structures(sub, "score these (default: all that the reference annotates)")
    sub.add_argument(
        "--tolerance",
        type=number_flag(TOLERANCE_MM),
        default=2.0,
        metavar="MM",
        help="for surface Dice (default: %(default)s)",
    )
    sub.add_argument("--json", type=path_flag, metavar="FILE", help="write the scores here as well")
    sub.add_argument(
        "--csv", type=path_flag, metavar="FILE", help="of a folder of results: write a table here"
    )
    _add_suggest(add)
    sub = add("models", "list the foundation models", cli_texts.MODELS)
    sub.add_argument("model", nargs="?", metavar="ID", help="tell all that is known of this one")
    sub.add_argument(
        "path",
        nargs="?",
        type=path_flag,
        metavar="PATH",
        help="with 'add' before it: a model's files",
    )
    sub.add_argument("--json", action="store_true", help="the registry entries as JSON")
    for option in fields(Answers):
        about = option.metadata
        sub.add_argument(
            flag(option.name),
            type=path_flag if about["path"] else str,
            metavar=about["metavar"],
            help=f"with 'add': {about['text']}",
        )
    sub = add("download", "fetch a foundation model's weights", cli_texts.DOWNLOAD)
    add_model_id(sub)
    sub.add_argument(
        "--accept-licence",
        "--accept-license",
        action="store_true",
        help="you have read the licence and accept it: don't ask",
    )
    sub = add("import", "install a foundation model's weights from a file", cli_texts.IMPORT)
    add_model_id(sub)
    sub.add_argument(
        "file", type=path_flag, metavar="FILE", help="the weights as their makers publish them"
    )
    sub = add("remove", "delete a foundation model's weights", cli_texts.REMOVE)
    add_model_id(sub)
    sub = add("inspect", "show what an adapter file holds", cli_texts.INSPECT)
    sub.add_argument("file", type=path_flag, metavar="FILE.fseft")
    sub.add_argument("--json", action="store_true", help="its whole metadata as JSON")
    sub.add_argument(
        "--plot",
        type=path_flag,
        metavar="FILE.png",
        help="of several rounds (--continue): draw the Dice to expect against the number of "
        "supports (.png or .svg)",
    )
    sub = add("demo", "run the whole job on synthetic patients or your own folder", cli_texts.DEMO)
    sub.add_argument(
        "--data", type=path_flag, metavar="DIR", help="a folder of images and segmentations"
    )
    sub.add_argument(
        "--out", type=path_flag, default="demo-output", metavar="DIR", help="default: %(default)s"
    )
    sub.add_argument(
        "--supports", type=number_flag(SUPPORTS), default=3, metavar="N", help="default: 3"
    )
    add_structures(sub, "learn these (default: all that are annotated)")
    add_model_and_seed(sub)
    add_runtime(sub)
    add_pretrain(add)
    add_benchmark(add)
    return parser


def _add_adapt(add: Add) -> None:
    sub = add("adapt", "train an adapter on annotated volumes", cli_texts.ADAPT)
    add_support(sub, required=True, text="an annotated volume; once for each")
    sub.add_argument(
        "--out",
        type=path_flag,
        metavar="NAME.fseft",
        help="the adapter file to write (default with --continue: NAME-2.fseft, and so on)",
    )
    sub.add_argument(
        "--continue",
        dest="continue_from",
        type=path_flag,
        metavar="NAME.fseft",
        help="begin with this adapter, for instance after a result of its was corrected: give its "
        "supports and the new ones",
    )
    add_sparse(sub, nargs="*")
    add_structures(sub, "which to learn, and their label values (default: all annotated)")
    sub.add_argument(
        "--method",
        choices=tuple(METHODS),
        default=DEFAULT_METHOD,
        metavar="NAME",
        help=f"what is trained: on the frozen backbone {_black_box_methods()}; or the backbone as "
        "well: " + ", ".join(white_box_methods()),
    )
    sub.add_argument(
        "--decoder",
        choices=DECODERS,
        help="with a method that trains the backbone: its decoder and bottleneck stay as they "
        "are, are trained on, or are new (default: the method's own)",
    )
    sub.add_argument(
        "--features",
        choices=("multi", "last"),
        help="adapt every feature level of the model, or the last alone as published "
        "(default: multi; last with published settings)",
    )
    sub.add_argument(
        "--preset",
        choices=PRESETS,
        default=PRESETS[0],
        help="the project's own training settings, or the paper's (default: own)",
    )
    sub.add_argument(
        "--effort",
        choices=EFFORTS,
        default="default",
        help="quick: don't measure what Dice to expect; best: train the same network from random "
        "parameters as well, which takes minutes, and average both (default: %(default)s)",
    )
    add_model_and_seed(sub)
    _add_modality(sub, "from their header or values")
    add_intensity_offset(sub)
    sub.add_argument(
        "--query",
        type=path_flag,
        metavar="IMAGE",
        help="train jointly for this volume (eq. 3 as published)",
    )
    sub.add_argument("--epochs", type=number_flag(EPOCHS), metavar="N", help="at most so many")
    sub.add_argument(
        "--learning-rate", type=number_flag(LEARNING_RATE), metavar="X", help="the first step size"
    )
    sub.add_argument(
        "--overlapping",
        dest="exclusive",
        action="store_false",
        help="a voxel may belong to several structures",
    )
    add_priors(sub, gamma="from the supports' spread, 0.3 or more")
    sub.add_argument(
        "--no-validate",
        dest="validate",
        action="store_false",
        help="don't measure, after the file is written, what Dice to expect on new volumes",
    )
    sub.add_argument(
        "--resume", action="store_true", help="go on from an interrupted run with the same inputs"
    )
    add_runtime(sub)


def _black_box_methods() -> str:
    names = [name for name, method in METHODS.items() if not method.trains_backbone]
    names[0] += " (the default)"
    return " or ".join([", ".join(names[:-1]), names[-1]])


def _add_segment(add: Add) -> None:
    sub = add("segment", "segment volumes with an adapter", cli_texts.SEGMENT)
    sub.add_argument(
        "--adapter", type=path_flag, required=True, metavar="NAME.fseft", help="from 'adapt'"
    )
    sub.add_argument(
        "query",
        type=path_flag,
        nargs="+",
        metavar="QUERY",
        help="the volumes to segment: images, DICOM folders, or folders of these",
    )
    sub.add_argument(
        "--out",
        type=path_flag,
        required=True,
        metavar="SEG.nii.gz",
        help="the label map (.nii.gz, .nii, .nrrd, .mha) or named segments (.seg.nrrd; .dcm of a "
        "DICOM query) to write; a folder for QUERYSTEM_seg.nii.gz of each query",
    )
    sub.add_argument(
        "--format",
        choices=RESULT_FORMATS,
        help="of the results in a folder (default: nii.gz, or seg.nrrd where structures may "
        "overlap); dicom-seg, of DICOM queries alone, needs the package highdicom",
    )
    sub.add_argument(
        "--again",
        action="store_true",
        help="segment what is in the folder already too (default: what the same adapter made of "
        "the same volume with the same options is left as it is)",
    )
    sub.add_argument(
        "--no-pictures",
        dest="pictures",
        action="store_false",
        help="of several queries: make no picture of each for volumes.html",
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
    add_intensity_offset(sub)
    add_support(sub, required=False, text="a support of the training, to steady the refinement")
    add_sparse(sub, action="append")
    add_priors(sub, gamma="the adapter's")
    add_dask(sub, "the list of queries")
    sub.add_argument("--model", metavar="ID", help="another installation of the adapter's model")
    sub.add_argument("--seed", type=number_flag(SEED), default=0, metavar="N", help="default: 0")
    add_runtime(sub)


def _add_modality(sub: argparse.ArgumentParser, default: str) -> None:
    """What the images are; where it is not said it is taken from ``default``."""
    sub.add_argument(
        "--modality",
        choices=("auto", "CT", "MR"),
        default="auto",
        help=f"what the images are (default: {default})",
    )


def _add_suggest(add: Add) -> None:
    sub = add("suggest", "rank volumes by what annotating them would bring", cli_texts.SUGGEST)
    sub.add_argument(
        "volume",
        type=path_flag,
        nargs="+",
        metavar="VOLUME",
        help="what could be annotated: images, DICOM folders, or folders of these",
    )
    sub.add_argument(
        "--adapter",
        type=path_flag,
        metavar="NAME.fseft",
        help="trained on what is annotated so far",
    )
    sub.add_argument(
        "--annotated",
        type=path_flag,
        action="append",
        default=[],
        metavar="IMAGE",
        help="an image that is annotated already, or a folder of these, beside the adapter's "
        "supports; once for each",
    )
    sub.add_argument(
        "--most",
        type=number_flag(ROWS),
        default=10,
        metavar="N",
        help="print so many (default: %(default)s)",
    )
    sub.add_argument("--csv", type=path_flag, metavar="FILE", help="write a table of all here")
    sub.add_argument(
        "--model",
        metavar="ID",
        help="foundation model (default: the adapter's, or the embedded one for the images' "
        "modality)",
    )
    _add_modality(sub, "the adapter's, or from their header or values")
    add_intensity_offset(sub)
    add_runtime(sub)
