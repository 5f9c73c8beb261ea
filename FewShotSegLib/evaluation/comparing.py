"""A prediction compared with a reference, whatever either is: a result, a file, masks in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from ..core.annotation import Annotation, Structure, as_structures
from ..core.data_frames import data_frame
from ..core.errors import InputError
from ..core.geometry import Grid
from ..core.plain_text import html_table
from ..io.annotations import read_annotation
from ..pipeline.batch import Outcome
from ..pipeline.segmentation import Segmentation
from . import metrics
from .metrics import TOLERANCE_MM, Scores, evaluate_files, format_table, table_cells

Masks = Mapping[str, np.ndarray]
Comparable = Segmentation | Annotation | Masks | str | os.PathLike[str]


class Comparison(dict[str, Scores]):
    """Scores by structure, which show themselves as a table."""

    def __repr__(self) -> str:
        return format_table(self)

    def to_pandas(self) -> Any:
        """A ``DataFrame`` with a row a structure; what is not defined is missing.

        Raises:
            InputError: pandas is not installed.
        """
        rows = [{"structure": name, **scores.to_json()} for name, scores in self.items()]
        return data_frame(rows, ("structure", *(f.name for f in fields(Scores))), "structure")

    def _repr_html_(self) -> str:
        header, rows = table_cells(self)
        return html_table(header, rows)


def _one(value: Any) -> Any:
    """What an outcome of several is of; a list of several is none.

    Raises:
        InputError: it is a list. FewShotSegError: why the outcome has no result.
    """
    if isinstance(value, Outcome):
        if value.error is not None:
            raise value.error
        return value.result if value.result is not None else value.out
    several = (Outcome, Segmentation, str, os.PathLike)
    if isinstance(value, (list, tuple)) and all(isinstance(one, several) for one in value):
        raise InputError(
            "evaluate compares one prediction with one reference; call it for each of a list."
        )
    return value


def evaluate(
    *pair: Any,
    prediction: Comparable | None = None,
    reference: Comparable | None = None,
    grid: Grid | None = None,
    tolerance_mm: float = TOLERANCE_MM,
    structures: str | Sequence[Structure] | None = None,
) -> Comparison:
    """Compare a prediction with a reference, structure by structure.

    ``evaluate(result, "ct3_manual.nii.gz")``; ``evaluate("ct3_seg.nii.gz", "ct3_manual.nii.gz",
    structures="4=liver")``. A structure that the reference does not annotate is unknown, and not
    scored.

    Args:
        pair: the prediction and the reference: each a result of :func:`segment`, a file, an
            annotation, or masks by structure name; then the grid and the tolerance, if given.
            **Two sets of masks are given the other way round**, ``evaluate(reference_masks,
            predicted_masks, grid)``, as this function always took them.
        prediction, reference: the same by name.
        grid: of masks in memory; that of a result is known.
        tolerance_mm: for surface Dice.
        structures: which, and their label values in files; those of a result where not given.

    Returns:
        scores by structure name; it shows itself as a table.

    Raises:
        InputError: either can't be used, or they are not on one grid. TypeError: there are not two.
    """
    wanted = as_structures(structures)
    pair = tuple(map(_one, pair[:2])) + pair[2:]
    prediction, reference = _one(prediction), _one(reference)
    if pair and (len(pair) < 2 or len(pair) > 4 or prediction is not None or reference is not None):
        raise TypeError("evaluate takes a prediction and a reference, by place or by name")
    if pair:
        prediction, reference = pair[:2]
        if isinstance(pair[0], Mapping) and isinstance(pair[1], Mapping):
            reference, prediction = pair[:2]
        grid = pair[2] if len(pair) > 2 else grid
        tolerance_mm = pair[3] if len(pair) > 3 else tolerance_mm
    elif prediction is None or reference is None:
        raise TypeError("evaluate takes a prediction and a reference, by place or by name")
    if isinstance(reference, Segmentation) and not isinstance(prediction, Segmentation):
        prediction, reference = reference, prediction  # a result is no reference of anything else
    if isinstance(prediction, (str, os.PathLike)) and isinstance(reference, (str, os.PathLike)):
        files = Path(reference), Path(prediction)
        return Comparison(evaluate_files(*files, wanted, tolerance_mm))
    known = [one for one in (prediction, reference) if isinstance(one, Segmentation)]
    grid = known[0].grid if known else grid
    if grid is None:
        raise InputError("Say on which grid the masks are, with grid=.")
    if wanted is None and known:
        wanted = known[0].structures
    truth = _masks(reference, grid, wanted, "reference")
    found = _masks(prediction, grid, wanted, "prediction")
    return Comparison(metrics.evaluate(truth, found, grid, tolerance_mm))


def _masks(one: Any, grid: Grid, wanted: Sequence[Structure] | None, what: str) -> Masks:
    """By structure name, those that are wanted."""
    if isinstance(one, Segmentation):
        if not one.grid.same_as(grid):
            raise InputError(f"The {what} is on another grid.")
        masks: Masks = one.masks
    elif isinstance(one, Annotation):
        masks = one.masks
    elif isinstance(one, Mapping):
        masks = one
    elif isinstance(one, (str, os.PathLike)):
        empty = what == "prediction"
        masks = read_annotation(Path(one), grid, wanted, what=what, may_be_empty=empty).masks
    else:
        raise InputError(
            f"A {what} is a result, a path, an annotation, or a dictionary of masks by name, not "
            f"a {type(one).__name__}."
        )
    if wanted is None:
        return masks
    names = {structure.name.casefold() for structure in wanted}
    return {name: mask for name, mask in masks.items() if name.casefold() in names}
