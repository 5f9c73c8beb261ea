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

if TYPE_CHECKING:
    from torch import Tensor

MAX_PERCENTILE_VOXELS = 2_000_000
MAX_MODEL_VOXELS = 400_000_000


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
        if self.intensity != "identity":
            data |= {"low": self.low, "high": self.high}
        if self.most_voxels is not None:
            data["most_voxels"] = self.most_voxels
        return data

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
        """Intensities as the backbone expects them: float32, a new array of the same shape."""
        image = array.astype(np.float32)
        if self.intensity == "identity":
            return image
        low, high = self.low, self.high
        if self.intensity == "percentiles":
            step = max(1, round((image.size / MAX_PERCENTILE_VOXELS) ** (1 / 3)))
            low, high = np.percentile(image[::step, ::step, ::step], [low, high])
            if high <= low:
                raise InputError(
                    "This image has the same value almost everywhere; there is nothing to segment."
                    " Check that the right volume was chosen."
                )
        assert low is not None and high is not None  # of every other kind of intensity
        image -= np.float32(low)
        image *= np.float32(1 / (high - low))
        return np.clip(image, 0, 1, out=image)

    def place(self, grid: Grid) -> Placement:
        """How a volume on this grid lies on the model's.

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
        shape = three(
            max(1, round(grid.shape[source] * grid.spacing[source] / spacing))
            for source, spacing in zip(sources, self.spacing, strict=True)
        )
        if np.prod(shape, dtype=float) > MAX_MODEL_VOXELS:
            raise InputError(
                f"At this model's spacing of {self.spacing} mm the volume would have "
                f"{shape[0]} x {shape[1]} x {shape[2]} voxels. Check its spacing, or crop it."
            )
        return Placement(grid, three(int(s) for s in sources), flips, shape)

    def __call__(self, volume: Volume) -> tuple[Tensor, Placement]:
        """The image (1, 1, I, J, K), float32 on the model's grid, and how it lies there."""
        placement = self.place(volume.grid)
        image = placement.to_model(self.normalise(volume.array), kernel="linear")
        return image[None, None], placement


@dataclass(frozen=True)
class Placement:
    """The correspondence of a volume's grid and its model grid.

    Attributes:
        grid: the original grid.
        sources: for each model axis, the original axis that it is.
        flips: for each model axis, whether it runs the other way.
        shape: voxels of the model grid; it spans the same box as the original.
    """

    grid: Grid
    sources: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    shape: tuple[int, int, int]

    @property
    def voxel_volume(self) -> float:
        """mm^3 of one model voxel, so that sizes on both grids are comparable."""
        ratio = np.prod(self.grid.shape, dtype=float) / np.prod(self.shape, dtype=float)
        return self.grid.voxel_volume * float(ratio)

    def to_model(self, array: np.ndarray, kernel: str = "cubic") -> Tensor:
        """An array on the original grid, float32 on the model's; masks become fractions."""
        import torch

        from .resampling import resize

        turned = torch.as_tensor(array).permute(self.sources)
        flipped = [axis for axis, flip in enumerate(self.flips) if flip]
        return resize(turned.flip(flipped) if flipped else turned, self.shape, kernel)

    def to_original(self, array: Tensor, kernel: str = "cubic") -> Tensor:
        """The inverse: an array on the model grid, float32 on the original, in its axis order."""
        return self.part_to_original(array, three(slice(0, n) for n in self.shape), kernel)[1]

    def box_to_model(self, box: tuple[slice, slice, slice]) -> tuple[slice, slice, slice]:
        """The model voxels that lie wholly or half within a box of original voxels."""
        result = []
        for source, flip, size in zip(self.sources, self.flips, self.shape, strict=True):
            original = self.grid.shape[source]
            start, stop, _ = box[source].indices(original)
            if flip:
                start, stop = original - stop, original - start
            first = min(size - 1, round(start * size / original))
            result.append(slice(first, max(first + 1, round(stop * size / original))))
        return three(result)

    def part_to_original(
        self, part: Tensor, box: tuple[slice, slice, slice], kernel: str = "cubic"
    ) -> tuple[tuple[slice, slice, slice], Tensor]:
        """:meth:`to_original` of a part, taken as zero elsewhere.

        Args:
            part: (i, j, k), what the model grid holds in ``box``.

        Returns:
            the original voxels that the box covers, and their values.
        """
        from .resampling import apply_along, axis_weights

        places, matrices = [], []
        for source, flip, size, piece in zip(
            self.sources, self.flips, self.shape, box, strict=True
        ):
            original = self.grid.shape[source]
            first = int(np.floor(piece.start * original / size))
            last = int(np.ceil(piece.stop * original / size))
            weights = axis_weights(size, original, kernel)[first:last, piece]
            places.append(slice(original - last, original - first) if flip else slice(first, last))
            matrices.append(weights.flip(0) if flip else weights)
        order = sorted(range(3), key=lambda axis: matrices[axis].shape[0] / part.shape[axis])
        for axis in order:
            part = apply_along(part, matrices[axis].contiguous(), axis)
        back = tuple(int(axis) for axis in np.argsort(self.sources))
        return three(places[axis] for axis in back), part.permute(back)
