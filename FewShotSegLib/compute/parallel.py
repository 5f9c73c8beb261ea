"""Independent pieces of work in parallel on a CPU's cores, with gradients if wanted.

A crop is too small to be shared out among cores operation by operation: they wait for each other
as long as they work. A crop for each of them is faster (``Testing/benchmarks/parallel.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

Piece = TypeVar("Piece")
Result = TypeVar("Result")
MOST = 4
"""Pieces in parallel: each needs its own memory. More cores than these work together on a piece."""


@contextmanager
def on_threads(count: int | None) -> Iterator[None]:
    """Work on so many CPU threads, and on as many as before after that; None leaves torch's choice.

    What runs later in this process must not be slowed by one work's choice.
    """
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_parallel(
    function: Callable[[Piece], Result], pieces: Sequence[Piece], device: torch.device
) -> list[Result]:
    """``function`` of every piece, in their order; on a GPU, or one thread, one after another.

    The function runs in threads of its own, where autocast is to be entered anew, and only reads
    what it shares. The first error is raised once all threads have ended.
    """
    threads = torch.get_num_threads()
    workers = min(MOST, threads, len(pieces))
    if device.type != "cpu" or workers < 2:
        return [function(piece) for piece in pieces]
    share = threads // workers
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def run(piece: Piece) -> Result:
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
            return function(piece)

    try:
        with ThreadPoolExecutor(workers, "piece", torch.set_num_threads, (share,)) as pool:
            return list(pool.map(run, pieces))
    finally:
        # It is each thread's own number, and that of threads to come.
        torch.set_num_threads(threads)


def differentiable_in_parallel(
    function: Callable[[Piece], Tensor],
    pieces: Sequence[Piece],
    parameters: Sequence[Tensor],
    device: torch.device,
) -> list[Tensor]:
    """:func:`in_parallel` for one tensor a piece, whose gradients are computed in parallel as well.

    Args:
        parameters: what the results depend on; gradients reach those that require them.
    """
    wanted = [parameter for parameter in parameters if parameter.requires_grad]
    if device.type != "cpu" or not wanted or not torch.is_grad_enabled():
        return in_parallel(function, pieces, device)
    apply: Any = _AtOnce.apply
    return list(apply(function, pieces, device, *wanted))


class _AtOnce(torch.autograd.Function):
    """Every piece keeps a graph of its own, which ends at the parameters."""

    @staticmethod
    def forward(
        ctx: Any,
        function: Callable[[Piece], Tensor],
        pieces: Sequence[Piece],
        device: torch.device,
        *parameters: Tensor,
    ) -> tuple[Tensor, ...]:
        def with_graph(piece: Piece) -> Tensor:
            with torch.enable_grad():
                return function(piece)

        ctx.parameters, ctx.device = parameters, device
        ctx.results = in_parallel(with_graph, pieces, device)
        return tuple(result.detach() for result in ctx.results)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        def of_piece(piece: tuple[Tensor, Tensor]) -> tuple[Tensor | None, ...]:
            result, gradient = piece
            return torch.autograd.grad(result, ctx.parameters, gradient, allow_unused=True)

        pieces = list(zip(ctx.results, gradients, strict=True))
        ctx.results = None  # the graphs are used up
        found = in_parallel(of_piece, pieces, ctx.device)
        sums = []
        for parts in zip(*found, strict=True):
            known = [part for part in parts if part is not None]
            sums.append(sum(known[1:], known[0]) if known else None)
        return (None, None, None, *sums)
