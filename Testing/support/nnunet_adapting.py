"""Adapts a model that the real nnU-Net trained, and the same network untrained, on real data.

nnU-Net trains briefly on the whole hippocampus; the adapters then learn its two parts, which it has
never seen apart, from two annotated volumes. ``python Testing/support/nnunet_adapting.py`` in an
environment with ``nnunetv2`` prints Dice by method; ``--write`` keeps it in
``Testing/nnunet_adapting.json``, ``--keep FOLDER`` keeps what was trained.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import nnunet_proof
import numpy as np
import SimpleITK as sitk
import torch
from nnunet_proof import CASES, DATASET, NUMBER, ROOT, pairs_of

FILE = ROOT / "Testing" / "nnunet_adapting.json"
STRUCTURES = "1=anterior,2=posterior"
TRAINED, SUPPORTS, QUERIES = 30, 2, 3
STEPS, BATCH = 43, 2
METHODS = {
    "linear-probe": {"epochs": 15},
    "adapter-1x1": {"epochs": 15},
    "adapter": {"epochs": 15},
    "bias": {"epochs": 3},
    "affine": {"epochs": 3},
    "lora": {"epochs": 3},
    "cnn-adapter": {"epochs": 3},
    "ft-last": {"epochs": 3},
    "ft": {"epochs": 3},
}
"""Of every method that has a meaning on a trained convolutional network, the epochs; ``scratch``
forgets what was trained, ``adaptformer`` and ``compacter`` are for transformers."""


def write_data_set(folder: Path) -> None:
    """The first volumes, with one label for both parts of the hippocampus."""
    raw = folder / "raw" / DATASET
    for name in ("imagesTr", "labelsTr"):
        (raw / name).mkdir(parents=True)
    for number, (image, segmentation) in enumerate(pairs_of(CASES["mr, plain"])[:TRAINED]):
        shutil.copyfile(image, raw / f"imagesTr/case_{number:03d}_0000.nii.gz")
        whole = sitk.Cast(sitk.ReadImage(str(segmentation)) > 0, sitk.sitkUInt8)
        sitk.WriteImage(whole, raw / f"labelsTr/case_{number:03d}.nii.gz")
    about = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "hippocampus": 1},
        "numTraining": TRAINED,
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(about))


def train(folder: Path) -> Path:
    """One epoch of nnU-Net, of small batches; the folder that it leaves."""
    from nnunetv2.experiment_planning import plan_and_preprocess_api as planning

    planning.extract_fingerprints([NUMBER], num_processes=1)
    name = planning.plan_experiments([NUMBER])
    file = folder / "preprocessed" / DATASET / f"{name}.json"
    plans = json.loads(file.read_text())
    plans["configurations"]["3d_fullres"]["batch_size"] = BATCH
    file.write_text(json.dumps(plans))
    planning.preprocess([NUMBER], name, configurations=["3d_fullres"], num_processes=[1])
    with mock.patch.object(nnunet_proof, "STEPS", STEPS):
        nnunet_proof.train_planned(name)
    return next((folder / "results" / DATASET).glob("nnUNetTrainer_*"))


def untrained(model_id: str) -> str:
    """The same network with the weights that nnU-Net begins with, as a model of its own."""
    from safetensors.torch import load_file, save_file

    from FewShotSegLib.core.model_folders import file_sha256, user_folder

    folder = user_folder()
    entry = json.loads((folder / f"{model_id}.json").read_text())
    state = load_file(folder / entry["weights"])
    torch.manual_seed(0)
    for name, tensor in state.items():
        if tensor.ndim > 1:
            torch.nn.init.kaiming_normal_(tensor, 0.01)
        else:
            tensor.fill_(1.0 if name.endswith("norm.weight") else 0.0)
    weights = folder / "untrained.safetensors"
    save_file(state, weights)
    entry |= {"id": "untrained", "weights": weights.name, "sha256": file_sha256(weights)}
    (folder / "untrained.json").write_text(json.dumps(entry))
    return "untrained"


def dice_of(model: str, method: str, epochs: int, folder: Path) -> list[float]:
    """Mean Dice of both parts on each query."""
    from FewShotSegLib import adapt, segment
    from FewShotSegLib.core.annotation import parse_structures
    from FewShotSegLib.evaluation.metrics import evaluate_files
    from FewShotSegLib.pipeline.runtime import Runtime

    runtime = Runtime("cpu")
    pairs = pairs_of(CASES["mr, plain"])[TRAINED:]
    out = folder / f"{model} {method}.fseft"
    adapt(
        pairs[:SUPPORTS],
        out,
        structures=STRUCTURES,
        model=model,
        method=method,
        epochs=epochs,
        validate=False,
        modality="MR",
        runtime=runtime,
    )
    found = []
    for image, segmentation in pairs[SUPPORTS : SUPPORTS + QUERIES]:
        result = folder / "result.nii.gz"
        segment(out, image, out=result, runtime=runtime)
        scores = evaluate_files(segmentation, result, parse_structures(STRUCTURES))
        found.append(float(np.mean([score.dice for score in scores.values()])))
    return found


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--picture", type=Path, help="draw the first of --methods on a query")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as elsewhere:
        folder = arguments.keep or Path(elsewhere)
        nnunet_proof.prepare_environment(folder)
        if not (folder / "results" / DATASET).is_dir():
            write_data_set(folder)
            train(folder)
        if arguments.picture and arguments.keep:  # of what was trained before
            draw(folder, arguments.methods[0], arguments.picture)
            return
        adapted(folder, arguments.methods, FILE if arguments.write else None)


def adapted(folder: Path, methods: list[str], file: Path | None) -> None:
    """Print Dice by method and model; keep it in ``file`` as well, with what is there."""
    from FewShotSegLib import add_model

    if not (folder / "home").is_dir():
        trained = next((folder / "results" / DATASET).glob("nnUNetTrainer_*"))
        untrained(add_model(trained, orientation="RAS", name="trained").id)
    models = ("trained", "untrained")
    numbers: dict[str, Any] = {}
    if file is not None and file.is_file():
        numbers = json.loads(file.read_text(encoding="utf-8"))
    for method in methods:
        begun = time.monotonic()
        found = {
            model: [round(x, 4) for x in dice_of(model, method, METHODS[method]["epochs"], folder)]
            for model in models
        }
        numbers[method] = {**METHODS[method], **found}
        seconds = time.monotonic() - begun
        means = {kind: round(float(np.mean(values)), 3) for kind, values in found.items()}
        print(method, means, f"{seconds:.0f} s", flush=True)
        if file is not None:
            file.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")


def draw(folder: Path, method: str, picture: Path) -> None:
    """One query with the adapter on the untrained network and on nnU-Net's."""
    from PIL import Image

    from FewShotSegLib import segment
    from FewShotSegLib.core.annotation import parse_structures
    from FewShotSegLib.evaluation.metrics import evaluate
    from FewShotSegLib.io.annotations import read_annotation
    from FewShotSegLib.io.volumes import read_image
    from FewShotSegLib.overlay.picture import Legend, Panel, draw_overlay
    from FewShotSegLib.pipeline.runtime import Runtime

    image, segmentation = pairs_of(CASES["mr, plain"])[TRAINED + SUPPORTS]
    volume, structures = read_image(image), parse_structures(STRUCTURES)
    annotation = read_annotation(segmentation, volume.grid, structures)
    reference = {s.name: annotation.mask(s.name) for s in structures}
    panels, result = [], None
    for title, kind in (("On the network untrained", "untrained"), ("On nnU-Net's", "trained")):
        result = segment(folder / f"{kind} {method}.fseft", image, runtime=Runtime("cpu"))
        scores = evaluate(reference, result.masks, volume.grid)
        panels.append(Panel(title, result.masks, {n: s.dice for n, s in scores.items()}))
    draw_overlay(
        picture,
        volume,
        panels,
        Legend(result.structures, reference),
        title="Two parts of the hippocampus",
        subtitle=f"{METHODS[method]['epochs']} epochs of {method} on two annotated volumes",
    )
    with Image.open(picture) as large:  # at half the size, for a page
        half = large.convert("RGB").resize([n // 2 for n in large.size], Image.Resampling.LANCZOS)
    half.quantize(160).save(picture, optimize=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
