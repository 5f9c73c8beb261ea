"""How large a structure is expected to be, and what a size outside that costs: eq. (2).

All sizes are mm^3, so that volumes of different spacing and field of view can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from .errors import InputError
from .geometry import three
from .limits import GAMMA, PRIOR_ML, SPREAD_ML

DEFAULT_GAMMA = 0.3
"""The published tolerance; never less unless a user asks for it."""
SINGLE_GAMMA = 0.5
"""That of a single support, whose size says nothing of how much sizes vary."""
NEAR = 0.05
"""The part of a bound by which a segmentation may miss it and still be called as expected:
transduction ends where the probabilities add up to a bound, and the voxels above one half are a
little less or more."""
STRAY_VOXELS = 10
"""A predicted structure with fewer voxels in a face of the field of view is not called cut off."""


@dataclass(frozen=True)
class SizePrior:
    """The expected size S of one structure and the tolerance around it.

    Attributes:
        mean: S in mm^3, the mean over the supports that annotate the structure.
        deviation: standard deviation over them, mm^3; 0 for a single one.
        count: how many supports that is; 0 for a volume that the user gave.
        gamma: the tolerated range is [(1 - gamma) S, (1 + gamma) S].
        cut_off: some support's field of view cuts the structure off, so that a query may rightly
            hold only a part of it as well: the lower bound is not trusted.
        upper_trusted: False where every support cuts it off: S is then too small, and a query that
            shows the whole structure may rightly hold more.
        enabled: False switches the prior off.
        pieces: the most pieces that a support shows it in, as left and right in one; None where
            nobody looked.
        apart: mm between the largest and the farthest of these, at most; None likewise.
        basis: ``slices`` where S was estimated from slices that were drawn on; ``part`` where no
            support shows the whole structure or tells its size: S is the most that was drawn then,
            and nothing is expected. None where S was measured.
        uncertainty: of S where it was estimated, mm^3 (a standard deviation); None else.
    """

    mean: float
    deviation: float = 0.0
    count: int = 0
    gamma: float = DEFAULT_GAMMA
    cut_off: bool = False
    upper_trusted: bool = True
    enabled: bool = True
    pieces: int | None = None
    apart: float | None = None
    basis: Literal["slices", "part"] | None = None
    uncertainty: float | None = None

    def __post_init__(self) -> None:
        PRIOR_ML.check(self.mean / 1000)
        SPREAD_ML.check(self.deviation / 1000)
        if self.count < 0:
            raise InputError("The number of supports of a prior is 0 or more.")
        GAMMA.check(self.gamma)
        if self.pieces is not None and self.pieces < 1:
            raise InputError(f"A structure is in 1 piece or more, not in {self.pieces}.")
        if self.apart is not None and not 0 <= self.apart < math.inf:
            raise InputError(f"Pieces are 0 mm or more apart, not {self.apart:g}.")
        if self.uncertainty is not None:
            SPREAD_ML.check(self.uncertainty / 1000)
        if (self.basis == "slices") != (self.uncertainty is not None):
            raise InputError("A size has an uncertainty where it was estimated, and only there.")

    def bounds(self, query_cut_off: bool = False) -> tuple[float, float]:
        """The tolerated sizes in mm^3. A bound that is not trusted is 0 or infinite."""
        if not self.enabled or self.basis == "part":
            return 0.0, float("inf")
        low = 0.0 if self.cut_off or query_cut_off else max(0.0, (1 - self.gamma) * self.mean)
        return low, (1 + self.gamma) * self.mean if self.upper_trusted else float("inf")

    def mean_text(self) -> str:
        """S in ml, for a table."""
        return "not known" if self.basis == "part" else f"{self.mean / 1000:.1f}"

    def to_json(self) -> dict[str, Any]:
        """The form kept in an adapter file; what is not known is left out."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class PriorChange:
    """What a person wants otherwise about one prior; None leaves what is there.

    Attributes:
        mean_ml: a known volume. It is trusted whatever the supports' fields of view cut off.
        deviation_ml: how much it varies, ml. Without ``gamma`` the tolerance follows it.
        gamma: the tolerance. enabled: whether the prior acts at all.
    """

    mean_ml: float | None = None
    deviation_ml: float | None = None
    gamma: float | None = None
    enabled: bool | None = None

    def apply(self, prior: SizePrior) -> SizePrior:
        """The changed prior.

        Raises:
            InputError: a volume or the tolerance is out of range.
        """
        if self.mean_ml is not None:
            prior = _known(prior, self.mean_ml, prior.gamma, prior.deviation)
        if self.deviation_ml is not None:
            SPREAD_ML.check(self.deviation_ml)
            deviation = self.deviation_ml * 1000
            prior = replace(prior, deviation=deviation)
            gamma = max(DEFAULT_GAMMA, spread_gamma(prior.mean, deviation, max(1, prior.count)))
            prior = replace(prior, gamma=gamma)
        if self.gamma is not None:
            prior = replace(prior, gamma=self.gamma)
        return prior if self.enabled is None else replace(prior, enabled=self.enabled)


def as_expected(size: float, low: float, high: float) -> bool:
    """Whether a segmentation's size is within its bounds, give or take ``NEAR``."""
    return (1 - NEAR) * low <= size <= (1 + NEAR) * high


def override_priors(
    priors: Mapping[str, SizePrior],
    gamma: float | None,
    volumes_ml: Mapping[str, float | PriorChange | None] | None,
) -> dict[str, SizePrior]:
    """Priors with another tolerance, known volumes in ml, or (None) switched off.

    Raises:
        InputError: a volume is for a structure that is not there, or not above 0; or there is no
            such tolerance.
    """
    if gamma is not None:
        GAMMA.check(gamma)
    result = dict(priors)
    if volumes_ml is not None and not isinstance(volumes_ml, Mapping):
        raise InputError("Prior volumes are a dictionary of ml by structure name.")
    for name, ml in (volumes_ml or {}).items():
        if name not in result:
            raise InputError(
                f"There is no structure '{name}' to set a prior for. There are: "
                f"{', '.join(result)}."
            )
        if isinstance(ml, PriorChange):
            result[name] = ml.apply(result[name])
        elif ml is None:
            result[name] = replace(result[name], enabled=False)
        else:
            tolerance = result[name].gamma if gamma is None else gamma
            result[name] = _known(result[name], ml, tolerance)
    if gamma is not None:
        result = {name: replace(prior, gamma=gamma) for name, prior in result.items()}
    return result


def _known(prior: SizePrior, ml: float, gamma: float, deviation: float = 0.0) -> SizePrior:
    """A volume that a user knows, in place of the supports'; the pieces stay theirs."""
    PRIOR_ML.check(ml)
    return SizePrior(ml * 1000, deviation, 0, gamma, pieces=prior.pieces, apart=prior.apart)


def spread_gamma(mean: float, deviation: float, count: int) -> float:
    """The deviation that another patient has from the mean of ``count``, as a part of the mean."""
    return deviation / mean * math.sqrt(1 + 1 / count)


def prior_from_sizes(
    sizes: Sequence[float], cut_off: Sequence[bool], gamma: float | None = None
) -> SizePrior:
    """The prior of a structure from its sizes in the supports.

    S is the mean over the supports that show the whole structure; over all where none does.

    Args:
        sizes: mm^3, at least one. cut_off: for each, whether the field of view cuts it off.
        gamma: the tolerance. None takes it from the spread: the deviation that another patient
            has from the mean of these (sd (1 + 1/K)^0.5), but no less than the published 0.3.
    """
    whole = [size for size, cut in zip(sizes, cut_off, strict=True) if not cut]
    used = whole or list(sizes)
    deviation = float(np.std(used, ddof=1)) if len(used) > 1 else 0.0
    mean = float(np.mean(used))
    if gamma is None and len(used) == 1:
        gamma = SINGLE_GAMMA
    elif gamma is None:
        gamma = max(DEFAULT_GAMMA, spread_gamma(mean, deviation, len(used)))
    return SizePrior(mean, deviation, len(used), gamma, any(cut_off), bool(whole))


def prior_from_estimates(
    sizes: Sequence[float],
    uncertainties: Sequence[float],
    cut_off: Sequence[bool],
    gamma: float | None = None,
) -> SizePrior:
    """The prior of a structure from sizes that were estimated: as :func:`prior_from_sizes`, with a
    range that is wider by how uncertain their mean is, unless the tolerance is given.

    Args:
        uncertainties: mm^3, the standard deviation of each size.
    """
    prior = prior_from_sizes(sizes, cut_off, gamma)
    used = [u for u, cut in zip(uncertainties, cut_off, strict=True) if not cut] or uncertainties
    uncertainty = float(np.sqrt(np.sum(np.square(used)))) / len(used)
    if gamma is None:
        prior = replace(prior, gamma=prior.gamma + uncertainty / prior.mean)
    return replace(prior, basis="slices", uncertainty=uncertainty)


def prior_of_parts(drawn: Sequence[float], gamma: float | None = None) -> SizePrior:
    """The prior of a structure whose size no annotation tells: it expects nothing.

    Args:
        drawn: mm^3, what was drawn in each support. gamma: kept for a volume that is given later.
    """
    gamma = SINGLE_GAMMA if gamma is None else gamma
    return SizePrior(max(drawn), 0.0, len(drawn), gamma, True, False, basis="part")


def field_of_view(array: np.ndarray) -> tuple[slice, slice, slice]:
    """The box of an image (i, j, k) without constant outer slices, which are padding.

    A scan is often blanked beyond the treated region; a structure that ends there is cut off just
    as at the edge of the array.
    """
    box = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        varying = np.flatnonzero(array.max(axis=others) != array.min(axis=others))
        box.append(slice(varying[0], varying[-1] + 1) if len(varying) else slice(0, None))
    return three(box)


def touches_border(
    mask: np.ndarray, view: tuple[slice, slice, slice] | None = None, at_least: int = 1
) -> bool:
    """Whether a mask (i, j, k) reaches the outermost layer of voxels of the field of view.

    ``at_least`` voxels in one face count; use :data:`STRAY_VOXELS` for predictions.
    """
    inside = mask[view] if view is not None else mask
    faces = [inside.take(end, axis) for axis in range(3) for end in (0, -1)]
    return any(int(np.count_nonzero(face)) >= at_least for face in faces)
