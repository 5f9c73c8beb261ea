"""The annotated volumes as training sees them: features, targets, sizes. No images any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from ..compute.known_voxels import between, estimate_size, filled, known_slices, shows_whole
from ..compute.pieces import Pieces, find_pieces, reaches_border
from ..core.annotation import Annotation, Structure, name_key, require_structures
from ..core.errors import InputError
from ..core.geometry import Volume
from ..core.size_prior import (
    SizePrior,
    field_of_view,
    prior_from_estimates,
    prior_from_sizes,
    prior_of_parts,
)
from ..features.extraction import FeatureSource
from ..features.store import VolumeFeatures
from ..methods.adapters.base import Adapter, statistics
from ..models.known_grid import known_on_model

UNLIKE = 4.0
"""How many times larger in one support than in another a structure is before the user is asked."""
SAMPLED_VOXELS = 20_000
"""Voxels of each level and support that the feature statistics are measured on."""


@dataclass(frozen=True)
class Support:
    """One annotated volume as it was read.

    Attributes:
        volume: the image.
        annotation: what was annotated in it.
        subject: how messages call it; never stored with an adapter.
    """

    volume: Volume
    annotation: Annotation
    subject: str = ""


@dataclass(frozen=True)
class PreparedSupport:
    """One support on the model grid.

    Attributes:
        features: of its volume.
        targets: (K, i, j, k) uint8, the part of each model voxel inside the structure times 255.
        annotated: (K,) float32, the task mask w.
        centres: for each structure, (n, 3) model voxels inside it; empty where not annotated.
        sizes: mm^3 by structure name, measured on the original grid.
        cut_off: names of structures that the field of view cuts off.
        subject: how messages call it.
        pieces: by structure name, what its mask falls into on the original grid.
        known: (i, j, k) bool, where the annotation is known; None where that is everywhere. There
            alone are ``targets`` of any meaning.
        uncertainty: mm^3 by structure name, of the ``sizes`` that were estimated from drawn slices.
        drawn: mm^3 by structure name, what was drawn of those whose size is not known.
    """

    features: VolumeFeatures
    targets: Tensor
    annotated: Tensor
    centres: tuple[np.ndarray, ...]
    sizes: Mapping[str, float]
    cut_off: frozenset[str]
    subject: str = ""
    pieces: Mapping[str, Pieces] = field(default_factory=dict)
    known: Tensor | None = None
    uncertainty: Mapping[str, float] = field(default_factory=dict)
    drawn: Mapping[str, float] = field(default_factory=dict)


@dataclass
class SupportSet:
    """All supports and the structures that they teach, in a fixed order."""

    structures: list[Structure]
    supports: list[PreparedSupport] = field(default_factory=list)

    def priors(self, gamma: float | None = None) -> dict[str, SizePrior]:
        """The size prior of each structure (eq. 2): S is the mean over its supports.

        It is of those that show the whole structure. Where none does, of the sizes that drawn
        slices tell; where these tell none, it has no bounds.
        """
        priors = {}
        for structure in self.structures:
            name = structure.name
            having = [s for s in self.supports if name in s.sizes]
            whole = [support for support in having if name not in support.uncertainty]
            having = whole or having
            sizes = [support.sizes[name] for support in having]
            cut_off = [name in support.cut_off for support in having]
            if not having:
                drawn = [s.drawn[name] for s in self.supports if name in s.drawn]
                prior = prior_of_parts(drawn, gamma)
            elif whole:
                prior = prior_from_sizes(sizes, cut_off, gamma)
            else:
                uncertainties = [support.uncertainty[name] for support in having]
                prior = prior_from_estimates(sizes, uncertainties, cut_off, gamma)
            pieces = [s.pieces[name] for s in self.supports if name in s.pieces]
            if pieces:
                prior = replace(
                    prior,
                    pieces=max(found.own for found in pieces),
                    apart=round(max(found.apart for found in pieces), 2),
                )
            priors[structure.name] = prior
        return priors

    def unlike_sizes(self) -> list[str]:
        """A sentence for each structure that is far smaller in one support than in another."""
        texts = []
        for name in (structure.name for structure in self.structures):
            having = [s for s in self.supports if name in s.sizes and name not in s.cut_off]
            having.sort(key=lambda support: support.sizes[name])
            if having and having[-1].sizes[name] > UNLIKE * having[0].sizes[name] > 0:
                small, large = (
                    f"{support.sizes[name] / 1000:.1f} ml in {support.subject or 'one support'}"
                    for support in (having[0], having[-1])
                )
                texts.append(
                    f"{name} has {small} and {large}: check that each shows the whole of it. Sizes "
                    "so different say little of a new one."
                )
        return texts


def choose_structures(
    supports: Sequence[Support], wanted: Sequence[Structure] | None
) -> list[Structure]:
    """The structures to learn: those asked for, else all that are annotated somewhere.

    Colours and terminology that the caller does not give come from the annotations.

    Raises:
        InputError: one that was asked for is annotated in no support, or a label map could not
            hold them.
    """
    found: dict[str, Structure] = {}
    for support in supports:
        for structure in support.annotation.structures:
            if structure.name in support.annotation.annotated:
                found.setdefault(name_key(structure.name), structure)
    if wanted is None:
        chosen = sorted(found.values(), key=lambda s: s.value)
    else:
        require_structures(wanted, "The structures to learn")
        chosen = []
        for structure in wanted:
            known = found.get(name_key(structure.name))
            if known is None:
                names = ", ".join(s.name for s in found.values()) or "none"
                raise InputError(
                    f"'{structure.name}' (label {structure.value}) is not annotated in any "
                    f"support. Annotated are: {names}."
                )
            chosen.append(
                replace(
                    structure,
                    color=structure.color or known.color,
                    terminology=structure.terminology or known.terminology,
                )
            )
    if not chosen:
        raise InputError("No support has an annotated structure. Annotate at least one.")
    values = [structure.value for structure in chosen]
    if len(set(values)) < len(values):
        # Named segments number themselves anew in every file.
        chosen = [
            Structure(s.name, number, s.color, s.terminology) for number, s in enumerate(chosen, 1)
        ]
    require_structures(chosen, "The structures of the supports")
    return chosen


def prepare_support(
    support: Support, structures: Sequence[Structure], source: FeatureSource
) -> PreparedSupport:
    """Features and targets of one support."""
    features = source(support.volume, support.subject)
    placement = source.preprocessing.placement(support.volume)
    view, known = field_of_view(support.volume.array), support.annotation.known
    seen = None if known is None else known_on_model(placement, known)
    shape = (len(structures), *features.shape)
    targets, annotated = torch.zeros(shape, dtype=torch.uint8), torch.zeros(len(structures))
    centres, pieces, measures = [], {}, _Measures()
    for k, structure in enumerate(structures):
        mask = support.annotation.mask(structure.name)
        if mask is None:
            centres.append(np.zeros((0, 3), np.int64))
            continue
        part = placement.to_model(mask if known is None else filled(mask, known)).clamp(0, 1)
        if seen is not None:
            part = part * seen
        annotated[k] = 1
        targets[k] = (part * 255).round().to(torch.uint8)
        # A structure smaller than a model voxel still has a brightest one to train on.
        inside = (part >= min(0.5, float(part.max()))) & (part > 0)
        centres.append(np.argwhere(inside.numpy()))
        shown = _measure(structure.name, mask, support, measures)
        pieces[structure.name] = find_pieces(shown, support.volume.grid)
        # A slip of the pen at the border is not the structure.
        if reaches_border(shown, view, count=None):
            measures.cut_off.add(structure.name)
    return PreparedSupport(
        features,
        targets,
        annotated,
        tuple(centres),
        measures.sizes,
        frozenset(measures.cut_off),
        support.subject,
        pieces,
        seen,
        measures.uncertainty,
        measures.drawn,
    )


@dataclass
class _Measures:
    """Sizes of a support's structures, as of :class:`PreparedSupport`."""

    sizes: dict[str, float] = field(default_factory=dict)
    uncertainty: dict[str, float] = field(default_factory=dict)
    drawn: dict[str, float] = field(default_factory=dict)
    cut_off: set[str] = field(default_factory=set)


def _measure(name: str, mask: np.ndarray, support: Support, found: _Measures) -> np.ndarray:
    """Put a structure's size among those found, as far as its annotation tells it.

    Returns:
        the mask (i, j, k), with what lies between drawn slices where it was drawn on slices.
    """
    known, grid = support.annotation.known, support.volume.grid
    size = float(np.count_nonzero(mask)) * grid.voxel_volume
    if known is None or shows_whole(mask, known):
        found.sizes[name] = size
        return mask
    slices = known_slices(known)
    estimate = None if slices is None else estimate_size(mask, slices, grid)
    if estimate is None:
        found.drawn[name] = size
    else:
        found.sizes[name] = estimate.size
        found.uncertainty[name] = estimate.uncertainty
    return mask if slices is None else between(mask, slices)


def standardise(adapter: Adapter, supports: Sequence[PreparedSupport]) -> None:
    """Give the adapter the supports' feature statistics of each level that it uses."""
    for number, level in enumerate(adapter.levels):
        samples = []
        for support in supports:
            array = support.features.levels[level]
            flat = array.reshape(array.shape[0], -1)
            step = max(1, flat.shape[1] // SAMPLED_VOXELS)
            sample = np.array(flat[:, ::step], np.float32) * support.features.scales[level]
            samples.append(torch.from_numpy(sample))
        values = torch.cat(samples, 1)
        adapter.standardise_by(number, *statistics(values))
