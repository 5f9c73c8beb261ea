"""What a pre-trained backbone is worth to adapters, in minutes: small tasks on novel structures.

    python Testing/benchmarks/proxies.py MODEL.json --data DATA --out FOLDER

Five supports (or ``--shots``), three draws, three or four queries a draw. Tasks: parotid glands on
CT and the parts of the hippocampus (the first queries of the plans beside this file, so that the
committed rows of Scratch compare), the prostate on MR, the organs of synthetic patients, and
structures that the recipes hide from an atlas, on synthetic volumes of a contrast and a deformation
that no training draws. A draw of these has one contrast, as one scanner's images have.

Rows are kept in the folder, and what is there is not run again; with ``--method scratch`` the same
network is trained from random weights, which is the line to beat. ``--list`` prints what is known.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from FewShotSegLib.core.atomic import write_json
from FewShotSegLib.evaluation.benchmark.cells import Models, cells
from FewShotSegLib.evaluation.benchmark.plan import read_plan
from FewShotSegLib.evaluation.benchmark.results import NAME, Results
from FewShotSegLib.evaluation.benchmark.run import run_benchmark
from FewShotSegLib.io.pairs import find_pairs
from FewShotSegLib.io.volumes import array_of, grid_of, read_file
from FewShotSegLib.models.preprocessing import Preprocessing
from FewShotSegLib.models.registry import find_model
from FewShotSegLib.phantoms.patients import write_phantoms
from FewShotSegLib.pipeline import Runtime
from FewShotSegLib.pretraining.cases import nearest_to_model
from FewShotSegLib.pretraining.packed.contrast import Contrast, disturb, stretch, synthesise
from FewShotSegLib.pretraining.packed.pack import PackedVolume
from FewShotSegLib.pretraining.packed.views import Deformation, crop_places, look_up

PLANS = Path(__file__).parent / "plans"
SEED, DRAWS, SUPPORTS, QUERIES = 2026, 3, 5, 4
ATLASES: dict[str, tuple[float, tuple[int, int, int], dict[str, tuple[int, ...]]]] = {
    "abdomen": (
        3.0,
        (112, 80, 80),
        {"stomach": (13,), "psoas_right": (131,), "psoas_left": (231,), "gallbladder": (10,)},
    ),
    "knee": (1.5, (80, 80, 72), {"popliteus": (22,), "medial_meniscus": (82,), "patella": (98,)}),
    "brain": (
        1.6,
        (96, 112, 96),
        {"putamen_left": (12,), "putamen_right": (51,), "pons": (35,)},
    ),
}
"""By atlas, mm of a voxel, voxels, and the structures with their label values in the atlas."""
UNSEEN = Deformation(rotation=12.0, stretch=0.12, shear=0.08, bend=0.05, ripple=0.015, jitter=0.04)


def main() -> None:
    """Run the tasks and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="entry (.json) or id of a foundation model")
    parser.add_argument("--mr-model", help="for the MR tasks, where the model has no MR")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="rows, and the synthetic volumes")
    parser.add_argument("--name", help="in the table; the model's by default")
    parser.add_argument("--method", default="adapter")
    parser.add_argument("--untrained", action="store_true")
    parser.add_argument("--shots", type=int, default=SUPPORTS)
    parser.add_argument("--tasks", nargs="*")
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--list", action="store_true", help="run nothing")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    make_volumes(args.data, args.out / "volumes")
    name = args.name or f"{Path(args.model).stem}{' untrained' * args.untrained} {args.method}"
    line = [name]
    for task, modality, spacing in tasks(args.data, args.out / "volumes", args.draws):
        if args.tasks and task["name"] not in args.tasks:
            continue
        model = (args.mr_model or args.model) if modality == "MR" else args.model
        found = run(task, modality, spacing, model, args)
        line.append(f"{task['name']} {found}")
        print(" | ".join(line), flush=True)


def run(
    task: dict[str, Any], modality: str, spacing: float, model: str, args: argparse.Namespace
) -> str:
    """One task: mean Dice over structures and queries, and the spread over the draws."""
    entry = find_model(model).entry
    if modality not in entry.preprocessing:
        return "-"
    folder = args.out / f"{task['name']} {spacing:g} mm".replace(" ", "-")
    method = {"name": "x", "method": args.method, "untrained": args.untrained}
    shown = variant(entry.to_json(), modality, spacing, folder)
    plan = {"title": "proxies", "model": str(shown), "shots": [args.shots]}
    # Beside the model, so that two models can be scored in parallel.
    path = shown.parent / f"plan-{args.method}-{args.shots}.json"
    write_json(path, {**plan, "methods": [method], "tasks": [task]})
    plan = read_plan(path)
    results, models = Results(folder / NAME), Models(folder / "untrained")
    todo = list(cells(plan, models))
    if not args.list:
        run_benchmark(plan, results, todo, models, [], runtime=Runtime("cpu"))
    group = next(iter(plan.tasks[0].groups.values()))
    draws = []
    for cell in todo:
        rows = [results.get(cell.setting, query) for query in cell.draw.queries]
        if all(rows):
            values = [row["dice"][s] for row in rows for s in group]
            draws.append(mean(value for value in values if value is not None))
    if not draws:
        return "not run"
    short = "" if len(draws) == len(todo) else f" ({len(draws)} draws)"
    return f"{mean(draws):.3f} ± {pstdev(draws):.3f}{short}"


def variant(entry: dict[str, Any], modality: str, spacing: float, folder: Path) -> Path:
    """The entry with the task's spacing, which stands for a grid that follows the field of view."""
    entry = {k: v for k, v in entry.items() if k != "installed"}
    entry["preprocessing"] = json.loads(json.dumps(entry["preprocessing"]))
    entry["preprocessing"][modality]["spacing"] = 3 * [spacing]
    weights = Path(entry["weights"]).resolve()
    entry["weights"] = weights.name
    path = folder / "models" / entry["sha256"][:8] / f"{entry['id']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(weights, path.parent / weights.name)
    write_json(path, entry)
    return path


def tasks(data: Path, made: Path, draws: int) -> list[tuple[dict[str, Any], str, float]]:
    """Each task as a plan has it, its modality, and mm of the model grid."""
    found = []
    for plan, group, modality, spacing in (
        ("head-and-neck-ct", "parotids (novel)", "CT", 3.0),
        ("hippocampus-mr", None, "MR", 1.0),
    ):
        task = json.loads((PLANS / f"{plan}.json").read_text())["tasks"][0]
        names = [item.split("=")[1] for item in task["structures"].split(",")]
        task = {
            **task,
            "name": "parotids" if group else "hippocampus",
            "data": str((data / task["data"]).resolve()),
            "groups": {"all": task["groups"][group] if group else names},
            "draws": [{**d, "queries": d["queries"][:QUERIES]} for d in task["draws"][:draws]],
        }
        found.append((task, modality, spacing))
    found.append((_drawn("prostate", data / "prostate_mr", "1=prostate", draws), "MR", 1.0))
    organs = json.loads((made / "phantoms" / "labels.json").read_text())
    organs = ",".join(f"{value}={name}" for value, name in organs.items())
    found.append((_drawn("phantoms", made / "phantoms", organs, draws), "CT", 3.0))
    for atlas, (spacing, _, structures) in ATLASES.items():
        task = {
            "name": f"{atlas} atlas",
            "data": str((made / atlas).resolve()),
            "structures": ",".join(f"{n}={name}" for n, name in enumerate(structures, 1)),
            "draws": [
                {
                    "seed": draw,
                    "supports": [f"draw{draw}_{n}" for n in range(SUPPORTS)],
                    "queries": [f"draw{draw}_{n}" for n in range(SUPPORTS, SUPPORTS + QUERIES)],
                }
                for draw in range(draws)
            ],
        }
        found.append((task, "MR", spacing))
    return found


def _drawn(name: str, folder: Path, structures: str, draws: int) -> dict[str, Any]:
    names = [pair.name for pair in find_pairs(folder)]
    drawn = []
    for draw in range(draws):
        order = [names[n] for n in np.random.default_rng([SEED, draw]).permutation(len(names))]
        cases = {"supports": order[:SUPPORTS], "queries": order[SUPPORTS : SUPPORTS + QUERIES]}
        drawn.append({"seed": draw, **cases})
    return {
        "name": name,
        "data": str(folder.resolve()),
        "structures": structures,
        "draws": drawn,
    }


def make_volumes(data: Path, made: Path) -> None:
    """The synthetic patients and the atlases' synthetic volumes, once."""
    if not (made / "phantoms" / "labels.json").exists():
        write_phantoms(made / "phantoms", SUPPORTS + QUERIES + 3, seed=SEED, varied_grid=True)
    for number, (atlas, (spacing, shape, structures)) in enumerate(ATLASES.items()):
        if (made / atlas / "labels.json").exists():
            continue
        volume = atlas_volume(data / "atlases" / f"{atlas}.nii.gz", spacing)
        for draw in range(DRAWS):
            for case in range(SUPPORTS + QUERIES):
                rng = np.random.default_rng([SEED, number, draw, case])
                image, labels = synthetic(rng, [SEED, number, draw], volume, spacing, shape)
                kept = np.zeros(labels.shape, np.uint8)
                for value, (_, members) in enumerate(structures.items(), 1):
                    kept[np.isin(labels, members)] = value
                stem = made / atlas / f"draw{draw}_{case}"
                _write(stem.with_name(f"{stem.name}_mr.nii.gz"), image, spacing)
                _write(stem.with_name(f"{stem.name}_seg.nii.gz"), kept, spacing)
        write_json(made / atlas / "labels.json", dict(enumerate(structures, 1)))


def atlas_volume(path: Path, spacing: float) -> PackedVolume:
    """An atlas along R, A and S, cut to what is labelled, a little finer than ``spacing``."""
    file = read_file(path)
    fine = spacing / 1.5
    placement = Preprocessing("RAS", (fine, fine, fine), "identity").place(grid_of(file))
    labels = nearest_to_model(array_of(file), placement).astype(np.int16)
    there = np.argwhere(labels)
    box = tuple(slice(a, b + 1) for a, b in zip(there.min(0), there.max(0), strict=True))
    labels = torch.from_numpy(np.ascontiguousarray(labels[box]))
    return PackedVolume(path.stem, 0, (fine, fine, fine), labels, None, torch.zeros(0, 4).long())


def synthetic(
    rng: np.random.Generator,
    contrast_seed: list[int],
    volume: PackedVolume,
    spacing: float,
    shape: tuple[int, int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """One deformed volume: image (i, j, k) int16 and the atlas's labels."""
    device, settings = torch.device("cpu"), replace(Contrast(), alike=0.7, narrow=0.0)
    centre = np.array(volume.labels.shape) / 2
    place = crop_places(rng, UNSEEN, shape, centre, volume.spacing, spacing, device)
    labels = look_up(volume, place).labels
    noise = torch.Generator().manual_seed(int(rng.integers(2**62)))
    tables = np.random.default_rng(contrast_seed)
    image = synthesise(tables, noise, settings, labels, int(volume.labels.max()))
    # The scanner's ways change from patient to patient, a little.
    mild = replace(settings, bias=0.2, gamma=0.08, noise=0.04, coarsest=1.5)
    image = stretch(rng, disturb(rng, noise, mild, image))
    return (image * 1000).round().numpy().astype(np.int16), labels.numpy()


def _write(path: Path, array: np.ndarray, spacing: float) -> None:
    """Axes of the array along R, A and S."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    image.SetSpacing(3 * [spacing])
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    sitk.WriteImage(image, str(path), True)


if __name__ == "__main__":
    main()
