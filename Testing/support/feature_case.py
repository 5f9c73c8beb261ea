"""Features of small networks, in a folder of a test's own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from tiny import (
    PREPROCESSING,
    OneThread,
    make_model,
)
from torch import Tensor, nn

from FewShotSegLib.core.events import ignore
from FewShotSegLib.features.extraction import (
    FeatureSource,
    stream_features,
)
from FewShotSegLib.features.sliding_window import place_windows
from FewShotSegLib.features.store import FeatureStore
from FewShotSegLib.models.backbones.base import Backbone

CPU = torch.device("cpu")


def extract_features(
    backbone: Backbone,
    image: Tensor,
    window: tuple[int, int, int],
    overlap: float,
    on_window: Callable[[int, int], None] = lambda done, total: None,
) -> list[Tensor]:
    """The whole levels (channels, i, j, k), of slabs that come in order and once each."""
    windows = place_windows(image.shape[2:], window, overlap, backbone.largest_stride)
    slabs: list[list[Tensor]] = [[] for _ in backbone.channels]

    def write(number: int, first: int, planes: Tensor) -> None:
        assert first == sum(slab.shape[1] for slab in slabs[number])
        assert planes.dtype == torch.float32
        slabs[number].append(planes.clone())

    stream_features(backbone, image, windows, CPU, write, on_window)
    return [torch.cat(slab, 1) for slab in slabs]


class FullPrecision(OneThread):
    """Bit-exactness would otherwise depend on what the machine computes fast."""

    def setUp(self) -> None:
        patch = mock.patch("FewShotSegLib.compute.precision.fast_dtype", return_value=None)
        patch.start()
        self.addCleanup(patch.stop)


class InFolder(FullPrecision):
    """With a folder of its own."""

    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.store = FeatureStore(self.folder / "cache")

    def entries(self) -> set[str]:
        """Names of what the store's folder holds beside locks."""
        return {p.name for p in self.store.folder.iterdir() if p.suffix != ".lock"}


class SmallSight(Backbone):
    """A backbone whose levels see a voxel of theirs alone, or with its nearest neighbours."""

    channels = (2, 3, 4)
    strides = (1, 2, 4)

    def __init__(self, kernel: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convs = nn.ModuleList(
            nn.Conv3d(1, c, kernel, padding=kernel // 2) for c in self.channels
        )

    def features(self, image: Tensor) -> list[Tensor]:
        return [
            conv(nn.functional.avg_pool3d(image, stride))
            for conv, stride in zip(self.convs, self.strides, strict=True)
        ]

    def head_weights(self) -> tuple[Tensor, Tensor]:
        return torch.zeros(1, 2), torch.zeros(1)


def source_of(folder: Path, events: Callable[[dict[str, Any]], None] = ignore) -> FeatureSource:
    """A new source on a folder's store."""
    store = FeatureStore(folder / "cache")
    return FeatureSource(make_model(folder), PREPROCESSING, store, CPU, events)
