"""Intensities of a crop: made from its labels, or a real image's changed; then a scanner's ways.

After Billot et al. (SynthSeg, Medical Image Analysis 86, 2023) and Dey et al. (anatomix, ICLR
2025): every structure has a grey value and a texture of its own in every crop, or shares them with
others, so that a network can't rely on any contrast.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.ranges import COARSEST, PART, SPREAD, require_within

FEW_GREYS = (3, 9)
"""Of how many grey values structures share one, where they do: as soft tissues do on CT."""
CLUTTER_BANDS = 4


@dataclass(frozen=True)
class Contrast:
    """How intensities are made and disturbed.

    Attributes:
        alike: how often structures share a few grey values instead of having each its own.
        clutter: how often what has no label is made of random parts instead of being dark.
        texture: the greatest standard deviation of a structure's own texture.
        remap: how often a real image's grey values go through a random curve.
        bias, gamma, noise: spreads; see :func:`disturb`.
        coarsest: how many times coarser the image may become along an axis.
        narrow: how often only a box of the crop is imaged.
    """

    alike: float = 0.5
    clutter: float = 0.6
    texture: float = 0.08
    remap: float = 0.3
    bias: float = 0.25
    gamma: float = 0.3
    noise: float = 0.06
    coarsest: float = 3.0
    narrow: float = 0.25

    def __post_init__(self) -> None:
        often = ("alike", "clutter", "remap", "narrow")
        require_within(
            self,
            **dict.fromkeys((*often, "texture", "noise"), PART),
            **dict.fromkeys(("bias", "gamma"), SPREAD),
            coarsest=COARSEST,
        )


def smooth_field(
    rng: np.random.Generator, knots: int, shape: tuple[int, ...], device: torch.device
) -> Tensor:
    """A field (I, J, K) of standard normal knots, interpolated."""
    values = rng.standard_normal((1, 1, knots, knots, knots)).astype(np.float32)
    field = torch.from_numpy(values).to(device)
    return F.interpolate(field, shape, mode="trilinear", align_corners=True)[0, 0]


def synthesise(
    rng: np.random.Generator, noise: torch.Generator, contrast: Contrast, labels: Tensor, top: int
) -> Tensor:
    """A synthetic image (I, J, K) float32 of labels (I, J, K) int64 from 0 to ``top``.

    Args:
        rng: of the tables, which are the same on every device. noise: of the device's own.
    """
    device, shape = labels.device, tuple(labels.shape)
    labels, count = labels.clone(), top + CLUTTER_BANDS + 1
    if rng.random() < contrast.clutter:
        # Fat, muscle, air and tables are not in label maps: parts of any shape stand for them.
        field = smooth_field(rng, int(rng.integers(4, 9)), shape, device)
        edges = torch.tensor(np.sort(rng.normal(0, 0.5, CLUTTER_BANDS)), device=device)
        bands = torch.bucketize(field.contiguous(), edges.float())
        labels = torch.where((labels == 0) & (bands > 0), top + bands, labels)
    means = rng.uniform(0, 1, count)
    if rng.random() < contrast.alike:
        few = rng.uniform(0, 1, rng.integers(*FEW_GREYS))
        means = few[rng.integers(len(few), size=count)] + rng.normal(0, 0.02, count)
    if rng.random() < 0.7:
        means[0] = rng.uniform(0, 0.1)
    fine = rng.uniform(0, contrast.texture, count) * (rng.random(count) < 0.7)
    rough = rng.uniform(0, contrast.texture, count) * (rng.random(count) < 0.4)
    tables = np.stack([means, fine, rough]).astype(np.float32)
    mean, fine, rough = torch.from_numpy(tables).to(device)[:, labels]
    white = torch.randn(shape, generator=noise, device=device)
    small = [max(2, n // 3) for n in shape]
    coarse = torch.randn((1, 1, *small), generator=noise, device=device)
    coarse = F.interpolate(coarse, shape, mode="trilinear")[0, 0]
    return mean + fine * white + rough * coarse


def recolour(rng: np.random.Generator, image: Tensor) -> Tensor:
    """Grey values in [0, 1] through a random curve, rising more often than not."""
    knots = rng.uniform(0, 1, 6)
    if rng.random() < 0.6:
        knots = np.sort(knots)
    table = torch.from_numpy(knots.astype(np.float32)).to(image.device)
    place = image.clamp(0, 1) * 4.999
    left = place.floor().long()
    return table[left] + (place - left) * (table[left + 1] - table[left])


def disturb(
    rng: np.random.Generator, noise: torch.Generator, contrast: Contrast, image: Tensor
) -> Tensor:
    """Blur, a bias field, gamma, thick slices and noise on an image (I, J, K)."""
    c, shape, device = contrast, tuple(image.shape), image.device
    for _ in range(rng.integers(0, 3)):
        image = F.avg_pool3d(F.pad(image[None, None], [1] * 6, mode="replicate"), 3, 1)[0, 0]
    if rng.random() < 0.6:
        image = image * (c.bias * smooth_field(rng, int(rng.integers(2, 5)), shape, device)).exp()
    if rng.random() < 0.4:
        low, high = image.amin(), image.amax()
        part = (image - low) / (high - low).clamp(min=1e-3)
        image = low + (high - low) * part ** math.exp(rng.normal(0, c.gamma))
    if rng.random() < 0.4 and c.coarsest > 1:
        factors = np.ones(3)
        factors[rng.integers(3)] = rng.uniform(1, c.coarsest)
        factors *= rng.uniform(1, 1.5)
        size = [max(2, round(n / f)) for n, f in zip(shape, factors, strict=True)]
        coarse = F.interpolate(image[None, None], size, mode="trilinear")
        image = F.interpolate(coarse, shape, mode="trilinear")[0, 0]
    if rng.random() < 0.6:
        spread = rng.uniform(0, c.noise)
        image = image + spread * torch.randn(shape, generator=noise, device=device)
    return image


def stretch(rng: np.random.Generator, image: Tensor) -> Tensor:
    """To [0, 1] between two percentiles, as preprocessing does with a volume, or a little off."""
    sample = image.flatten()[:: max(1, image.numel() // 20_000)]
    ends = torch.tensor([rng.uniform(0, 0.02), rng.uniform(0.98, 1)], device=image.device)
    low, high = torch.quantile(sample, ends.float())
    return ((image - low) / (high - low).clamp(min=1e-3)).clamp(0, 1)


def field_of_view(
    rng: np.random.Generator, contrast: Contrast, shape: tuple[int, ...], device: torch.device
) -> Tensor:
    """(I, J, K) bool: what is imaged, all or a box."""
    seen = torch.ones(shape, dtype=torch.bool, device=device)
    if rng.random() < contrast.narrow:
        for axis, n in enumerate(shape):
            size = max(1, round(n * rng.uniform(0.5, 1)))
            start = int(rng.integers(n - size + 1))
            seen.narrow(axis, 0, start).fill_(False)
            seen.narrow(axis, start + size, n - start - size).fill_(False)
    return seen


def make_image(
    rng: np.random.Generator,
    noise: torch.Generator,
    contrast: Contrast,
    labels: Tensor,
    image: Tensor | None,
    top: int,
    window: bool,
) -> Tensor:
    """The image (I, J, K) in [0, 1] of a crop.

    Args:
        image: a real one, or None to make one up.
        window: its values are a fixed window's (CT), which is kept more often than not.
    """
    if image is None:
        return stretch(
            rng, disturb(rng, noise, contrast, _bounded(rng, noise, contrast, labels, top))
        )
    changed = rng.random() < contrast.remap
    image = recolour(rng, image) if changed else image
    image = disturb(rng, noise, contrast, image)
    if window and not changed:
        shift, gain = rng.normal(0, 0.03), math.exp(rng.normal(0, 0.08))
        return (image * gain + shift).clamp(0, 1)
    return stretch(rng, image)


def _bounded(
    rng: np.random.Generator, noise: torch.Generator, contrast: Contrast, labels: Tensor, top: int
) -> Tensor:
    return synthesise(rng, noise, contrast, labels, top).clamp(-0.2, 1.2)
