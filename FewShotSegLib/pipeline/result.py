"""The result on one query: masks, what is known of them, and how a notebook shows both."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..core.annotation import Structure
from ..core.data_frames import data_frame
from ..core.geometry import Grid, Volume
from ..core.plain_text import html_table
from ..core.quantities import ml_text
from .rows import OF_ONE, report_rows


@dataclass(repr=False)
class Segmentation:
    """The result on one query.

    Attributes:
        structures: in the adapter's order.
        masks: by structure name, boolean (i, j, k) on the query's original grid.
        unrefined: the masks without transduction; the same where it changed nothing.
        probabilities: by structure name, float32 (i, j, k); empty unless asked for.
        grid: the query's own.
        report: what ``report.json`` says of it.
        uncertainty: (i, j, k) uint8 from 0 to 100, where a probability is one half; None unless
            asked for.
        image: the query, for the picture that a notebook shows.
    """

    structures: list[Structure]
    masks: dict[str, np.ndarray]
    unrefined: dict[str, np.ndarray]
    probabilities: dict[str, np.ndarray]
    grid: Grid
    report: dict[str, Any] = field(default_factory=dict)
    uncertainty: np.ndarray | None = None
    image: Volume | None = None

    def __repr__(self) -> str:
        """One line for people: without it a notebook shows every array."""
        parts = (f"{name} {self._ml(name):.1f} ml" for name in self.masks)
        shape = " x ".join(map(str, self.grid.shape))
        return f"<{type(self).__name__}: {', '.join(parts)}; {shape} voxels>"

    def _ml(self, name: str) -> float:
        return float(np.count_nonzero(self.masks[name]) * self.grid.voxel_volume / 1000)

    def to_pandas(self) -> Any:
        """A ``DataFrame`` with a row a structure: its ml, verdict and expected Dice.

        Raises:
            InputError: pandas is not installed.
        """
        rows = list(report_rows("", "", self.report))
        known = {row["structure"] for row in rows}
        rows += [{"structure": name} for name in self.masks if name not in known]
        for row in rows:
            row["ml"] = self._ml(row["structure"])
        return data_frame(rows, OF_ONE, "structure")

    def _repr_html_(self) -> str:
        """What a notebook shows: the picture, and each structure with its verdict."""
        header, rows = ["structure", "ml", "verdict", "expected Dice", "reasons"], []
        for name in self.masks:
            trust = self.report.get("structures", {}).get(name, {}).get("trust", {})
            dice, ml = trust.get("dice"), self._ml(name)
            rows.append(
                [name, ml_text(ml), trust.get("verdict", ""), "" if dice is None else f"{dice:.2f}",
                 "; ".join(trust.get("reasons", ()))]
            )  # fmt: skip
        data = base64.b64encode(self._repr_png_() or b"").decode()
        picture = f'<img alt="" src="data:image/png;base64,{data}">' if data else ""
        return picture + html_table(header, rows)

    def _repr_png_(self) -> bytes | None:
        """The three planes that show most of the structures; None without the image."""
        if self.image is None:
            return None
        from ..overlay.thumbnail import draw_thumbnail  # loads matplotlib

        return draw_thumbnail(self.image, self.masks, self.structures, "png")

    @property
    def labels(self) -> np.ndarray:
        """The label map (i, j, k), uint8 or uint16; of overlapping structures the later wins."""
        largest = max(structure.value for structure in self.structures)
        labels = np.zeros(self.grid.shape, np.uint8 if largest < 256 else np.uint16)
        for structure in self.structures:
            labels[self.masks[structure.name]] = structure.value
        return labels
