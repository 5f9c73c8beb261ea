"""What a large foundation model needs on a CPU for a CT of 512 x 512 x 300 voxels.

    python Testing/benchmarks/memory.py                      # 0.8 x 0.8 x 1.5 mm
    python Testing/benchmarks/memory.py --spacing 0.98 0.98 2.5

Runs `adapt` on one such volume and `segment` with transduction on another through the command
line's own code, each in a process of its own, and prints the peak of its memory. The network is
SwinUNETR-48 with random weights, which costs as much as any others. It really runs on one window
in `--every`, the first two among them, and gives the same features again for the windows between:
everything but the time is real. That is extrapolated from the windows that ran. `--every 1` leaves
nothing out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

SHAPE = (512, 512, 300)
ALLOWED_GB = 24.0


def main() -> None:
    """Measure and print, or be one of the processes that are measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--spacing", type=float, nargs=3, default=(0.8, 0.8, 1.5))
    parser.add_argument("--shape", type=int, nargs=3, default=SHAPE)
    parser.add_argument("--every", type=int, default=20)
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.prepare:
        prepare(args.prepare, tuple(args.spacing), tuple(args.shape))
    elif args.command:
        sys.exit(run_command(args.command, args.every))
    else:
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder), args)


def measure(folder: Path, args: argparse.Namespace) -> None:
    """Adapt and segment, each in a process of its own."""
    here = [sys.executable, __file__, "--every", str(args.every)]
    numbers = ["--spacing", *map(str, args.spacing), "--shape", *map(str, args.shape)]
    # In a process of its own: a child's peak counts what its parent held when it was forked.
    subprocess.run([*here, *numbers, "--prepare", str(folder)], check=True)
    shape = " x ".join(map(str, args.shape))
    print(f"{os.cpu_count()} cores; {shape} voxels of {args.spacing} mm", flush=True)
    cache = ["--events", "--cache", folder / "cache"]
    adapt = [
        "adapt",
        *cache,
        "--support",
        folder / "support.nii.gz",
        folder / "support-labels.nii.gz",
    ]
    adapt += ["--model", folder / "swin.json", "--epochs", "10", "--out", folder / "a.fseft"]
    # Hardly any tolerance, so that transduction has something to do.
    segment = ["segment", *cache, "--adapter", folder / "a.fseft", "--gamma", "0.01"]
    segment += ["--model", folder / "swin.json", "--out", folder / "out.nii.gz"]
    for arguments in (adapt, [*segment, folder / "query.nii.gz"]):
        run_measured([*here, "--command", *map(str, arguments)], arguments[0])


def run_measured(program: list[str], name: str) -> None:
    """Run one command and print its peak of memory, its time and its estimate."""
    start = time.perf_counter()
    process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    events = [json.loads(line) for line in process.stdout]
    _, status, usage = os.wait4(process.pid, 0)
    process.stdout.close()
    if status:
        raise SystemExit(f"{name} failed: {events[-1:]}")
    peak = usage.ru_maxrss / 2**20  # kilobytes on Linux
    print(
        f"{name}: peak memory {peak:.2f} GB of {ALLOWED_GB:g} allowed, "
        f"{time.perf_counter() - start:.0f} s as run",
        flush=True,
    )
    for event in events:
        if event["event"] == "estimate":
            print(
                f"  announced: {event['seconds']:.0f} s for {event['windows']} windows of "
                f"{event['window_seconds']:.1f} s; {event['bytes'] / 2**30:.2f} GB of cache"
            )
    epochs = sum(event["event"] == "epoch" for event in events)
    print(f"  {epochs} epochs of {'training' if name == 'adapt' else 'transduction'}", flush=True)


def run_command(arguments: list[str], every: int) -> int:
    """The command line, with a network that runs on one window in ``every``."""
    from FewShotSegLib.cli import command_line as cli
    from FewShotSegLib.models.backbones import swin_unetr
    from FewShotSegLib.models.backbones.swin_unetr import SwinUNETRBackbone

    class NowAndThen(SwinUNETRBackbone):
        """The real network now and then; in between, what it gave last."""

        count, last = 0, None

        def features(self, image):
            if self.count < 2 or self.count % every == 0:  # the estimate may rest on the second
                start, work = time.perf_counter(), time.process_time()
                self.last = super().features(image)
                seconds, work = time.perf_counter() - start, time.process_time() - work
                line = f"  a window: {seconds:.1f} s, {work:.1f} s of work"
                print(line, file=sys.stderr, flush=True)
            self.count += 1
            return self.last

    swin_unetr.SwinUNETRBackbone = NowAndThen  # where the architecture's record finds its class
    return cli.main(arguments)


def prepare(folder: Path, spacing: tuple[float, ...], shape: tuple[int, ...]) -> None:
    """Two patients, the network's weights and its entry."""
    from cost import save_image
    from safetensors.torch import save_file

    from FewShotSegLib.core.geometry import Volume
    from FewShotSegLib.core.model_folders import EMBEDDED_FOLDER
    from FewShotSegLib.io.results import write_label_map
    from FewShotSegLib.models.backbones.swin_unetr import SwinUNETRBackbone
    from FewShotSegLib.phantoms.patients import make_phantom

    # Drawn coarsely and enlarged: their anatomy doesn't matter here, and costs minutes.
    coarse = tuple(n // 2 for n in shape)
    for number, name in ((1, "support"), (2, "query")):
        volume, annotation = make_phantom(number, tuple(2 * s for s in spacing), coarse)
        grid = replace(volume.grid, shape=tuple(2 * n for n in coarse), spacing=spacing)
        save_image(folder / f"{name}.nii.gz", Volume(enlarged(volume.array), grid))
        labels = sum(annotation.masks[s.name] * s.value for s in annotation.structures)
        write_label_map(folder / f"{name}-labels.nii.gz", enlarged(labels.astype("uint8")), grid)
    state = SwinUNETRBackbone(48, 14, downsample="monai-0.9").state_dict()
    # Names that are one tensor are stored once; the loader knows.
    seen = {tensor.data_ptr(): name for name, tensor in state.items()}
    tensors = {name: tensor for name, tensor in state.items() if seen[tensor.data_ptr()] == name}
    save_file(tensors, folder / "swin.safetensors")
    entry = json.loads((EMBEDDED_FOLDER / "btcv.json").read_text(encoding="utf-8"))
    entry |= {"id": "swin", "weights": "swin.safetensors"}
    (folder / "swin.json").write_text(json.dumps(entry), encoding="utf-8")


def enlarged(array):
    """Twice as many voxels along each axis."""
    for axis in range(3):
        array = array.repeat(2, axis)
    return array


if __name__ == "__main__":
    main()
