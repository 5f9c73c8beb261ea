"""Trains with the real nnU-Net, adds what it left, and compares: theirs, ours, on one image.

``python Testing/support/nnunet_proof.py CASE FOLDER`` in an environment with ``nnunetv2`` prints
one line of JSON; without arguments all cases are run in a temporary folder, and ``--write`` keeps
their numbers in ``Testing/nnunet.json``. A training is one epoch of a few steps on a few cases of
the shared data: what it writes is genuine, and as good as untrained.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import SimpleITK as sitk
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from shared_data import data_folder  # noqa: E402

FILE = ROOT / "Testing" / "nnunet.json"
STEPS = 3
OTHER_VOXELS = (0.85, 1.2, 1.1)
NUMBER = 901
DATASET = f"Dataset{NUMBER}_Proof"


@dataclass(frozen=True)
class Case:
    """A data set and how it is planned.

    Attributes:
        channel: as ``dataset.json`` calls it: "CT" brings nnU-Net's CT normalisation.
        prepare: turns an image or a segmentation into the data set's.
        planner: nnU-Net's class. gigabytes: what it plans for. reader: in place of the usual.
        orientation: of the images' axes, for the model's entry.
    """

    channel: str
    source: str
    prepare: Callable[[sitk.Image], sitk.Image]
    planner: str = "ExperimentPlanner"
    gigabytes: float = 2.0
    reader: str | None = None
    orientation: str | None = None


def whole(image: sitk.Image) -> sitk.Image:
    return image


def every_fourth_sagittal_slice(image: sitk.Image) -> sitk.Image:
    """Voxels four times as long from left to right: an axis that nnU-Net brings to the front."""
    return image[1::4, :, :]


def with_zeros_around(image: sitk.Image) -> sitk.Image:
    """As images without skull are: mostly 0, so that nnU-Net normalises within a mask; with axes
    that it has to turn."""
    image = sitk.DICOMOrient(image, "LPS")
    size = image.GetSize()
    return sitk.ConstantPad(image, [n // 3 for n in size], [n // 4 for n in size], 0)


def middle(image: sitk.Image) -> sitk.Image:
    """A part of a CT that is larger than a window, and small enough for a minute's training."""
    size = image.GetSize()
    start = [max(0, (n - m) // 2) for n, m in zip(size, (64, 64, 48), strict=True)]
    return sitk.RegionOfInterest(
        image, [min(64, size[0]), min(64, size[1]), min(48, size[2])], start
    )


CASES = {
    "mr, plain": Case("MRI", "hippocampus", whole, orientation="RAS"),
    "ct, plain, several windows": Case("CT", "openkbp", middle, gigabytes=0.35, orientation="LPS"),
    "mr, residual, thick, transposed": Case(
        "MRI",
        "hippocampus",
        every_fourth_sagittal_slice,
        planner="nnUNetPlannerResEncM",
        orientation="RAS",
    ),
    "mr, plain, masked, reoriented": Case(
        "T1", "hippocampus", with_zeros_around, gigabytes=1.0, reader="NibabelIOWithReorient"
    ),
}


def pairs_of(case: Case) -> list[tuple[Path, Path]]:
    """Images and segmentations of the shared data, in order."""
    if case.source == "openkbp":
        images = sorted((data_folder() / "openkbp" / "dev").glob("*_ct.nii.gz"))
        return [(p, p.with_name(p.name.replace("_ct", "_seg"))) for p in images]
    images = sorted((data_folder() / "hippocampus" / "images").glob("*.nii.gz"))
    return [(p, p.parents[1] / "labels" / p.name) for p in images]


def write_data_set(case: Case, folder: Path, count: int = 5) -> None:
    """nnU-Net's raw data set, and an image that is not in it."""
    raw = folder / "raw" / DATASET
    for name in ("imagesTr", "labelsTr"):
        (raw / name).mkdir(parents=True)
    pairs = pairs_of(case)
    labels = {"background": 0, "first": 1, "second": 2}
    for number, (image, segmentation) in enumerate(pairs[:count]):
        name = f"case_{number:03d}"
        sitk.WriteImage(
            case.prepare(sitk.ReadImage(str(image))), raw / f"imagesTr/{name}_0000.nii.gz"
        )
        values = sitk.Cast(sitk.ReadImage(str(segmentation)), sitk.sitkUInt8)
        sitk.WriteImage(
            case.prepare(values * sitk.Cast(values < 3, sitk.sitkUInt8)),
            raw / f"labelsTr/{name}.nii.gz",
        )
    about: dict[str, Any] = {
        "channel_names": {"0": case.channel},
        "labels": labels,
        "numTraining": count,
        "file_ending": ".nii.gz",
    }
    if case.reader:
        about["overwrite_image_reader_writer"] = case.reader
    (raw / "dataset.json").write_text(json.dumps(about))
    query = case.prepare(sitk.ReadImage(str(pairs[count + 1][0])))
    # Of other voxels than those of the training, so that they have to be resampled.
    query.SetSpacing([n * m for n, m in zip(query.GetSpacing(), OTHER_VOXELS, strict=True)])
    sitk.WriteImage(query, query_of(folder))


def query_of(folder: Path) -> Path:
    """An image that nnU-Net has not seen."""
    return folder / "query_0000.nii.gz"


def train(case: Case) -> None:
    """Plans, prepares, and trains one short epoch."""
    from nnunetv2.experiment_planning import plan_and_preprocess_api as planning

    planning.extract_fingerprints([NUMBER], num_processes=1)
    plans = planning.plan_experiments(
        [NUMBER], experiment_planner_class_name=case.planner, gpu_memory_target_in_gb=case.gigabytes
    )
    planning.preprocess([NUMBER], plans, configurations=["3d_fullres"], num_processes=[1])
    train_planned(plans)


def train_planned(plans: str) -> None:
    """One epoch of nnU-Net of a few steps."""
    from nnunetv2.run import run_training as running
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    os.environ["nnUNet_n_proc_DA"] = "0"  # planning needs one
    initialise = nnUNetTrainer.initialize

    def shortened(self: Any) -> None:
        self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = STEPS, 1
        initialise(self)

    with (
        mock.patch.object(nnUNetTrainer, "initialize", shortened),
        mock.patch.object(nnUNetTrainer, "perform_actual_validation"),  # writes no weights
    ):
        running.run_training(
            str(NUMBER),
            "3d_fullres",
            0,
            trainer_class_name="nnUNetTrainer_1epoch",
            plans_identifier=plans,
            device=torch.device("cpu"),
        )


def theirs(model: Path, query: Path, precise: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The scores (rows, i, j, k) and labels (i, j, k) of nnU-Net's predictor, and where it looked.

    Args:
        precise: its sums of windows in single precision. It keeps half precision otherwise, whose
            rounding alone is a thousandth of a score of one.
    """
    from nnunetv2.inference import predict_from_raw_data as predicting
    from nnunetv2.inference.export_prediction import (
        convert_predicted_logits_to_segmentation_with_correct_shape as to_labels,
    )

    predictor = predicting.nnUNetPredictor(
        use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False
    )
    predictor.initialize_from_trained_model_folder(str(model), (0,), "checkpoint_final.pth")
    plans, configuration = predictor.plans_manager, predictor.configuration_manager
    preprocessor = configuration.preprocessor_class(verbose=False)
    data, _, properties = preprocessor.run_case(
        [str(query)], None, plans, configuration, predictor.dataset_json
    )
    half = torch.float32 if precise else torch.half
    with mock.patch.object(torch, "half", half):
        scores = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data))
    forward, back = plans.transpose_forward, plans.transpose_backward
    whole = configuration.resampling_fn_probabilities(
        scores,
        properties["shape_after_cropping_and_before_resampling"],
        configuration.spacing,
        [properties["spacing"][axis] for axis in forward],
    )
    placed = np.full((len(whole), *properties["shape_before_cropping"]), np.nan, np.float32)
    box = tuple(slice(*ends) for ends in properties["bbox_used_for_cropping"])
    placed[(slice(None), *box)] = whole
    labels = to_labels(scores, plans, configuration, predictor.label_manager, properties)
    placed = placed.transpose(0, *[axis + 1 for axis in back])
    return placed.transpose(0, 3, 2, 1), np.asarray(labels).transpose(2, 1, 0), data


def compare(case: Case, model: Path, query: Path) -> dict[str, Any]:
    """Adds the model, and measures how far the scores of both are apart."""
    from FewShotSegLib import add_model
    from FewShotSegLib.inference.published import published_scores
    from FewShotSegLib.io.volumes import read_image
    from FewShotSegLib.models.registry import find_model

    shutil.rmtree(os.environ["FEWSHOTSEG_HOME"], ignore_errors=True)  # of a run before
    added = add_model(model, orientation=case.orientation)
    found = find_model(added.id)
    volume, modality = read_image(query), found.entry.modality[0]
    image, placement = found.entry.preprocessing[modality](volume)
    ours = published_scores(found, volume, modality).numpy()
    numbers: dict[str, Any] = {"facts": list(added.facts)}
    for name, precise in (("as they round", False), ("in single precision", True)):
        scores, labels, data = theirs(model, query, precise)
        if case.reader:  # its scores are on the turned image
            scores, labels = (np.flip(part, (-3, -2)) for part in (scores, labels))
        seen = np.isfinite(scores[0])
        numbers[name] = {
            "largest difference": float(np.abs(ours - scores)[:, seen].max()),
            "largest score": float(np.abs(scores[:, seen]).max()),
            "labels alike": float((ours.argmax(0) == labels).mean()),
        }
    inner = tuple(slice(b, b + n) for b, n in zip(placement.before, placement.inner, strict=True))
    return numbers | {
        "largest difference of the image": float(
            np.abs(image[(0, 0, *inner)].numpy() - data[0]).max()
        ),
        "image": list(volume.grid.shape),
        "model grid": list(placement.shape),
        "inner": list(placement.inner),
        "window": list(found.entry.window),
        "orientation": found.entry.preprocessing[modality].orientation,
        "strides": [list(s) if isinstance(s, tuple) else s for s in found.backbone.strides],
        "labels": np.bincount(ours.argmax(0).ravel(), minlength=3).tolist(),
    }


def prepare_environment(folder: Path) -> None:
    """The variables that nnU-Net reads when it is imported, and generators it draws from."""
    for part in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{part}"] = str(folder / part)
        (folder / part).mkdir(parents=True, exist_ok=True)
    os.environ |= {"nnUNet_compile": "f", "nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1"}
    os.environ["FEWSHOTSEG_HOME"] = str(folder / "home")
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  nnU-Net draws from it


def run_case(name: str, folder: Path) -> dict[str, Any]:
    """One case, in this process."""
    prepare_environment(folder)
    begun = time.monotonic()
    trained = folder / "results" / DATASET
    if not list(trained.glob("*/fold_0/checkpoint_final.pth")):
        write_data_set(CASES[name], folder)
        train(CASES[name])
    numbers = compare(CASES[name], next(trained.glob("nnUNetTrainer_*")), query_of(folder))
    return numbers | {"seconds": round(time.monotonic() - begun)}


def run_alone(name: str, folder: Path) -> dict[str, Any]:
    """One case in a process of its own: nnU-Net reads its folders when it is imported."""
    done = subprocess.run(
        [sys.executable, __file__, name, str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", nargs="?", choices=list(CASES))
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--write", action="store_true", help="the numbers of all cases")
    parser.add_argument("--keep", type=Path, help="a folder for all; what is trained there stays")
    arguments = parser.parse_args()
    if arguments.case:
        with tempfile.TemporaryDirectory() as elsewhere:
            folder = arguments.folder or Path(elsewhere)
            print(json.dumps(run_case(arguments.case, folder)))
        return
    numbers = {}
    for number, name in enumerate(CASES, 1):
        with tempfile.TemporaryDirectory() as elsewhere:
            folder = (arguments.keep or Path(elsewhere)) / f"{number}"
            numbers[name] = run_alone(name, folder)
        print(name, json.dumps(numbers[name], indent=1), flush=True)
    if arguments.write:
        FILE.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
