"""What keeping freed memory gains: windows of SwinUNETR-48 and steps of full fine-tuning.

    python Testing/benchmarks/allocation.py

Each is run in a process of its own with and without ``allocation.keep_freed_memory``, in turns,
and the ratio of the best times is printed, with the peaks of memory. Weights are random.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

TURNS, TIMES = 2, 4


def main() -> None:
    """Compare, or be one of the processes that are compared."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        run(*args.run)
        return
    for work in ("SwinUNETR window", "fine-tuning step"):
        best, peak = {}, {}
        for _ in range(TURNS):
            for memory in ("as it comes", "kept"):
                command = [sys.executable, __file__, "--run", work, memory]
                found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
                best[memory] = min(found["seconds"], best.get(memory, found["seconds"]))
                peak[memory] = max(found["peak_gb"], peak.get(memory, 0.0))
        before, after = best["as it comes"], best["kept"]
        print(
            f"{work}: {before:.2f} s, {after:.2f} s with freed memory kept, "
            f"{before / after:.2f} times as fast; "
            f"peak {peak['as it comes']:.2f} GB, {peak['kept']:.2f} GB",
            flush=True,
        )


def run(work: str, memory: str) -> None:
    """Time one kind of work several times, the first not counted."""
    import resource
    import time

    import torch

    from FewShotSegLib.compute.allocation import keep_freed_memory

    if memory == "kept" and not keep_freed_memory():
        raise SystemExit("This system's C library has no such setting.")
    torch.manual_seed(0)
    step = window() if work == "SwinUNETR window" else tuning_step()
    times = []
    for _ in range(1 + TIMES):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # kilobytes on Linux
    print(json.dumps({"seconds": min(times[1:]), "peak_gb": peak}))


def window():
    """Features of one window of 96 voxels a side."""
    import torch

    from FewShotSegLib.compute.precision import at_speed
    from FewShotSegLib.models.backbones.swin_unetr import SwinUNETRBackbone

    network = SwinUNETRBackbone(48, 14, downsample="monai-0.9").eval()
    network = network.to(memory_format=torch.channels_last_3d)
    image = torch.rand(1, 1, 96, 96, 96).contiguous(memory_format=torch.channels_last_3d)

    def step():
        with torch.inference_mode(), at_speed(torch.device("cpu")):
            network.features(image)

    return step


def tuning_step():
    """A step on two crops of 64 voxels a side, of the network of ``embedded``."""
    import torch

    from FewShotSegLib.compute.precision import at_speed
    from FewShotSegLib.models.registry import find_model

    network = find_model("embedded").backbone.train()
    network.to(memory_format=torch.channels_last_3d)
    network.requires_grad_(True)
    images = torch.rand(2, 1, 64, 64, 64).contiguous(memory_format=torch.channels_last_3d)

    def step():
        network.zero_grad()
        with at_speed(torch.device("cpu")):
            features = network.features(images)
        sum(level.float().mean() for level in features).backward()

    return step


if __name__ == "__main__":
    main()
