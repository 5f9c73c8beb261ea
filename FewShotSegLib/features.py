"""A volume's frozen features: from the store, or from one Gaussian sliding window."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from monai.inferers import sliding_window_inference
from torch import Tensor

from .backbones.base import Backbone
from .errors import InputError
from .events import EventSink, ignore, make_event
from .feature_store import FeatureStore, VolumeFeatures
from .geometry import Volume
from .model_registry import Model
from .preprocessing import Preprocessing

FORMAT = 1
"""Part of every key: raised when the same inputs would give other features."""


def choose_device(name: str = "auto") -> torch.device:
    """``auto`` is the first CUDA GPU, else the CPU.

    Raises:
        InputError: the device does not exist here.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"There is no device '{name}' here. Use --device auto or cpu.") from error
    return device


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """bfloat16 where this device computes it fast, else None. On a CPU with bfloat16 instructions a
    whole backbone pass is several times faster. (float16 would need its losses scaled, and its
    range is too small for some published networks.)"""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None
    if device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        fast = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
        return torch.bfloat16 if fast() else None
    return None


def feature_key(volume: Volume, model: Model, preprocessing: Preprocessing) -> str:
    """Hash of all that a volume's features depend on: content, weights and preprocessing."""
    entry = model.entry
    digest = hashlib.sha256()
    recipe = {
        "format": FORMAT,
        "weights": model.weights_sha256,
        "architecture": entry.architecture,
        "preprocessing": preprocessing.to_json(),
        "window": entry.window,
        "overlap": entry.overlap,
        "dtype": str(volume.array.dtype),
        "grid": [volume.grid.shape, volume.grid.spacing, volume.grid.direction],
    }
    digest.update(json.dumps(recipe, sort_keys=True).encode())
    # Files arrive with i running fastest; this order hashes them without a copy.
    digest.update(np.ascontiguousarray(volume.array.T))
    return digest.hexdigest()[:40]


def extract_features(
    backbone: Backbone,
    image: Tensor,
    window: tuple[int, int, int],
    overlap: float,
    device: torch.device,
    on_window: Callable[[int, int], None] = lambda done, total: None,
) -> list[Tensor]:
    """Multi-scale features of a whole image by a Gaussian-weighted sliding window.

    Args:
        image: (1, 1, I, J, K) float32, on the model grid.
        window: voxels of the window; cut down to the image where that is smaller.
        overlap: part of a window shared with its neighbour.
        on_window: called with windows done and in all; may raise to stop.

    Returns:
        one (channels, i, j, k) float32 tensor a level, on the CPU, covering the image padded to
        multiples of the largest stride.
    """
    largest = max(backbone.strides)
    size = image.shape[2:]
    padded = [-(-n // largest) * largest for n in size]
    # Repeating the border is closer to anatomy than zeros, which no MR has at its edge.
    image = F.pad(
        image,
        [n for a in (2, 1, 0) for n in (0, padded[a] - size[a])],
        mode="replicate",
    )
    roi = [min(-(-n // largest) * largest, p) for n, p in zip(window, padded, strict=True)]
    # Windows start on multiples of the largest stride, where every level has a voxel.
    steps = [max(largest, int(r * (1 - overlap)) // largest * largest) for r in roi]
    starts = [-(-(p - r) // step) + 1 for r, p, step in zip(roi, padded, steps, strict=True)]
    # MONAI rounds r * (1 - overlap) down; the half keeps it from ending one below the step.
    overlaps = [max(0.0, 1 - (step + 0.5) / r) for r, step in zip(roi, steps, strict=True)]
    total, done = int(np.prod(starts)), 0
    dtype = autocast_dtype(device)
    backbone = backbone.to(device=device, memory_format=torch.channels_last_3d)

    def run(crop: Tensor) -> tuple[Tensor, ...]:
        nonlocal done
        on_window(done, total)
        crop = crop.to(memory_format=torch.channels_last_3d)
        with torch.autocast(device.type, dtype) if dtype else nullcontext():
            levels = backbone.features(crop)
        done += 1
        return tuple(level.float() for level in levels)

    with torch.inference_mode():
        levels = sliding_window_inference(
            image,
            roi,
            sw_batch_size=1,
            predictor=run,
            overlap=overlaps,
            mode="gaussian",
            sw_device=device,
            device=torch.device("cpu"),
        )
    on_window(total, total)
    return [level[0] for level in levels]


@dataclass
class FeatureSource:
    """Gives the features of any volume, running the frozen backbone at most once for each.

    Attributes:
        model, preprocessing: what the features are of.
        store: where they are kept.
        passes: backbone passes run so far; ``seconds``: what they took.
    """

    model: Model
    preprocessing: Preprocessing
    store: FeatureStore
    device: torch.device
    events: EventSink = ignore
    check: Callable[[], None] = lambda: None
    passes: int = 0
    seconds: float = 0.0
    hits: int = 0

    def __call__(self, volume: Volume, subject: str = "") -> VolumeFeatures:
        """The features of a volume. ``subject`` is what progress events call it.

        Raises:
            StorageError: the cache's disk is full or not writable.
            ModelError: the weights can't be loaded.
            InputError: the image makes the backbone overflow.
        """
        key = feature_key(volume, self.model, self.preprocessing)
        with self.store.lock(key, self.check):
            features = self.store.get(key)
            if features is not None:
                self.hits += 1
                return features
            start = time.perf_counter()
            backbone = self.model.backbone
            image, placement = self.preprocessing(volume)
            self.events(make_event("phase", phase="features", total=None, subject=subject))
            levels = extract_features(
                backbone,
                image,
                self.model.entry.window,
                self.model.entry.overlap,
                self.device,
                self._on_window,
            )
            if not all(bool(torch.isfinite(level).all()) for level in levels):
                raise InputError(
                    "The foundation model gives no finite features for this image. Check its "
                    "intensities (CT in Hounsfield units?)."
                )
            features = self.store.put(key, levels, backbone.strides, placement.shape)
            self.passes += 1
            self.seconds += time.perf_counter() - start
        return features

    def _on_window(self, done: int, total: int) -> None:
        self.check()
        self.events(make_event("progress", phase="features", done=done, total=total))
