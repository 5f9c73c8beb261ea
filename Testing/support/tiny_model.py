"""A whole small world in a folder: a registry entry with weights, patients, and the command."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import SimpleITK as sitk
import torch
from safetensors.torch import save_file
from scipy.spatial.transform import Rotation
from tiny import FILTERS, OneThread

from FewShotSegLib.cli.command_line import main
from FewShotSegLib.core.geometry import Grid
from FewShotSegLib.models.backbones.dynamic_unet import DynamicUNet
from FewShotSegLib.pipeline.runtime import Runtime
from FewShotSegLib.training.loop import TrainingSettings

SHAPE = (24, 19, 12)
SPACING = (1.9, 2.3, 3.4)
TURNED = Rotation.from_euler("xyz", [9, -14, 20], degrees=True).as_matrix()
DIRECTIONS = {
    "straight": np.eye(3),
    "oblique": TURNED,
    "left-handed": np.diag([-1, 1, 1]),
    "oblique, left-handed and turned": TURNED @ np.array([[0, 0, -1], [1, 0, 0], [0, 1, 0]]),
}
STRUCTURES = "4=bean,5=pea"
QUICK = TrainingSettings(
    epochs=20, steps_per_epoch=2, crops=2, crop_size=12, learning_rate=0.02, patience=50
)
"""Enough for a structure that differs from its surroundings in brightness alone."""


def make_network(seed: int = 0) -> DynamicUNet:
    """A frozen random network. With its first batch statistics features still tell brightness."""
    torch.manual_seed(seed)
    return DynamicUNet(FILTERS, out_channels=2).eval().requires_grad_(False)


def write_model(folder: Path, name: str = "tiny", seed: int = 0, **fields: Any) -> Path:
    """A registry entry of a small random network, its weights beside it.

    Args:
        fields: of the entry, in place of these; one that is None is left out.

    Returns:
        the entry's path, for ``--model``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / f"{name}.safetensors"
    state = make_network(seed).state_dict()
    save_file({key: tensor.clone() for key, tensor in state.items()}, weights)
    box = {"orientation": "RAS", "spacing": [3.0, 3.0, 3.0]}
    entry = {
        "id": name,
        "title": "A small random network",
        "description": "For tests.",
        "modality": ["CT", "MR"],
        "architecture": {"name": "DynamicUNet", "filters": list(FILTERS), "out_channels": 2},
        "preprocessing": {
            "CT": {**box, "intensity": "window", "low": -200, "high": 300},
            "MR": {**box, "intensity": "percentiles", "low": 0.5, "high": 99.5},
        },
        "window": [32, 32, 32],
        "overlap": 0.25,
        "classes": {"kidney_left": 0, "liver": 1},
        "activation": "sigmoid",
        "licence": "Apache-2.0",
        "citation": "Nobody, Nowhere, 2020",
        "source_url": "https://example.org/tiny",
        "weights": weights.name,
        "sha256": None,
        "size": None,
        **fields,
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps({k: v for k, v in entry.items() if v is not None or k in _NULLABLE}))
    return path


_NULLABLE = ("sha256", "size")


@dataclass(frozen=True)
class Patient:
    """An image and its annotation, as files."""

    image: Path
    segmentation: Path

    @property
    def paths(self) -> tuple[Path, Path]:
        """As :func:`adapt` takes a support."""
        return self.image, self.segmentation


def make_grid(direction: str = "oblique", shape: tuple[int, int, int] = SHAPE) -> Grid:
    numbers = tuple(np.asarray(DIRECTIONS[direction], float).ravel().tolist())
    return Grid(shape, SPACING, (-31.123456789, 12.7, 100.1), numbers)


def make_labels(seed: int, grid: Grid, scale: float = 1.0) -> np.ndarray:
    """Two round structures, 4 the larger and 5 the smaller; their size and place vary a little."""
    rng = np.random.default_rng([seed, 1])
    labels = np.zeros(grid.shape, np.uint8)
    extent = np.multiply(grid.shape, grid.spacing)
    place = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), -1)
    for value, middle, radius in ((4, (0.35, 0.52, 0.5), 9.0), (5, (0.72, 0.45, 0.5), 7.0)):
        # Seeds take turns at the sides, so that a place tells nothing and brightness all.
        side = 1 - middle[0] if seed % 2 else middle[0]
        centre = extent * (side, *middle[1:]) + rng.uniform(-2.5, 2.5, 3)
        size = radius * scale * rng.uniform(0.95, 1.05)
        labels[np.linalg.norm((place + 0.5) * grid.spacing - centre, axis=-1) < size] = value
    return labels


def make_values(seed: int, labels: np.ndarray, modality: str = "CT") -> np.ndarray:
    """Noise in which one structure is darker than its surroundings, one brighter; int16."""
    rng = np.random.default_rng([seed, 2])
    levels = {"CT": (40, -130, 220, -900), "MR": (400, 150, 700, 30)}[modality]
    image = np.full(labels.shape, float(levels[0]))
    image[labels == 4], image[labels == 5] = levels[1], levels[2]
    image[:3, :3, :3] = levels[3]  # air, which tells CT
    return (image + rng.normal(0, 12, labels.shape)).round().astype(np.int16)


def write_array(path: Path, array: np.ndarray, grid: Grid) -> Path:
    """An array (i, j, k) as a file."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path), True)
    return path


def write_patient(
    folder: Path,
    name: str,
    seed: int,
    grid: Grid | None = None,
    modality: str = "CT",
    annotated: Sequence[int] = (4, 5),
    scale: float = 1.0,
) -> Patient:
    """A patient's image and annotation.

    Args:
        annotated: the label values that a user drew; the others are there, but not annotated.
        scale: times the usual radius of the structures.
    """
    grid = grid or make_grid()
    labels = make_labels(seed, grid, scale)
    drawn = np.where(np.isin(labels, annotated), labels, 0).astype(np.uint8)
    return Patient(
        write_array(folder / f"{name}.nii.gz", make_values(seed, labels, modality), grid),
        write_array(folder / f"{name}_manual.nii.gz", drawn, grid),
    )


class TinyWorld(OneThread):
    """A temporary home with a model, a cache, two annotated patients and a third to segment.

    Attributes:
        model: path of the model's entry. supports, query: the patients. runtime: with the cache.
        folder: empty, for one test.
    """

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        # People's folders have names like this.
        world = tempfile.TemporaryDirectory(prefix="kleine Größe ")
        cls.addClassCleanup(world.cleanup)
        cls.world = Path(world.name)
        home = mock.patch.dict(os.environ, {"FEWSHOTSEG_HOME": str(cls.world / "home")})
        home.start()
        cls.addClassCleanup(home.stop)
        cls.model = write_model(cls.world / "model")
        cls.supports = [write_patient(cls.world, f"support{n}", n) for n in range(2)]
        cls.query = write_patient(cls.world, "query", 7)
        cls.runtime = Runtime("cpu", cls.world / "cache")

    def setUp(self) -> None:
        super().setUp()
        self.folder = self.world / "now"
        self.folder.mkdir()
        self.addCleanup(shutil.rmtree, self.folder)

    @classmethod
    def support_arguments(cls, *supports: Patient) -> list[str]:
        """These supports, or the usual ones, as the command takes them."""
        return [
            text
            for s in supports or cls.supports
            for text in ("--support", str(s.image), str(s.segmentation))
        ]

    @classmethod
    def adapt_arguments(
        cls, out: Path, *more: str, supports: Sequence[Patient] = (), epochs: int = 3
    ) -> list[str]:
        """An ``adapt`` command with the supports."""
        return [
            "adapt",
            *cls.support_arguments(*supports),
            *("--structures", STRUCTURES, "--out", str(out)),
            *("--model", str(cls.model), "--cache", str(cls.world / "cache")),
            *("--device", "cpu", "--epochs", str(epochs), "--learning-rate", "0.02"),
            *more,
        ]

    @classmethod
    def segment_arguments(cls, adapter: Path, out: Path, *more: str) -> list[str]:
        """A ``segment`` command; ``more`` begins with the queries."""
        return [
            *("segment", "--adapter", str(adapter), "--out", str(out)),
            *("--model", str(cls.model), "--cache", str(cls.world / "cache")),
            *("--device", "cpu", *more),
        ]


@dataclass(frozen=True)
class Ran:
    """What a command left: its exit status and what it wrote."""

    status: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        """Standard output of ``--events``."""
        return [json.loads(line) for line in self.out.splitlines()]


def run(*arguments: str) -> Ran:
    """The ``fewshotseg`` command in this process. Text of C++ libraries counts as ``err``."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _descriptor(2) as below:
        try:
            status = main(list(arguments))
        except SystemExit as end:
            status = end.code
    return Ran(int(status or 0), out.getvalue(), err.getvalue() + "".join(below))


@contextlib.contextmanager
def _descriptor(number: int) -> Iterator[list[str]]:
    """What is written to a file descriptor inside the block, known after it."""
    written: list[str] = []
    before = os.dup(number)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), number)
        try:
            yield written
        finally:
            os.dup2(before, number)
            os.close(before)
            file.seek(0)
            written.append(file.read().decode(errors="replace"))


_trained: list[bytes] = []
"""The file of the adapter of one epoch, once it was trained."""


class TrainedWorld(TinyWorld):
    """The same with an adapter of one epoch."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.adapter = cls.world / "trained.fseft"
        # The worlds of all classes are alike: one training a process is enough.
        if not _trained:
            ran = run(*cls.adapt_arguments(cls.adapter, epochs=1))
            assert ran.status == 0, ran.err
            _trained.append(cls.adapter.read_bytes())
        cls.adapter.write_bytes(_trained[0])
