"""DICOM series written element by element, so that what is in them is known apart from GDCM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from FewShotSegLib.core.geometry import Volume
from FewShotSegLib.io.dicom.series import read_series
from FewShotSegLib.io.volumes import array_of, grid_of, usable_volume

STRAIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
NATIVE = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "big-endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
}
Change = Callable[[Dataset, int], None]
"""Changes the dataset of a slice, by its number."""


def stored_values(
    shape: tuple[int, int, int] = (6, 5, 4), kind: type | str = np.int16, seed: int = 0
) -> np.ndarray:
    """Stored values (i, j, k) over all of a type."""
    limits = np.iinfo(kind)
    rng = np.random.default_rng(seed)
    return rng.integers(limits.min, limits.max, shape, endpoint=True, dtype=kind)


@dataclass(frozen=True)
class Written:
    """A series to be written.

    Attributes:
        stored: stored values (i, j, k) of 8, 16 or 32 bits.
        positions: LPS mm of each slice's first pixel, (k, 3).
        cosines: as DICOM has them. spacing: mm between columns and rows.
        rescales: slope and intercept of each slice.
        bits: that are stored; all where it is None.
        tags: elements of every file, by name; None takes one out.
    """

    stored: np.ndarray
    positions: Sequence[Sequence[float]] | None = None
    cosines: Sequence[float] = STRAIGHT
    spacing: tuple[float, float] = (2.0, 1.5)
    rescales: Sequence[tuple[float, float]] | None = None
    bits: int | None = None
    syntax: str = "explicit"
    tags: dict[str, object] = field(default_factory=dict)

    @property
    def places(self) -> np.ndarray:
        count = self.stored.shape[2]
        default = [[-10.0, 20.0, 3.0 * k] for k in range(count)]
        return np.array(default if self.positions is None else self.positions)

    @property
    def slopes(self) -> list[tuple[float, float]]:
        return list(self.rescales or [(1, 0)] * self.stored.shape[2])

    @property
    def values(self) -> np.ndarray:
        """What the slices show, (i, j, k) float64."""
        slopes, intercepts = np.array(self.slopes, float).T
        return self.stored.astype(np.float64) * slopes + intercepts

    @property
    def affine(self) -> np.ndarray:
        """From index (i, j, 1) of the first slice to LPS mm, 3x3."""
        axes = np.reshape(self.cosines, (2, 3)).T * self.spacing
        return np.column_stack([axes, self.places[0]])

    def dataset(self, number: int = 0) -> Dataset:
        """What all files have, without place and rescaling."""
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = NATIVE.get(self.syntax, ExplicitVRLittleEndian)
        dataset.SOPClassUID = CTImageStorage
        dataset.SOPInstanceUID = f"1.2.3.{number + 1}"
        dataset.Modality, dataset.PatientID, dataset.PatientName = "CT", "ID4711", "Secret^Patient"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.9", "1.2.3"
        dataset.FrameOfReferenceUID, dataset.InstanceNumber = "1.2.8", number + 1
        dataset.Columns, dataset.Rows = self.stored.shape[:2]
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated = 8 * self.stored.dtype.itemsize
        dataset.BitsStored = self.bits or dataset.BitsAllocated
        dataset.HighBit = dataset.BitsStored - 1
        dataset.PixelRepresentation = int(self.stored.dtype.kind == "i")
        return dataset

    def pixels(self, numbers: Sequence[int]) -> bytes:
        order = ">" if self.syntax == "big-endian" else "<"
        frames = self.stored[..., list(numbers)].transpose(2, 1, 0)
        data = frames.astype(frames.dtype.newbyteorder(order)).tobytes()
        return data + bytes(len(data) % 2)

    def slice(self, number: int) -> Dataset:
        """A file of one slice."""
        dataset = self.dataset(number)
        dataset.PixelSpacing = [*map(_decimal, self.spacing[::-1])]
        dataset.ImagePositionPatient = [*map(_decimal, self.places[number])]
        dataset.ImageOrientationPatient = [*map(_decimal, self.cosines)]
        slope, intercept = self.slopes[number]
        dataset.RescaleSlope, dataset.RescaleIntercept = _decimal(slope), _decimal(intercept)
        dataset.PixelData = self.pixels([number])
        return self.finished(dataset)

    def enhanced(self, order: Sequence[int] | None = None, shared: bool = True) -> Dataset:
        """A file of all slices, in this order; what they share said once, or with every frame."""
        order = range(self.stored.shape[2]) if order is None else order
        dataset = self.dataset()
        dataset.SOPClassUID = EnhancedCTImageStorage
        dataset.NumberOfFrames = len(order)
        common = Dataset()
        measures, orientation = Dataset(), Dataset()
        measures.PixelSpacing = [*map(_decimal, self.spacing[::-1])]
        orientation.ImageOrientationPatient = [*map(_decimal, self.cosines)]
        frames = []
        for number in order:
            frame, place, rescale = Dataset(), Dataset(), Dataset()
            place.ImagePositionPatient = [*map(_decimal, self.places[number])]
            frame.PlanePositionSequence = [place]
            slope, intercept = self.slopes[number]
            rescale.RescaleSlope, rescale.RescaleIntercept = _decimal(slope), _decimal(intercept)
            rescale.RescaleType = "HU"
            for owner in (common,) if shared else (frame,):
                owner.PixelMeasuresSequence = [measures]
                owner.PlaneOrientationSequence = [orientation]
            same = len(set(self.slopes)) == 1
            (common if shared and same else frame).PixelValueTransformationSequence = [rescale]
            frames.append(frame)
        dataset.SharedFunctionalGroupsSequence = [common]
        dataset.PerFrameFunctionalGroupsSequence = frames
        dataset.PixelData = self.pixels(order)
        return self.finished(dataset)

    def finished(self, dataset: Dataset) -> Dataset:
        for name, value in self.tags.items():
            put(dataset, name, value)
        return dataset

    def write(self, folder: Path, change: Change | None = None, ending: str = ".dcm") -> None:
        """A file a slice; the order of the names is not that of the slices."""
        for number in range(self.stored.shape[2]):
            dataset = self.slice(number)
            if change is not None:
                change(dataset, number)
            save(dataset, folder / f"{number * 7 % 101:03d}{ending}", self.syntax)


def put(dataset: Dataset, name: str, value: object) -> None:
    """Set an element, or take it out where the value is None."""
    if value is not None:
        setattr(dataset, name, value)
    elif name in dataset:
        delattr(dataset, name)


def save(dataset: Dataset, path: Path, syntax: str = "explicit") -> None:
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", CTImageStorage)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    if "PixelData" in dataset:
        dataset["PixelData"].VR = "OB" if dataset.BitsAllocated == 8 else "OW"
    if syntax == "rle":
        dataset.compress(RLELossless)
    if syntax == "bare":  # no preamble, as of before 1993
        del dataset.file_meta
        pydicom.dcmwrite(
            path, dataset, implicit_vr=True, little_endian=True, enforce_file_format=False
        )
    else:
        pydicom.dcmwrite(path, dataset, enforce_file_format=True)


def read(folder: Path) -> Volume:
    """As ``read_image`` reads a folder, in this process: a child for each takes too long."""
    image, modality, note = read_series(folder)
    volume = usable_volume(array_of(image), grid_of(image), modality, folder)
    return Volume(volume.array, volume.grid, modality, notes=(note,) if note else ())


def _decimal(number: float) -> str:
    """At most the 16 characters that DICOM has for a number."""
    for digits in range(15, 3, -1):
        text = f"{number:.{digits}g}"
        if len(text) <= 16:
            return text
    raise ValueError(number)
