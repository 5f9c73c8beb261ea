"""Dice by class on the cases that were held out, on the model's grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..compute.precision import at_speed
from .assembly import Assembly
from .cases import Case
from .ddp import Ranks
from .network import PretrainingNetwork
from .sampling import whole_image

OVERLAP = 0.25


@torch.inference_mode()
def validate(
    network: PretrainingNetwork,
    assembly: Assembly,
    cases: Sequence[Case],
    ranks: Ranks,
    check: Callable[[], None],
) -> dict[str, float]:
    """Mean Dice of each class over the cases in which it is annotated and there.

    The processes share the cases, and all get the same answer.
    """
    sums = torch.zeros(len(assembly.classes), 2, device=ranks.device)
    for case in cases[ranks.rank :: ranks.world]:
        check()
        wanted = [k for k in sorted(case.places) if case.annotated[k]]
        if not wanted:
            continue
        found = _scores(network, assembly, case, wanted, ranks.device) > 0
        labels = torch.from_numpy(case.labels[...].copy()).to(ranks.device)
        for row, k in enumerate(wanted):
            truth = labels == k + 1
            both = (found[row] & truth).sum()
            dice = 2 * both / (found[row].sum() + truth.sum())
            sums[k] += torch.stack([dice, torch.ones_like(dice)])
    ranks.average([sums])
    return {
        name: round(float(total / count), 4)
        for name, (total, count) in zip(assembly.classes, sums.cpu(), strict=True)
        if count
    }


def _scores(
    network: PretrainingNetwork,
    assembly: Assembly,
    case: Case,
    wanted: Sequence[int],
    device: torch.device,
) -> Tensor:
    """Scores (classes, i, j, k) before the sigmoid, of these classes in a whole case."""
    stride = network.strides[0]

    def windows(images: Tensor) -> Tensor:
        with at_speed(device):
            scores = network(images)[0][:, wanted].float()
        if stride > 1:
            scores = torch.nn.functional.interpolate(
                scores, scale_factor=stride, mode="trilinear", align_corners=False
            )
        return scores

    from monai.inferers import sliding_window_inference  # not needed where nothing is held out

    image = whole_image(assembly, case)[None, None].to(device)
    crop = assembly.training.crop
    return sliding_window_inference(image, crop, 1, windows, OVERLAP, mode="gaussian")[0]
