"""Interpolating coarse scores to a box: by ``upsampling.upsample`` and by torch's interpolate.

    python Testing/benchmarks/upsampling.py

Five levels as of the small U-Nets, two structures; a training crop with its gradient and a tile of
a prediction. The ratio of the best times is printed.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from FewShotSegLib.compute.upsampling import upsample

STRIDES, STRUCTURES, TIMES = (2, 4, 8, 16), 2, 20


def main() -> None:
    """Measure and print."""
    for side, trains in ((32, True), (64, False)):
        levels = [torch.randn(1, STRUCTURES, *3 * [side // s + 2]) for s in STRIDES]
        for level in levels:
            level.requires_grad_(trains)

        def by_torch(side: int = side, levels: list[Tensor] = levels) -> Tensor:
            total = torch.zeros(())
            for stride, level in zip(STRIDES, levels, strict=True):
                scores = interpolate(level, scale_factor=stride, mode="trilinear")
                total = total + scores[(..., *3 * [slice(stride, stride + side)])]
            return total

        def by_matrices(side: int = side, levels: list[Tensor] = levels) -> Tensor:
            total = torch.zeros(())
            for stride, level in zip(STRIDES, levels, strict=True):
                box = 3 * [slice(stride, stride + side)]
                total = total + upsample(level, stride, [(0, n) for n in level.shape[2:]], box)
            return total

        torch.testing.assert_close(by_torch(), by_matrices(), atol=1e-5, rtol=0)
        before, after = best(by_torch, trains), best(by_matrices, trains)
        what = f"crop of {side}, with gradient" if trains else f"tile of {side}"
        print(
            f"{what}: {1000 * before:.2f} ms by torch, {1000 * after:.2f} ms, "
            f"{before / after:.1f} times as fast"
        )


def best(function: Callable[[], Tensor], trains: bool) -> float:
    """The least of several times, s."""
    times = []
    for _ in range(TIMES):
        start = time.perf_counter()
        result = function()
        if trains:
            result.sum().backward()
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    main()
