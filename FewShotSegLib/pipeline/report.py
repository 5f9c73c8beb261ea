"""``report.json``: what a result rests on, beside the result, one part for each file."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch

from .. import __version__
from ..compute.pieces import Pieces, find_pieces
from ..compute.transaction import Transaction, alone
from ..core.annotation import dice
from ..core.atomic import write_json
from ..core.errors import InputError
from ..core.json_fields import load_json
from ..core.json_schema import from_json
from ..core.options import SegmentOptions
from ..core.plain_text import path_text
from ..core.size_prior import SizePrior, as_expected
from ..core.trust import UNKNOWN, Signals, judge, of_support
from ..features.extraction import FeatureSource
from ..models.registry import Model
from .adapter_file import TrainedAdapter
from .remarks import change_remark, far_pieces, piece_remark
from .trust import completed

if TYPE_CHECKING:
    from .segmentation import Segmentation

NAME = "report.json"
LISTED_PIECES = 10
"""How many of a structure's pieces, largest first, are listed."""
FORMAT = "fewshotseg-report-1"
HARDLY = 0.1
"""Part of its smallest expected size below which a structure may well be absent."""


@dataclass(frozen=True)
class Basis:
    """What a result rests on beside the adapter.

    Attributes:
        priors: those that were used: the adapter's, or the user's in their place.
        model: whose features were used. options: of the segmentation. source: of the features.
        refinement: what transduction says of itself; None without.
        warnings: said before there was a result.
        signals: what the features say, by structure name; None where nothing is kept to judge by.
        work: by which the same work is recognised.
        is_support: whether the adapter was trained on this very volume.
    """

    priors: Mapping[str, SizePrior]
    model: Model
    options: SegmentOptions
    source: FeatureSource
    refinement: dict[str, Any] | None = None
    warnings: Sequence[str] = ()
    signals: Mapping[str, Signals] | None = None
    work: str = ""
    is_support: bool = False


@dataclass(frozen=True)
class _Reports:
    """The whole file; what is added to it one day is kept out of the way of older readers."""

    OTHERS: ClassVar[bool] = True
    format: Literal["fewshotseg-report-1"]
    results: dict[str, dict[str, Any]]


def make_report(
    result: Segmentation, trained: TrainedAdapter, basis: Basis, seconds: Mapping[str, float]
) -> dict[str, Any]:
    """The report of one segmentation; JSON-ready. Volumes are ml on the original grid.

    Args:
        seconds: by phase.
    """
    model, source, refinement = basis.model, basis.source, basis.refinement
    transductive = basis.options.transductive
    voxel = result.grid.voxel_volume / 1000
    structures: dict[str, dict[str, Any]] = {}
    judged: dict[str, Signals | None] = {}
    notes = list(basis.warnings)
    for structure in result.structures:
        name = structure.name
        mask, before = result.masks[name], result.unrefined[name]
        refined = (refinement or {}).get("structures", {}).get(name, {})
        prior = basis.priors[name]
        low = refined.get("lower_bound_ml", prior.bounds()[0] / 1000)
        high = refined.get("upper_bound_ml", prior.bounds()[1] / 1000)
        volume = float(np.count_nonzero(mask)) * voxel
        volume_before = float(np.count_nonzero(before)) * voxel
        pieces = find_pieces(mask, result.grid)
        trusted = refined.get("lower_bound_trusted", not prior.cut_off)
        within = low is None or high is None or as_expected(volume, low, high)
        structures[name] = {
            "label": structure.value,
            "volume_ml": round(volume, 4),
            "prior": {
                "mean_ml": round(prior.mean / 1000, 4),
                "sd_ml": round(prior.deviation / 1000, 4),
                "supports": prior.count,
                "gamma": prior.gamma,
                "lower_ml": low,
                "upper_ml": _finite(high),
                "lower_bound_trusted": trusted,
                "upper_bound_trusted": prior.upper_trusted,
                "enabled": prior.enabled,
                "basis": prior.basis,
                "uncertainty_ml": _ml(prior.uncertainty),
            },
            "expected_dice": trained.expected and trained.expected.summary(name),
            "within_prior": within,
            "pieces": {
                "count": len(pieces.volumes),
                "volumes_ml": [round(v / 1000, 4) for v in pieces.volumes[:LISTED_PIECES]],
                "distances_mm": [round(d, 1) for d in pieces.distances[:LISTED_PIECES]],
                "expected": prior.pieces,
                "far": _far_piece(pieces, prior),
            },
            "transduction": {
                "volume_before_ml": round(volume_before, 4),
                "changed_voxels": int(np.count_nonzero(mask ^ before)),
                "dice_with_unrefined": _finite(dice(mask, before)),
                **refined,
            }
            if transductive
            else None,
        }
        entry = structures[name]
        broken = piece_remark(name, pieces, prior)
        changed = change_remark(name, volume_before, volume) if transductive else None
        signals = completed(basis.signals[name], entry) if basis.signals else None
        entry["signals"] = signals.to_json() if signals else None
        judged[name] = signals
        entry["remarks"] = [remark.brief for remark in (broken, changed) if remark is not None]
        # Adapters that don't say in how many pieces a structure is can't make several unexpected.
        unexpected = changed is not None or (broken is not None and prior.pieces is not None)
        entry["as_expected"] = bool(mask.any()) and within and not unexpected
        entry["warnings"] = _size_warnings(name, entry, refined, prior)
        if broken is not None:
            entry["warnings"].append(broken.sentence)
        if changed is not None and not _hardly_found(refined, prior):
            entry["warnings"].append(changed.sentence)
        notes += entry["warnings"]
    for name, found in judge(judged).items():
        judgement = of_support(found) if basis.is_support else found
        far = structures[name]["pieces"]["far"]
        structures[name]["trust"] = {
            **judgement.to_json(),
            "place_mm": far["place_mm"] if far and judgement.verdict != UNKNOWN else None,
        }
    return {
        "structures": structures,
        "is_support": basis.is_support,
        "transductive": transductive,
        "refined_epochs": (refinement or {}).get("epochs", 0),
        "refined_with_supports": (refinement or {}).get("with_supports", False),
        "warnings": notes,
        "seconds": {**seconds, "total": round(sum(seconds.values()), 3)},
        "backbone_passes": source.passes,
        "backbone_seconds": round(source.seconds, 3),
        "device": str(source.device),
        "work": basis.work,
        "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        "seed": basis.options.seed,
        "training_seed": trained.training.get("seed"),
        "model": {
            "id": model.entry.id,
            "weights_sha256": model.weights_sha256,
            "network": model.entry.network(),
        },
        "adapter": {
            "method": trained.method,
            "features": trained.features,
            "sha256": trained.content_sha256(),
        },
        "versions": {
            "fewshotseg": __version__,
            "torch": torch.__version__,
            "monai": importlib.metadata.version("monai"),
            "python": platform.python_version(),
        },
    }


def _far_piece(pieces: Pieces, prior: SizePrior) -> dict[str, Any] | None:
    """The piece that lies farthest from the largest, where that is far; RAS mm of its place."""
    far = far_pieces(pieces, prior)
    if not far:
        return None
    return {
        "volume_ml": round(pieces.volumes[far[0]] / 1000, 4),
        "distance_mm": round(pieces.distances[far[0]], 1),
        "place_mm": [round(x, 2) for x in pieces.places[far[0]]],
    }


def _size_warnings(
    name: str, entry: Mapping[str, Any], refined: Mapping[str, Any], prior: SizePrior
) -> list[str]:
    """What a structure's size gives reason to say.

    Args:
        entry: of the report, so far. refined: what transduction says of the structure.
    """
    notes = []
    volume, trusted = entry["volume_ml"], entry["prior"]["lower_bound_trusted"]
    low, high = entry["prior"]["lower_ml"], entry["prior"]["upper_ml"]
    if not entry["pieces"]["count"]:
        notes.append(f"No voxel was found to be {name}.")
    elif not entry["within_prior"]:
        expected = f"{low:.1f} to {high:.1f}" if low else f"size of up to {high:.1f}"
        notes.append(f"{name} is {volume:.1f} ml, outside the expected {expected} ml.")
    if _hardly_found(refined, prior):
        grown = refined["soft_size_before_ml"]
        notes.append(
            f"{name} was hardly found before transduction ({grown:.2f} ml); check that it is "
            "in this image at all."
        )
    if prior.enabled and prior.basis == "part":
        notes.append(
            f"The size of {name} is not known: no annotation shows all of it. Transduction left it "
            "as it was found."
        )
    elif prior.enabled and not trusted:
        where = "this query" if refined.get("query_cut_off") else "a support"
        what = "smallest expected volume is" if prior.upper_trusted else "expected volume is"
        if not prior.upper_trusted:
            where = "every support"
        notes.append(
            f"{name} reaches the border of the field of view of {where}, so that its {what} "
            "not trusted."
        )
    return notes


def _hardly_found(refined: Mapping[str, Any], prior: SizePrior) -> bool:
    """Whether transduction made a structure of next to nothing."""
    size, low = refined.get("soft_size_before_ml"), refined.get("lower_bound_ml")
    if size is None or not low:
        return False
    return prior.enabled and bool(size < HARDLY * low)


def write_report(out: str | os.PathLike[str], report: dict[str, Any]) -> Path:
    """Put one result's report into the ``report.json`` of its folder; others there are kept.

    Returns:
        the path of the file.

    Raises:
        InputError: a ``report.json`` of something else is in the way.
    """
    path = Path(out).parent / NAME
    # Processes that write into one folder must not lose each other's parts.
    with alone(path.parent):
        write_json(path, _with(path, out, report))
    return path


def commit_with_report(
    files: Transaction, out: str | os.PathLike[str], report: dict[str, Any]
) -> Path:
    """The same as part of a transaction in that folder, which is committed.

    Raises:
        InputError: a ``report.json`` of something else is in the way. StorageError.
    """
    path = files.folder / NAME
    with alone(path.parent):
        write_json(files.path(NAME), _with(path, out, report))
        files.commit()
    return path


def _with(path: Path, out: str | os.PathLike[str], report: dict[str, Any]) -> dict[str, Any]:
    return {"format": FORMAT, "results": {**read_reports(path), path_text(Path(out).name): report}}


def read_reports(path: Path) -> dict[str, Any]:
    """The reports in a ``report.json``, by result file name; none if there is no such file.

    Names are as ``path_text`` writes them.

    Raises:
        InputError: it is not one of ours.
    """
    if not path.exists():
        return {}
    try:
        return from_json(_Reports, load_json(path, "report"), "").results
    except InputError as error:
        raise InputError(
            f"{path} is not a FewShotSeg report and would be overwritten. Move it, or choose "
            "another output folder."
        ) from error


def _ml(mm3: float | None) -> float | None:
    return None if mm3 is None else round(mm3 / 1000, 4)


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and np.isfinite(value) else None
