"""A volume's frozen features: from the store, or from one Gaussian sliding window."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..compute.precision import at_speed
from ..core.errors import InputError, is_out_of_memory
from ..core.events import EventSink, ignore, make_event
from ..core.geometry import Volume, along_axes
from ..core.limits import require_device
from ..models.backbones.base import Backbone
from ..models.preprocessing import Preprocessing
from ..models.registry import Model
from .sliding_window import Windows, Write, blend_windows, place_windows
from .store import FeatureStore, VolumeFeatures

FORMAT = 1
"""Part of every key: raised when the same inputs would give other features."""
SLOW_SECONDS = 60.0
"""Work of the backbone that takes longer is announced; below it a bar says enough."""
LONG_SECONDS = 5.0
"""A first window that takes so long tells enough of the others."""


def choose_device(name: str = "auto") -> torch.device:
    """``auto`` is the first CUDA GPU, else the CPU.

    Raises:
        InputError: the device does not exist here.
    """
    require_device(name)
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"There is no device '{name}' here. Use --device auto or cpu.") from error
    return device


def feature_key(volume: Volume, model: Model, preprocessing: Preprocessing) -> str:
    """Hash of all that a volume's features depend on: content, weights, network, preprocessing."""
    entry = model.entry
    digest = hashlib.sha256()
    recipe = {
        "format": FORMAT,
        "weights": model.weights_sha256,
        "network": entry.network(),
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


def stream_features(
    backbone: Backbone,
    image: Tensor,
    windows: Windows,
    device: torch.device,
    write: Write,
    on_window: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Multi-scale features of a whole image by a Gaussian-weighted sliding window.

    Args:
        image: (1, 1, I, J, K) float32, on the model grid.
        windows: over the image, placed on multiples of the backbone's largest stride.
        write: takes a level's number, the first plane along i, and planes (channels, n, j, k),
            float32 on the CPU, good until it returns. The planes cover the image padded to
            multiples of the largest stride.
        on_window: called with windows done and in all; may raise to stop.
    """
    padding = [(0, p - n) for n, p in zip(image.shape[2:], windows.padded, strict=True)]
    # Repeating the border is closer to anatomy than zeros, which no MR has at its edge.
    image = F.pad(image, [n for pair in reversed(padding) for n in pair], mode="replicate")
    done = 0
    backbone = backbone.to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def run(crop: Tensor) -> list[Tensor]:
        nonlocal done
        on_window(done, windows.count)
        crop = crop.to(device).to(memory_format=torch.channels_last_3d)
        with at_speed(device):
            levels = backbone.features(crop)
        done += 1
        return levels

    with torch.inference_mode():
        blend_windows(image, windows, run, write)
    on_window(windows.count, windows.count)


@dataclass
class FeatureSource:
    """Gives the features of any volume, running the frozen backbone at most once for each.

    Attributes:
        model, preprocessing: what the features are of.
        store: where they are kept.
        passes: backbone passes run so far; ``seconds``: what they took.
        upcoming: volumes that will be asked for, so that an estimate covers them all.
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
    upcoming: Sequence[Volume] = ()
    _announced: Sequence[Volume] = ()
    _left_gpu: bool = False

    def __call__(self, volume: Volume, subject: str = "") -> VolumeFeatures:
        """The features of a volume. ``subject`` is what progress events call it.

        Raises:
            StorageError: the cache's disk is full or not writable.
            ModelError: the weights can't be loaded.
            InputError: the image makes the backbone overflow.
        """
        key = feature_key(volume, self.model, self.preprocessing)

        def waiting() -> None:
            message = "Another process computes these features; waiting for it to end."
            self.events(make_event("waiting", phase="features", message=message))

        def damaged(reason: str) -> None:
            volume_words = f"of {subject}" if subject else "of a volume"
            message = (
                f"The cached features {volume_words} are damaged ({reason}); they are computed "
                "anew. If this happens again, check the disk."
            )
            self.events(make_event("warning", message=message))

        with self.store.lock(key, self.check, waiting):
            features = self.store.get(key, self.check, damaged)
            if features is not None:
                self.hits += 1
                return features
            start = time.perf_counter()
            try:
                self._run(volume, key, subject)
            except RuntimeError as error:
                if self._where.type == "cpu" or not is_out_of_memory(error):
                    raise
                self._leave_gpu()
                self._run(volume, key, subject)
            features = self.store.stored(key)
            self.passes += 1
            self.seconds += time.perf_counter() - start
        return features

    def _run(self, volume: Volume, key: str, subject: str) -> None:
        """One pass of the backbone, into the store."""
        backbone = self.model.backbone
        image, placement = self.preprocessing(volume)
        windows, sizes = self._windows(volume), self._sizes(volume)
        self.events(make_event("phase", phase="features", total=None, subject=subject))
        begun, announced = time.perf_counter(), False

        def on_window(done: int, total: int) -> None:
            nonlocal begun, announced
            self.check()
            if 0 < done < total and not announced:
                seconds, begun = time.perf_counter() - begun, time.perf_counter()
                # The first sets much up; only where it takes long is that little beside its work.
                announced = done == 2 or total == 2 or seconds >= LONG_SECONDS
                if announced:
                    self._announce(volume, seconds, done)
            self.events(make_event("progress", phase="features", done=done, total=total))

        with self.store.writing(key, sizes, backbone.strides, placement.shape) as writer:

            def write(number: int, first: int, planes: Tensor) -> None:
                if not all(math.isfinite(float(value)) for value in torch.aminmax(planes)):
                    raise InputError(
                        "The foundation model gives no finite features for this image. Check its "
                        "intensities (CT in Hounsfield units?)."
                    )
                writer.write(number, first, planes)

            stream_features(backbone, image, windows, self._where, write, on_window)

    @property
    def _where(self) -> torch.device:
        """Where the backbone runs: on the device, until its memory was not enough."""
        return torch.device("cpu") if self._left_gpu else self.device

    def _leave_gpu(self) -> None:
        """The backbone on the CPU from now on; adapters, which are small, stay where they are."""
        self._left_gpu = True
        self.model.backbone.to("cpu")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        message = (
            "The GPU's memory is not enough for a window of this foundation model: its features "
            "are computed on the CPU, which takes longer and changes no result."
        )
        self.events(make_event("warning", message=message))

    def _windows(self, volume: Volume) -> Windows:
        entry, shape = self.model.entry, self.preprocessing.placement(volume).shape
        return place_windows(shape, entry.window, entry.overlap, self.model.backbone.largest_stride)

    def _sizes(self, volume: Volume) -> list[tuple[int, ...]]:
        """(channels, i, j, k) of each level."""
        backbone, padded = self.model.backbone, self._windows(volume).padded
        return [
            (channels, *(n // s for n, s in zip(padded, along_axes(stride), strict=True)))
            for channels, stride in zip(backbone.channels, backbone.strides, strict=True)
        ]

    def _announce(self, volume: Volume, seconds: float, done: int) -> None:
        """Tell what is left, once for all, where it takes long: a window was timed.

        Args:
            volume: the one that is being worked on. seconds: a window's. done: how many were run.
        """
        if any(announced is volume for announced in self._announced):
            return
        others = [other for other in self.upcoming if other is not volume]
        windows = sum(self._windows(v).count for v in (volume, *others)) - done
        if windows * seconds < SLOW_SECONDS:
            return
        others = [
            other
            for other in others
            if not self.store.has(feature_key(other, self.model, self.preprocessing))
        ]
        volumes = [volume, *others]
        windows = sum(self._windows(v).count for v in volumes)
        needed = sum(2 * math.prod(size) for v in volumes for size in self._sizes(v))
        if (windows - done) * seconds < SLOW_SECONDS:
            return
        self._announced = volumes
        self.events(
            make_event(
                "estimate",
                phase="features",
                seconds=round((windows - done) * seconds, 1),
                window_seconds=round(seconds, 2),
                windows=windows,
                volumes=len(volumes),
                bytes=needed,
                device=self._where.type,
            )
        )
        if needed > self.store.max_bytes:
            gigabytes = math.ceil(needed / 2**30)
            message = (
                f"The features of these volumes take {gigabytes} GB, which is more than the cache "
                f"keeps: with --cache-size {gigabytes} they would not be computed again next time."
            )
            self.events(make_event("warning", message=message))
