"""The flags of the ``fewshotseg`` command and what ``--help`` says; nothing here runs anything."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

from . import __version__
from .events import EventSink
from .method_list import DECODERS, METHODS, PRESETS, WHITE_BOX

# Neither this nor anything it imports may load torch: --help and a wrong flag answer at once.

Command = Callable[[argparse.Namespace, EventSink], int]
Add = Callable[[str, str, str], argparse.ArgumentParser]

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
_MODELS = """\
List the foundation models: what images they are for, their network, their licence, and whether
their weights are on this computer or how they come here. With an ID, tell all of one: what it was
trained on, the classes that it knows, whom to cite and where it is from.
"""
_DOWNLOAD = """\
Fetch a foundation model's weights over https and put them into ~/.fewshotseg/models
(FEWSHOTSEG_HOME moves it). The licence, whom to cite and the size are shown, and you are asked
first. An
interrupted download goes on where it was. The file is checked against its published checksum; where
the publisher gives none, that of the first download is remembered and checked from then on.

  fewshotseg download btcv
  fewshotseg download btcv --accept-licence        in a script, once you have read it
"""
_IMPORT = """\
Put a foundation model's weights from a file of yours into ~/.fewshotseg/models, for computers
without a network and for models that have to be fetched by hand. The file is checked as a download
is, and copied.

  fewshotseg import fseft ~/Downloads/model.pth
"""
_REMOVE = """\
Delete a foundation model's weights from ~/.fewshotseg/models, with what was half downloaded and the
remembered checksum. Of a model of your own the entry goes too.
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


_BENCHMARK = """\
Compare methods on drawn supports: every task, number of shots, method and draw that the plan names.
One row a query is kept as soon as it is known; the same command goes on where it was stopped.
Documentation/benchmarks.md explains the plan.

  fewshotseg benchmark plan.json --new DATA --structures 4=parotid_right,5=parotid_left
  fewshotseg benchmark plan.json                     runs it, into the folder plan/
  fewshotseg benchmark plan.json --minutes 30        starts no training after half an hour
  fewshotseg benchmark plan.json --render            draws table.md and the pictures again
"""


def build_parser(commands: Mapping[str, Command]) -> argparse.ArgumentParser:
    """The parser of the whole command.

    Args:
        commands: what runs each, by its name; ``args.run`` of what was parsed.
    """
    parser = argparse.ArgumentParser(
        prog="fewshotseg",
        description=_OVERVIEW,
        epilog=_EPILOG,
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
    sub = add("evaluate", "score a segmentation against a reference", _EVALUATE)
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
    sub = add("models", "list the foundation models", _MODELS)
    sub.add_argument("model", nargs="?", metavar="ID", help="tell all that is known of this one")
    sub.add_argument("--json", action="store_true", help="the registry entries as JSON")
    sub = add("download", "fetch a foundation model's weights", _DOWNLOAD)
    _add_model_id(sub)
    sub.add_argument(
        "--accept-licence",
        "--accept-license",
        action="store_true",
        help="you have read the licence and accept it: don't ask",
    )
    sub = add("import", "install a foundation model's weights from a file", _IMPORT)
    _add_model_id(sub)
    sub.add_argument("file", metavar="FILE", help="the weights as their makers publish them")
    sub = add("remove", "delete a foundation model's weights", _REMOVE)
    _add_model_id(sub)
    sub = add("inspect", "show what an adapter file holds", _INSPECT)
    sub.add_argument("file", metavar="FILE.fseft")
    sub.add_argument("--json", action="store_true", help="its whole metadata as JSON")
    sub = add("demo", "run the whole job on made-up patients or your own folder", _DEMO)
    sub.add_argument("--data", metavar="DIR", help="a folder of images and segmentations")
    sub.add_argument("--out", default="demo-output", metavar="DIR", help="default: %(default)s")
    sub.add_argument("--supports", type=_whole(1), default=3, metavar="N", help="default: 3")
    _add_structures(sub, "learn these (default: all that are annotated)")
    _add_model_and_seed(sub)
    _add_runtime(sub)
    _add_pretrain(add)
    _add_benchmark(add)
    return parser


def _add_adapt(add: Add) -> None:
    sub = add("adapt", "train an adapter on annotated volumes", _ADAPT)
    _add_support(sub, required=True, text="an annotated volume; once for each")
    sub.add_argument("--out", required=True, metavar="NAME.fseft", help="the adapter file to write")
    _add_structures(sub, "which to learn, and their label values (default: all annotated)")
    sub.add_argument(
        "--method",
        choices=tuple(METHODS),
        default=next(iter(METHODS)),
        metavar="NAME",
        help="what is trained: on the frozen backbone adapter (the default), linear-probe or "
        "adapter-1x1; or the backbone as well: " + ", ".join(WHITE_BOX),
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
    _add_model_and_seed(sub)
    sub.add_argument(
        "--modality",
        choices=("auto", "CT", "MR"),
        default="auto",
        help="what the images are (default: told from their header or values)",
    )
    _add_intensity_offset(sub)
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


def _add_segment(add: Add) -> None:
    sub = add("segment", "segment volumes with an adapter", _SEGMENT)
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
    _add_intensity_offset(sub)
    _add_support(sub, required=False, text="a support of the training, to steady the refinement")
    _add_priors(sub, gamma="the adapter's")
    sub.add_argument("--model", metavar="ID", help="another installation of the adapter's model")
    sub.add_argument("--seed", type=_whole(0), default=0, metavar="N", help="default: 0")
    _add_runtime(sub)


def _add_pretrain(add: Add) -> None:
    sub = add("pretrain", "train a foundation model on your own archive", _PRETRAIN)
    sub.add_argument("assembly", metavar="ASSEMBLY.json", help="which data, classes and network")
    sub.add_argument(
        "--out",
        required=True,
        metavar="FOLDER",
        help="for the model, its curve, the checkpoint and the prepared volumes",
    )
    sub.add_argument(
        "--data",
        metavar="FOLDER",
        help="where the folders named in the assembly are (default: beside it)",
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


def _add_benchmark(add: Add) -> None:
    sub = add("benchmark", "compare methods, with a table and plots", _BENCHMARK)
    sub.add_argument("plan", metavar="PLAN.json", help="what is run on which cases")
    sub.add_argument(
        "--new", metavar="DATA", help="write a plan for this folder of annotated volumes, and stop"
    )
    _add_structures(sub, "of a new plan (default: those of the folder's labels.json)")
    sub.add_argument("--model", metavar="ID", help="of a new plan (default: the embedded one)")
    sub.add_argument(
        "--data",
        metavar="FOLDER",
        help="where the folders named in the plan are (default: beside it)",
    )
    sub.add_argument("--out", metavar="FOLDER", help="default: the plan's name without .json")
    sub.add_argument(
        "--minutes",
        type=_number(0),
        default=float("inf"),
        metavar="N",
        help="start no training after so many (default: all is run)",
    )
    sub.add_argument(
        "--methods", nargs="+", metavar="NAME", help="run these lines of the table alone"
    )
    sub.add_argument("--shots", nargs="+", metavar="K", help="run these numbers of shots alone")
    sub.add_argument("--tasks", nargs="+", metavar="NAME", help="run these tasks alone")
    sub.add_argument("--render", action="store_true", help="only draw what is known by now")
    _add_runtime(sub)


def _add_support(sub: argparse.ArgumentParser, required: bool, text: str) -> None:
    sub.add_argument(
        "--support",
        nargs=2,
        action="append",
        required=required,
        metavar=("IMAGE", "SEG"),
        help=text,
    )


def _add_intensity_offset(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--intensity-offset",
        type=_number(-1e9),
        metavar="X",
        help="add X to every value of the images, such as -1024 for CT that was stored without a "
        "sign (default: such CT is recognised, which is told; 0 leaves all values as they are)",
    )


def _add_structures(sub: argparse.ArgumentParser, text: str) -> None:
    sub.add_argument("--structures", metavar="VALUE=NAME,...", help=text)


def _add_model_id(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("model", metavar="MODEL", help="its id; 'fewshotseg models' lists them")


def _add_model_and_seed(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--model",
        metavar="ID",
        help="foundation model, by id ('fewshotseg models' lists them) or by the path of its "
        "JSON entry (default: the embedded one for the images' modality)",
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
