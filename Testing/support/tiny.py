"""What the engine's tests share: a small frozen model, small volumes and synthetic features."""

from __future__ import annotations

import unittest
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from FewShotSegLib.core.geometry import Grid, Stride, Volume, along_axes
from FewShotSegLib.features.store import VolumeFeatures
from FewShotSegLib.models.backbones.dynamic_unet import DynamicUNet
from FewShotSegLib.models.preprocessing import Preprocessing
from FewShotSegLib.models.registry import Model, ModelEntry

FILTERS = (4, 6, 8)
STRIDES = (1, 2, 4)


class OneThread(unittest.TestCase):
    """Tests on tensors so small that threads only wait for each other."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls._threads = torch.get_num_threads()
        torch.set_num_threads(1)

    @classmethod
    def tearDownClass(cls) -> None:
        torch.set_num_threads(cls._threads)
        super().tearDownClass()


def make_backbone(seed: int = 0) -> DynamicUNet:
    """A frozen network with random weights and batch statistics."""
    torch.manual_seed(seed)
    backbone = DynamicUNet(FILTERS, out_channels=2)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return backbone.eval().requires_grad_(False)


def make_model(folder: Path, seed: int = 0) -> Model:
    """A registry entry of such a network, its weights in a file."""
    weights = Path(folder) / f"weights-{seed}.safetensors"
    if not weights.exists():
        state = make_backbone(seed).state_dict()
        save_file({name: tensor.clone() for name, tensor in state.items()}, weights)
    entry = ModelEntry(
        id="tiny",
        title="Tiny",
        modality=("MR",),
        architecture={"name": "DynamicUNet", "filters": list(FILTERS), "out_channels": 2},
        preprocessing={"MR": PREPROCESSING},
        classes={"organ": 0},
        activation="sigmoid",
        weights=weights,
        window=(16, 16, 16),
        overlap=0.25,
        licence="",
        citation="",
        source_url="",
        sha256=None,
        size=None,
    )
    return Model(entry)


PREPROCESSING = Preprocessing("RAS", (2.0, 2.0, 2.0), "percentiles", 1, 99)


def make_volume(seed: int = 0, shape: tuple[int, int, int] = (19, 14, 10)) -> Volume:
    """Noise on an anisotropic grid."""
    grid = Grid(shape, (2.0, 2.0, 3.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    return Volume(np.random.default_rng(seed).normal(size=shape).astype(np.float32), grid)


def make_features(
    levels: Sequence[Tensor],
    strides: Sequence[Stride],
    shape: tuple[int, int, int],
    scales: Sequence[float] | None = None,
    key: str = "synthetic",
) -> VolumeFeatures:
    """Features (channels, i, j, k) as the store would hand them out."""
    arrays = tuple(level.half().numpy() for level in levels)
    return VolumeFeatures(arrays, tuple(scales or [1.0] * len(arrays)), tuple(strides), shape, key)


def random_features(
    shape: tuple[int, int, int],
    channels: Sequence[int] = FILTERS,
    strides: Sequence[Stride] = STRIDES,
    seed: int = 0,
) -> VolumeFeatures:
    """Noise on the levels of a grid that is padded to multiples of the largest stride."""
    generator = torch.Generator().manual_seed(seed)
    by_level = [along_axes(stride) for stride in strides]
    largest = [max(by_axis) for by_axis in zip(*by_level, strict=True)]
    padded = [-(-n // stride) * stride for n, stride in zip(shape, largest, strict=True)]
    levels = [
        torch.randn(
            width, *(n // s for n, s in zip(padded, stride, strict=True)), generator=generator
        )
        for width, stride in zip(channels, by_level, strict=True)
    ]
    return make_features(levels, strides, shape)
