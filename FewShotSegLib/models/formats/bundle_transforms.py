"""A bundle's transforms as an entry's preprocessing; what can't be said there is refused by name.

The order counts: orientation, crop, spacing, then intensities, as bundles have it; intensities may
come before the spacing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...core.errors import ModelError
from ...core.json_fields import shown
from ...core.model_entry import AXES
from .expressions import Values

IDLE = (
    "LoadImage",
    "EnsureChannelFirst",
    "AddChannel",
    "EnsureType",
    "ToTensor",
    "ToDevice",
    "CastToType",
    "SelectItems",
    "SqueezeDim",
)
"""Transforms that change no value of an image here: reading, axes of the array, types."""
ALWAYS = ("keys", "_target_", "allow_missing_keys", "lazy", "image_only", "dtype", "_disabled_")
"""Arguments without a meaning here."""


def preprocessing_of(values: Values, name: str) -> dict[str, Any]:
    """Fields of ``preprocessing``; ``orientation`` and ``spacing`` where they are said.

    Args:
        values: of the configuration. name: of its file.

    Raises:
        ModelError: a transform or an argument can't be had here.
    """
    steps = values.config.get("preprocessing")
    if isinstance(steps, Mapping):
        steps = steps.get("transforms")
    steps = values.of(steps, "preprocessing") if isinstance(steps, str) else steps
    if not isinstance(steps, list):
        raise ModelError(f"{name} has no list of transforms at 'preprocessing'.")
    fields: dict[str, Any] = {}
    for step in steps:
        target = step.get("_target_") if isinstance(step, Mapping) else None
        if not isinstance(target, str):
            raise ModelError(f"A transform of the preprocessing in {name} has no '_target_'.")
        short = target.removeprefix("monai.transforms.")
        short = short.removesuffix("d").removesuffix("Dict") if short.endswith("d") else short
        if short in IDLE:
            continue
        understand = _KNOWN.get(short)
        if understand is None:
            raise ModelError(
                f"The preprocessing in {name} has the transform {shown(target)}, which can't be "
                "done here; without it the network would see other images than it was trained on."
            )
        arguments = {
            key: values.of(value, f"preprocessing#{target}#{key}")
            for key, value in step.items()
            if key not in ALWAYS
        }
        understand(_Step(target, arguments, name), fields)
    fields.setdefault("intensity", "identity")
    return fields


class _Step:
    """A transform with its arguments, each of which has to be taken."""

    def __init__(self, target: str, arguments: dict[str, Any], name: str) -> None:
        self.target, self.arguments, self.name = target, arguments, name

    def take(self, key: str, default: Any = None) -> Any:
        return self.arguments.pop(key, default)

    def expect(self, **allowed: Any) -> None:
        """Check that nothing else is asked for than what was taken and these values."""
        for key, value in self.arguments.items():
            if key not in allowed or value not in (allowed[key], None):
                raise self.refused(f"with {key} {shown(value)}")

    def refused(self, what: str) -> ModelError:
        return ModelError(
            f"The preprocessing in {self.name} has {shown(self.target)} {what}, which can't be "
            "done here."
        )

    def numbers(self, *keys: str) -> list[float]:
        found = [self.take(key) for key in keys]
        if not all(isinstance(n, int | float) and not isinstance(n, bool) for n in found):
            raise self.refused(f"without numbers for {' and '.join(keys)}")
        return found


def _orientation(step: _Step, fields: dict[str, Any]) -> None:
    letters = step.take("axcodes")
    text = letters if isinstance(letters, str) else "?"
    if sorted(AXES.get(letter, (9, 0))[0] for letter in text) != [0, 1, 2]:
        raise step.refused(f"with axcodes {shown(letters)}")
    step.take("labels")
    step.expect(as_closest_canonical=False)
    if "spacing" in fields or "crop" in fields:
        raise step.refused("after the spacing or the crop")
    fields["orientation"] = text


def _spacing(step: _Step, fields: dict[str, Any]) -> None:
    lengths = step.take("pixdim")
    if isinstance(lengths, int | float):
        lengths = [lengths] * 3
    plain = isinstance(lengths, list) and len(lengths) == 3
    if not plain or not all(isinstance(n, int | float) and n > 0 for n in lengths):
        raise step.refused(f"with pixdim {shown(lengths)}")
    mode = step.take("mode", "bilinear")
    if mode not in ("bilinear", ["bilinear"], ["bilinear", "nearest"]):
        raise step.refused(f"with mode {shown(mode)}")
    step.expect(
        padding_mode="border",
        diagonal=False,
        align_corners=False,
        scale_extent=False,
        recompute_affine=False,
        ensure_same_shape=True,
    )
    fields |= {"spacing": lengths, "resampling": "monai"}


def _crop(step: _Step, fields: dict[str, Any]) -> None:
    margin = step.take("margin", 0)
    step.take("source_key")
    step.take("allow_smaller")
    step.take("start_coord_key")
    step.take("end_coord_key")
    step.expect(k_divisible=1, mode="constant")
    if not isinstance(margin, int) or isinstance(margin, bool):
        raise step.refused(f"with margin {shown(margin)}")
    if "spacing" in fields or "intensity" in fields:
        raise step.refused("after the spacing or the intensities")
    fields |= {"crop": "positive", **({"margin": margin} if margin else {})}


def _then(step: _Step, fields: dict[str, Any], **intensity: Any) -> None:
    """Add a mapping of intensities, the first of its image."""
    if "intensity" in fields:
        raise step.refused("after another mapping of intensities")
    fields |= intensity
    if "spacing" in fields:
        fields["normalised"] = "resampled"


def _range(step: _Step, fields: dict[str, Any]) -> None:
    low, high = step.numbers("a_min", "a_max")
    onto = [step.take("b_min", 0), step.take("b_max", 1)]
    cut = {} if step.take("clip", False) is True else {"cut": False}
    step.expect()
    _then(step, fields, intensity="window", low=low, high=high, **_onto(step, onto), **cut)


def _percentiles(step: _Step, fields: dict[str, Any]) -> None:
    low, high = step.numbers("lower", "upper")
    onto = [step.take("b_min", 0), step.take("b_max", 1)]
    cut = {} if step.take("clip", False) is True else {"cut": False}
    step.take("channel_wise")
    step.expect(relative=False)
    _then(step, fields, intensity="percentiles", low=low, high=high, **_onto(step, onto), **cut)


def _unit(step: _Step, fields: dict[str, Any]) -> None:
    onto = [step.take("minv", 0.0), step.take("maxv", 1.0)]
    step.take("channel_wise")
    step.expect(factor=None)
    if fields.get("intensity") == "standardise" and "mean" not in fields:
        fields["onto"] = onto if _onto(step, onto) else [0, 1]
        return
    _then(step, fields, intensity="unit", **_onto(step, onto))


def _standardise(step: _Step, fields: dict[str, Any]) -> None:
    mean, std = step.take("subtrahend"), step.take("divisor")
    nonzero = step.take("nonzero", False) is True
    step.take("channel_wise")
    step.expect()
    if (mean is None) != (std is None) or nonzero and mean is not None:
        raise step.refused("with a mean and no deviation, or with both and 'nonzero'")
    fixed = {} if mean is None else {"mean": mean, "std": std}
    if fields.get("intensity") == "unit" and not nonzero and mean is None:
        # Standardising what was scaled between its least and largest value undoes that.
        for key in ("intensity", "onto", "normalised"):
            fields.pop(key, None)
    mask = {"mask": "nonzero"} if nonzero else {}
    _then(step, fields, intensity="standardise", **fixed, **mask)


def _onto(step: _Step, onto: list[Any]) -> dict[str, Any]:
    if onto in ([0, 1], [None, None]):
        return {}
    if not all(isinstance(n, int | float) and not isinstance(n, bool) for n in onto):
        raise step.refused(f"onto {shown(onto)}")
    return {"onto": onto}


_KNOWN: Mapping[str, Callable[[_Step, dict[str, Any]], None]] = {
    "Orientation": _orientation,
    "Spacing": _spacing,
    "CropForeground": _crop,
    "ScaleIntensityRange": _range,
    "ScaleIntensityRangePercentiles": _percentiles,
    "ScaleIntensity": _unit,
    "NormalizeIntensity": _standardise,
}
