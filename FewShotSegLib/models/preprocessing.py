"""From a clinician's grid to the one a backbone was trained on, and exactly back.

The way there is a permutation and flips of the array's own axes, then one separable resampling an
axis. Both cover precisely the same box of space, so the inverse needs no interpolation of
coordinates: it is the same operation with the shapes exchanged. Oblique grids stay oblique, as in
nnU-Net; the backbone sees them slightly turned.

What a registry entry or an adapter says of it is read without torch (``resampling`` needs it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import InputError, ModelError
from ..core.geometry import Grid, Volume, three
from ..core.json_schema import from_json
from ..core.model_entry import AXES, PreprocessingFields
from .intensities import NOTHING_THERE, above_least, by_landmarks, squash

if TYPE_CHECKING:
    from torch import Tensor

MAX_PERCENTILE_VOXELS = 2_000_000
MAX_MODEL_VOXELS = 400_000_000
Box = tuple[slice, slice, slice]
"""A box of voxels."""


@dataclass(frozen=True)
class Preprocessing(PreprocessingFields):
    """What a backbone needs of an image, and doing it; the fields are of its registry entry."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Preprocessing:
        """From a registry entry or an adapter file.

        Raises:
            ModelError: a field is missing, unknown or out of range.
        """
        try:
            return from_json(cls, data, "this model's preprocessing")
        except InputError as error:
            raise ModelError(f"It can't be used: {str(error).rstrip('.')}.") from error

    def to_json(self) -> dict[str, Any]:
        """The form that :meth:`from_json` reads."""
        data: dict[str, Any] = {"orientation": self.orientation, "spacing": list(self.spacing)}
        data["intensity"] = self.intensity
        if self.intensity in ("window", "percentiles") or self.low is not None:
            data |= {"low": self.low, "high": self.high}
        for key in ("most_voxels", "mean", "std", "mask", "crop", "resampling", "squash"):
            if (value := getattr(self, key)) is not None:
                data[key] = value
        for key in ("normalised", "margin", "keep"):
            if (value := getattr(self, key)) is not None:
                data[key] = value
        for key in ("least", "onto", "landmarks"):
            if (value := getattr(self, key)) is not None:
                data[key] = list(value)
        return data if self.cut is None else {**data, "cut": False}

    def fitted(self, grids: Sequence[Grid]) -> Preprocessing:
        """The spacing for volumes on these grids; :attr:`most_voxels` has done its work then.

        It is made coarser in steps of 19 % (a quarter of an octave), alike along all axes, until
        the largest of the volumes has no more voxels than that.
        """
        if self.most_voxels is None:
            return self
        extent = max(np.prod(grid.shape, dtype=float) * grid.voxel_volume for grid in grids)
        octaves = np.log2(extent / np.prod(self.spacing) / self.most_voxels) / 3
        # A hair's breadth above a step is that step: the same grids always give the same spacing.
        factor = 2 ** (max(0, np.ceil(4 * octaves - 1e-6)) / 4)
        spacing = three(round(float(s * factor), 4) for s in self.spacing)
        return replace(self, spacing=spacing, most_voxels=None)

    def normalise(self, array: np.ndarray) -> np.ndarray:
        """Intensities as the backbone expects them: float32, a new array of the same shape.

        Raises:
            InputError: the image has one value everywhere.
        """
        image = self._mapped(array.astype(np.float32))
        return image if self.squash is None else squash(image, self.squash)

    def _mapped(self, image: np.ndarray) -> np.ndarray:
        """See ``intensity``; in place."""
        if self.intensity == "identity":
            return image
        if self.intensity == "standardise":
            image = self._standardise(image)
            if self.onto is None:
                return image
            return self._between(image, float(image.min()), float(image.max()))
        if self.landmarks is not None:
            return by_landmarks(image, self.landmarks)
        if self.intensity == "above-least":
            return above_least(image)
        low, high = self.low, self.high
        if self.intensity == "percentiles":
            step = max(1, round((image.size / MAX_PERCENTILE_VOXELS) ** (1 / 3)))
            low, high = np.percentile(image[::step, ::step, ::step], [low, high])
        elif self.intensity == "unit":
            low, high = float(image.min()), float(image.max())
        assert low is not None and high is not None  # of every other kind of intensity
        return self._between(image, low, high)

    def _between(self, image: np.ndarray, low: float, high: float) -> np.ndarray:
        """Values from ``low`` to ``high`` mapped to [0, 1], or to ``onto``; in place."""
        if high <= low:
            raise InputError(NOTHING_THERE)
        image -= np.float32(low)
        image *= np.float32(1 / (high - low))
        if self.cut is None:
            np.clip(image, 0, 1, out=image)
        if self.onto is not None:
            image *= np.float32(self.onto[1] - self.onto[0])
            image += np.float32(self.onto[0])
        return image

    def _standardise(self, image: np.ndarray) -> np.ndarray:
        """An image of mean 0 and standard deviation 1, in place; see ``mask`` for where."""
        if self.low is not None:
            np.clip(image, self.low, self.high, out=image)
        if self.mean is not None and self.std is not None:
            image -= np.float32(self.mean)
            image /= np.float32(self.std)
            return image
        if self.mask is None:
            there: Any = ...
        else:
            there = image != 0
            if self.mask == "filled":
                from scipy.ndimage import binary_fill_holes

                there = binary_fill_holes(there)
        values = image[there]
        std = values.std() if values.size else 0
        if not std > 0:
            raise InputError(NOTHING_THERE)
        image[there] = (values - values.mean()) / std
        return image

    def placement(self, volume: Volume) -> Placement:
        """How a volume lies on the model's grid.

        Raises:
            InputError: see :meth:`place`; or there is nothing but zeros to crop to.
        """
        if self.crop is None:
            return self.place(volume.grid)
        there: Any = volume.array > 0 if self.crop == "positive" else volume.array != 0
        box, margin = [], self.margin or 0
        for axis in range(3):
            found = np.flatnonzero(there.any(axis=tuple(a for a in range(3) if a != axis)))
            if not found.size:
                raise InputError(NOTHING_THERE)
            first, last = int(found[0]) - margin, int(found[-1]) + 1 + margin
            box.append(slice(max(0, first), min(last, volume.array.shape[axis])))
        return self.place(volume.grid, three(box))

    def place(self, grid: Grid, box: Box | None = None) -> Placement:
        """How a volume on this grid lies on the model's.

        Args:
            box: the voxels that the model sees; all where it is not given.

        Raises:
            InputError: the volume is so large that its model grid would be absurd.
        """
        from scipy.optimize import linear_sum_assignment

        cosines = grid.affine[:3, :3] / np.asarray(grid.spacing)
        wanted = [AXES[letter] for letter in self.orientation]
        cost = np.array([[-abs(cosines[axis, a]) for a in range(3)] for axis, _ in wanted])
        sources = linear_sum_assignment(cost)[1]
        flips = three(
            bool(cosines[axis, source] * sign < 0)
            for (axis, sign), source in zip(wanted, sources, strict=True)
        )
        box = box or three(slice(0, n) for n in grid.shape)
        inner = three(
            self._voxels(box[source].stop - box[source].start, grid.spacing[source], spacing)
            for source, spacing in zip(sources, self.spacing, strict=True)
        )
        shape = three(max(n, m) for n, m in zip(inner, self.least or inner, strict=True))
        if np.prod(shape, dtype=float) > MAX_MODEL_VOXELS:
            raise InputError(
                f"At this model's spacing of {self.spacing} mm the volume would have "
                f"{shape[0]} x {shape[1]} x {shape[2]} voxels. Check its spacing, or crop it."
            )
        kept = None
        if self.resampling == "monai":
            kept = three(
                self._step(grid.spacing[source], spacing)
                for source, spacing in zip(sources, self.spacing, strict=True)
            )
        return Placement(grid, three(int(s) for s in sources), flips, shape, inner, box, kept)

    def _voxels(self, count: int, spacing: float, wanted: float) -> int:
        """Model voxels along an axis of so many voxels."""
        if self.resampling == "nnunet":  # the same at every half, whatever the rounding before
            return max(1, round(spacing / wanted * count))
        if self.resampling == "monai":  # numpy's round, as MONAI's: halves to the even number
            return max(
                1, round((count - 1) * spacing / (self._step(spacing, wanted) * spacing) + 1)
            )
        return max(1, round(count * spacing / wanted))

    def _step(self, spacing: float, wanted: float) -> float:
        """Voxels of a volume from one of MONAI's model voxels to the next."""
        if self.keep is not None and abs(spacing - wanted) <= self.keep * wanted:
            return 1.0
        return wanted / spacing

    def __call__(self, volume: Volume) -> tuple[Tensor, Placement]:
        """The image (1, 1, I, J, K), float32 on the model's grid, and how it lies there."""
        import torch

        placement = self.placement(volume)
        array = volume.array[placement.box]
        last = self.normalised == "resampled"
        turned = placement.turned(array if last else self.normalise(array))
        image = self._resampled(turned, placement)
        if last:
            image = torch.from_numpy(self.normalise(image.numpy()))
        return placement.padded(image)[None, None], placement

    def _resampled(self, array: Tensor, placement: Placement) -> Tensor:
        """An image (i, j, k) in the model's axes, float32 on its grid."""
        from .resampling import as_nnunet, thick_axis

        if self.resampling == "nnunet":
            thick = thick_axis(placement.spacing, self.spacing)
            return as_nnunet(array, placement.inner, thick)
        return placement.resized(array, "linear")


@dataclass(frozen=True)
class Placement:
    """The correspondence of a volume's grid and its model grid.

    Attributes:
        grid: the original grid.
        sources: for each model axis, the original axis that it is.
        flips: for each model axis, whether it runs the other way.
        shape: voxels of the model grid.
        inner: those of them along each axis that span the same box of space as ``box``; what is
            around them in equal parts, more at the end, holds zeros.
        box: the original voxels that the model sees.
        steps: where both grids begin with the centre of one voxel: along each model axis, the
            original voxels from one model voxel to the next. None where they span the same box.
    """

    grid: Grid
    sources: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    shape: tuple[int, int, int]
    inner: tuple[int, int, int]
    box: Box
    steps: tuple[float, float, float] | None = None

    @property
    def seen(self) -> tuple[int, int, int]:
        """Original voxels of ``box`` along each model axis."""
        return three(self.box[source].stop - self.box[source].start for source in self.sources)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """mm between original voxels along each model axis."""
        return three(self.grid.spacing[source] for source in self.sources)

    @property
    def before(self) -> tuple[int, int, int]:
        """Model voxels of zeros before the first that holds something, along each axis."""
        return three((n - m) // 2 for n, m in zip(self.shape, self.inner, strict=True))

    @property
    def voxel_volume(self) -> float:
        """mm^3 of one model voxel, so that sizes on both grids are comparable."""
        return self.grid.voxel_volume * float(np.prod([step for step, _ in self.lines]))

    @property
    def lines(self) -> list[tuple[float, float]]:
        """Along each model axis, the original voxels that a model voxel spans, and where the first
        begins: ``original = step * model + start`` of edges, both from the edge of the first."""
        if self.steps is None:
            sizes = zip(self.seen, self.inner, strict=True)
            return [(original / size, 0.0) for original, size in sizes]
        return [(step, 0.5 - 0.5 * step) for step in self.steps]

    def turned(self, array: np.ndarray) -> Tensor:
        """What ``box`` holds, with the axes of the model; a view."""
        import torch

        turned = torch.as_tensor(array).permute(self.sources)
        flipped = [axis for axis, flip in enumerate(self.flips) if flip]
        return turned.flip(flipped) if flipped else turned

    def padded(self, array: Tensor) -> Tensor:
        """An array of ``inner`` voxels with the zeros around it: the whole model grid."""
        if self.inner == self.shape:
            return array
        result = array.new_zeros(self.shape)
        result[three(slice(b, b + n) for b, n in zip(self.before, self.inner, strict=True))] = array
        return result

    def to_model(self, array: np.ndarray, kernel: str = "cubic") -> Tensor:
        """An array on the original grid, float32 on the model's; masks become fractions."""
        return self.padded(self.resized(self.turned(array[self.box]), kernel))

    def resized(self, array: Tensor, kernel: str) -> Tensor:
        """What ``box`` holds, in the model's axes, on the model grid without zeros around it."""
        from .resampling import apply_along, axis_weights, resize

        if self.steps is None:
            return resize(array, self.inner, kernel)
        for axis, (size, line) in enumerate(zip(self.inner, self.lines, strict=True)):
            if array.shape[axis] != size or line != (1, 0):
                # An image as MONAI sees it, without a kernel that widens; masks as fractions.
                weights = axis_weights(array.shape[axis], size, kernel, line, kernel != "linear")
                array = apply_along(array.float(), weights, axis)
        return array.float()

    def to_original(self, array: Tensor, kernel: str = "cubic") -> Tensor:
        """The inverse: an array on the model grid, float32 on the original, in its axis order.

        It is 0 where the model sees nothing.
        """
        place, part = self.part_to_original(array, three(slice(0, n) for n in self.shape), kernel)
        if tuple(part.shape) == self.grid.shape:
            return part
        result = part.new_zeros(self.grid.shape)
        result[place] = part
        return result

    def box_to_model(self, box: Box) -> Box:
        """The model voxels that lie wholly or half within a box of original voxels."""
        result = []
        for axis, (source, flip, size) in enumerate(
            zip(self.sources, self.flips, self.inner, strict=True)
        ):
            start, stop, _ = box[source].indices(self.grid.shape[source])
            seen, original = self.box[source], self.seen[axis]
            start, stop = (min(max(n - seen.start, 0), original) for n in (start, stop))
            if flip:
                start, stop = original - stop, original - start
            step, begin = self.lines[axis]
            first = min(size - 1, max(0, round((start - begin) / step)))
            last = min(size, max(first + 1, round((stop - begin) / step)))
            result.append(slice(first + self.before[axis], last + self.before[axis]))
        return three(result)

    def part_to_original(self, part: Tensor, box: Box, kernel: str = "cubic") -> tuple[Box, Tensor]:
        """:meth:`to_original` of a part, taken as zero elsewhere.

        Args:
            part: (i, j, k), what the model grid holds in ``box``.

        Returns:
            the original voxels that the box covers, and their values.
        """
        from .resampling import apply_along, axis_weights

        places, matrices = [], []
        for axis, (source, flip) in enumerate(zip(self.sources, self.flips, strict=True)):
            size, original, before = self.inner[axis], self.seen[axis], self.before[axis]
            start, stop = box[axis].start - before, box[axis].stop - before
            piece = slice(min(max(start, 0), size), min(max(stop, 0), size))
            part = part.narrow(
                axis, min(piece.start - start, part.shape[axis]), piece.stop - piece.start
            )
            step, begin = self.lines[axis]
            first = int(np.floor(piece.start * step + begin + 1e-9)) if piece.start else 0
            last = int(np.ceil(piece.stop * step + begin - 1e-9)) if piece.stop < size else original
            first, last = min(max(first, 0), original), min(max(last, 0), original)
            back = (1 / step, -begin / step) if self.steps else None
            weights = axis_weights(size, original, kernel, back)[first:last, piece]
            if flip:
                first, last, weights = original - last, original - first, weights.flip(0)
            seen_from = self.box[source].start
            places.append(slice(seen_from + first, seen_from + last))
            matrices.append(weights)
        if not part.numel():  # nothing of the box but zeros around what the model sees
            part = part.new_zeros([len(matrix) for matrix in matrices])
        else:
            order = sorted(range(3), key=lambda a: matrices[a].shape[0] / part.shape[a])
            for axis in order:
                part = apply_along(part, matrices[axis].contiguous(), axis)
        turn = tuple(int(axis) for axis in np.argsort(self.sources))
        return three(places[axis] for axis in turn), part.permute(turn)
