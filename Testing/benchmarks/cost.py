"""What five shots and a query cost, beside the work that can't be avoided; and peak memory.

    python Testing/benchmarks/cost.py DATA --structures 4=parotid_right,5=parotid_left

Runs the command line as a user does, with an empty cache: `adapt` on five supports, then `segment`
with transduction on a sixth volume. Unavoidable is one pass of the frozen backbone over the five
supports and the query. Then the same again with another learning rate and seed, which must run no
backbone pass, and one synthetic CT of 512 x 512 x 300 voxels for the peak of memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import SimpleITK as sitk

from FewShotSegLib.io.pairs import find_pairs
from FewShotSegLib.io.results import write_label_map
from FewShotSegLib.phantoms.patients import make_phantom
from FewShotSegLib.pipeline.adapter_file import read_metadata
from FewShotSegLib.pipeline.report import read_reports

ALLOWED_FACTOR, ALLOWED_SECONDS, ALLOWED_GB = 1.5, 60.0, 6.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--structures")
    parser.add_argument("--skip-memory", action="store_true")
    parser.add_argument("--make-phantoms", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.make_phantoms:
        return make_phantoms(args.data)
    print(f"{os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        measure_time(Path(folder), args)
    if not args.skip_memory:
        with tempfile.TemporaryDirectory() as folder:
            measure_memory(Path(folder))


def measure_time(folder: Path, args: argparse.Namespace) -> None:
    """Five shots and one query, twice."""
    pairs = find_pairs(args.data)[:6]
    adapter, out, cache = folder / "a.fseft", folder / "seg.nii.gz", ["--cache", folder / "cache"]
    adapt = ["adapt", *cache, "--out", adapter]
    for pair in pairs[:5]:
        adapt += ["--support", pair.image, pair.segmentation]
    if args.structures:
        adapt += ["--structures", args.structures]
    segment = ["segment", *cache, "--adapter", adapter, "--out", out, pairs[5].image]
    unavoidable = 0.0
    for name, extra in (("first", []), ("again", ["--learning-rate", "0.001", "--seed", "7"])):
        training = run(adapt + extra)
        querying = run(segment)
        trained = read_metadata(adapter)["training"]
        report = read_reports(folder / "report.json")[out.name]
        passes = trained["backbone_passes"] + report["backbone_passes"]
        backbone = trained["backbone_seconds"] + report["backbone_seconds"]
        total = training + querying
        unavoidable = unavoidable or backbone
        allowed = ALLOWED_FACTOR * unavoidable + ALLOWED_SECONDS
        print(
            f"{name}: adapt {training:.1f} s + segment {querying:.1f} s = {total:.1f} s; backbone "
            f"{passes} passes, {backbone:.1f} s; allowed 1.5 x {unavoidable:.1f} + 60 = "
            f"{allowed:.1f} s; ratio {total / allowed:.2f}"
        )
        print(f"  adapt by stage {trained['seconds']}, {trained['epochs']} epochs")
        print(f"  segment by stage {report['seconds']}, {report['refined_epochs']} epochs")


def measure_memory(folder: Path) -> None:
    """One adapter of a small phantom, one query of 512 x 512 x 300 voxels."""
    # In a process of its own: a child's peak counts what its parent held when it was forked.
    subprocess.run([sys.executable, __file__, str(folder), "--make-phantoms"], check=True)
    cache = ["--cache", folder / "cache"]
    support = ["--support", folder / "support.nii.gz", folder / "seg.nii.gz"]
    run(["adapt", *cache, *support, "--epochs", "10", "--out", folder / "a.fseft"])
    arguments = ["segment", *cache, "--adapter", folder / "a.fseft"]
    arguments += ["--out", folder / "q_seg.nii.gz", folder / "query.nii.gz"]
    start = time.perf_counter()
    process = subprocess.Popen(
        command(arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit("segmenting the large volume failed")
    peak = usage.ru_maxrss / 2**20  # kilobytes on Linux
    report = read_reports(folder / "report.json")["q_seg.nii.gz"]
    print(
        f"512 x 512 x 300: {seconds:.1f} s, backbone {report['backbone_seconds']:.1f} s, peak "
        f"memory {peak:.2f} GB; allowed {ALLOWED_GB:g} GB; ratio {peak / ALLOWED_GB:.2f}"
    )
    print(f"  by stage {json.dumps(report['seconds'])}")


def make_phantoms(folder: Path) -> None:
    """A small annotated one, and a large one."""
    volume, annotation = make_phantom(1)
    save_image(folder / "support.nii.gz", volume)
    labels = sum(annotation.masks[s.name] * s.value for s in annotation.structures)
    write_label_map(folder / "seg.nii.gz", labels.astype("uint8"), volume.grid)
    volume, _ = make_phantom(2, (0.7, 0.7, 1.0), (512, 512, 300))
    save_image(folder / "query.nii.gz", volume)


def save_image(path: Path, volume) -> None:
    """A phantom as NIfTI."""
    image = sitk.GetImageFromArray(volume.array.T)
    image.SetSpacing(volume.grid.spacing)
    image.SetOrigin(volume.grid.origin)
    image.SetDirection(volume.grid.direction)
    sitk.WriteImage(image, str(path))


def command(arguments: list) -> list[str]:
    """The command line of these arguments."""
    return [sys.executable, "-m", "FewShotSegLib", *map(str, arguments)]


def run(arguments: list) -> float:
    """Run the command line; seconds that it took."""
    start = time.perf_counter()
    subprocess.run(
        command(arguments), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
