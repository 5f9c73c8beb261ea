"""What nnU-Net v2's ``plans.json`` and ``dataset.json`` say, as fields of a registry entry.

Written after nnU-Net 2.8's own readers (``PlansManager``, ``ConfigurationManager``,
``LabelManager``, ``DefaultPreprocessor``; Apache-2.0); plans of before 2.5, which have
``UNet_class_name``, are read as it reads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...core.annotation import class_key
from ...core.errors import ModelError
from ...core.geometry import three
from ...core.json_fields import is_number, shown

NETWORKS = {"PlainConvUNet": "plain", "ResidualEncoderUNet": "residual"}
REORIENTING = {"NibabelIOWithReorient": "RAS", "SimpleITKIOWithReorient": "RAS"}
"""Readers that turn every image to one orientation, and to which."""
CANONICAL = "TotalSegmentator"
"""Part of the names of data sets whose images were all turned to RAS before training: that program
turns every image before its networks see it, whatever reader their plans name."""
RESAMPLING = "resample_data_or_seg_to_shape"
_MODALITIES = {
    "CT": ("ct",),
    "MR": ("mr", "mri", "t1", "t1w", "t1c", "t1ce", "t1gd", "t2", "t2w", "flair", "dwi", "adc"),
}
_NORMS = {"InstanceNorm3d": "instance", "BatchNorm3d": "batch"}
_IGNORED = ("deep_supervision", "dropout_op", "dropout_op_kwargs", "n_stages", "conv_op")
"""Arguments of a network that nothing hangs on once it is trained, or that are checked apart."""
_KNOWN = (
    *("features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage", "n_blocks_per_stage"),
    *("n_conv_per_stage_decoder", "conv_bias", "norm_op", "norm_op_kwargs", "nonlin"),
    *("nonlin_kwargs", *_IGNORED),
)
_DEFAULTS = {"nonlin_first": False, "bottleneck_channels": None, "stem_channels": None}
"""Arguments that only may have their default."""


@dataclass(frozen=True)
class Labels:
    """What the rows of the head are.

    Attributes:
        classes: names with their rows. rows: of the head. background: its row, or None with
            regions, which are a yes or no each. left_out: names that can't be distinguished from
            another, or have no word.
    """

    classes: dict[str, int]
    rows: int
    background: int | None
    left_out: tuple[str, ...] = ()


def configuration_of(plans: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A configuration with what it inherits.

    Raises:
        ModelError: there is none of that name, or it inherits from itself.
    """
    known = _mapping(plans.get("configurations"), "'configurations' of plans.json")
    result: dict[str, Any] = {}
    visited: list[str] = []
    while True:
        if not isinstance(name, str) or name not in known:
            there = ", ".join(map(shown, known))
            raise ModelError(
                f"plans.json has no configuration {shown(name)}, only {there}. Give the folder "
                "whose plans the weights were trained with."
            )
        if name in visited:
            raise ModelError(f"The configuration {shown(name)} in plans.json inherits from itself.")
        visited.append(name)
        result = {**_mapping(known[name], f"the configuration {shown(name)}"), **result}
        if "inherits_from" not in known[name]:
            return result
        name = known[name]["inherits_from"]


def require_usable(configuration: Mapping[str, Any], name: str) -> None:
    """Check that a configuration is one network that sees a whole volume in 3D.

    Raises:
        ModelError: it is 2D, or the second of a cascade, or its preprocessing is another program's.
    """
    patch = configuration.get("patch_size")
    if isinstance(patch, list) and len(patch) == 2:
        raise ModelError(
            f"The configuration {shown(name)} is 2D: it sees single slices. Give the folder of a "
            "3D one, such as 3d_fullres."
        )
    if configuration.get("previous_stage"):
        raise ModelError(
            f"The configuration {shown(name)} is the second of a cascade, which needs the result "
            f"of {shown(configuration['previous_stage'])}. Give the folder of that one, or of "
            "3d_fullres."
        )
    preprocessor = configuration.get("preprocessor_name", "DefaultPreprocessor")
    if preprocessor != "DefaultPreprocessor":
        raise ModelError(
            f"The configuration {shown(name)} prepares images with {shown(preprocessor)}, which is "
            "code of its own. Only nnU-Net's DefaultPreprocessor is known."
        )


def architecture_of(configuration: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """The registry entry's ``architecture``.

    Raises:
        ModelError: it is a network or an argument that is not known.
    """
    if "architecture" in configuration:
        about = _mapping(configuration["architecture"], "'architecture' in plans.json")
        path = str(about.get("network_class_name"))
        arguments = _mapping(about.get("arch_kwargs"), "'arch_kwargs' in plans.json")
    else:
        path, arguments = str(configuration.get("UNet_class_name")), _old_arguments(configuration)
    name = path.rsplit(".", 1)[-1]
    if name not in NETWORKS:
        raise ModelError(
            f"Its network is {shown(path)}; of nnU-Net's, {' and '.join(NETWORKS)} are known. "
            "Train one of these, or add the network as CONTRIBUTING.md describes."
        )
    return _network(name, arguments, rows)


def _network(name: str, given: Mapping[str, Any], rows: int) -> dict[str, Any]:
    encoder = NETWORKS[name]
    for key, value in given.items():
        default = key not in _DEFAULTS or value == _DEFAULTS[key]
        if (key not in _KNOWN and key not in _DEFAULTS) or not default:
            raise ModelError(f"Its network has {shown(key)} = {shown(value)}, which is not known.")
    conv = str(given.get("conv_op", "Conv3d")).rsplit(".", 1)[-1]
    norm = str(given.get("norm_op")).rsplit(".", 1)[-1]
    if conv != "Conv3d" or norm not in _NORMS:
        raise ModelError(
            f"Its network is built of {shown(conv)} and {shown(norm)}; Conv3d with "
            f"{' or '.join(_NORMS)} is known."
        )
    norm_kwargs = given.get("norm_op_kwargs") or {}
    if norm_kwargs not in ({"eps": 1e-5, "affine": True}, {"affine": True}):
        raise ModelError(f"Its normalisation has {shown(norm_kwargs)}, which is not known.")
    channels = given.get("features_per_stage")
    depth = len(channels) if isinstance(channels, list) else int(given.get("n_stages", 0) or 0)
    counts = given.get("n_conv_per_stage" if encoder == "plain" else "n_blocks_per_stage")
    levels = zip(
        _each(channels, depth, "features_per_stage"),
        _each(counts, depth, "convolutions of each stage"),
        _each(given.get("kernel_sizes"), depth, "kernel_sizes"),
        _each(given.get("strides"), depth, "strides"),
        strict=True,
    )
    return {
        "name": "NNUNet",
        "encoder": encoder,
        "levels": [
            {
                "channels": width,
                "convolutions": count,
                "kernel": _triple(kernel),
                "stride": _triple(stride),
            }
            for width, count, kernel, stride in levels
        ],
        "decoder": _each(given.get("n_conv_per_stage_decoder"), depth - 1, "decoder"),
        "out_channels": rows,
        "norm": _NORMS[norm],
        "bias": bool(given.get("conv_bias", False)),
        "slope": _slope(given),
    }


def _old_arguments(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Of plans of before nnU-Net 2.5, as it reads them."""
    try:
        counts = list(configuration["n_conv_per_stage_encoder"])
        base, most = configuration["UNet_base_num_features"], configuration["unet_max_num_features"]
        plain = configuration["UNet_class_name"] == "PlainConvUNet"
        return {
            "n_stages": len(counts),
            "features_per_stage": [min(base * 2**level, most) for level in range(len(counts))],
            "kernel_sizes": configuration["conv_kernel_sizes"],
            "strides": configuration["pool_op_kernel_sizes"],
            "n_conv_per_stage" if plain else "n_blocks_per_stage": counts,
            "n_conv_per_stage_decoder": configuration["n_conv_per_stage_decoder"],
            "conv_bias": True,
            "norm_op": "InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "nonlin": "LeakyReLU",
        }
    except (KeyError, TypeError) as error:
        raise ModelError(
            f"plans.json says nothing of the network that could be read ({shown(str(error))[1:-1]} "
            "is missing). Give the plans.json that nnU-Net wrote beside the weights."
        ) from error


def _slope(given: Mapping[str, Any]) -> float:
    kind = str(given.get("nonlin")).rsplit(".", 1)[-1]
    more = {k: v for k, v in (given.get("nonlin_kwargs") or {}).items() if k != "inplace"}
    slope = more.pop("negative_slope", 0.01) if kind == "LeakyReLU" else 0.0
    if kind not in ("LeakyReLU", "ReLU") or more or not is_number(slope):
        raise ModelError(f"Its non-linearity is {shown(kind)} with {shown(more)}, not known.")
    return float(slope)


def _each(value: Any, count: int, what: str) -> list[Any]:
    """A value for each level, which may be one for all."""
    values = [value] * count if type(value) is int else value
    if not isinstance(values, list) or len(values) != count or not values:
        raise ModelError(f"plans.json has no list of {count} for {what}, but {shown(value)}.")
    return values


def _triple(value: Any) -> list[Any]:
    return [value] * 3 if type(value) is int else value


def labels_of(dataset: Mapping[str, Any]) -> Labels:
    """The rows of the head, from ``dataset.json``.

    Raises:
        ModelError: they are no labels of nnU-Net v2.
    """
    given = _mapping(dataset.get("labels"), "'labels' in dataset.json")
    if given.get("background") not in (0, "0"):
        raise ModelError(
            "dataset.json has no label 'background' of value 0. It is not of nnU-Net v2, or was "
            "changed: give the one that nnU-Net wrote beside the weights."
        )
    values = {name: _values(name, value) for name, value in given.items()}
    foreground = {n: v for n, v in values.items() if n != "ignore" and set(v) != {0}}
    if any(len(value) > 1 for value in values.values()):
        order = dataset.get("regions_class_order")
        if not isinstance(order, list) or len(order) != len(foreground):
            raise ModelError(
                "dataset.json has regions, and no 'regions_class_order' with one for each of them."
            )
        return _labels({name: row for row, name in enumerate(foreground)}, len(foreground), None)
    rows = sorted({value[0] for name, value in values.items() if name != "ignore"})
    if rows != list(range(len(rows))):
        raise ModelError(f"The labels in dataset.json are not 0, 1, 2 and so on: {shown(rows)}.")
    if "ignore" in values and values["ignore"] != (len(rows),):
        raise ModelError("The label 'ignore' in dataset.json is not the one after the last.")
    return _labels({name: value[0] for name, value in foreground.items()}, len(rows), 0)


def _labels(rows_by_name: Mapping[str, int], rows: int, background: int | None) -> Labels:
    classes: dict[str, int] = {}
    known, left_out = set(), []
    for name, row in rows_by_name.items():
        key = class_key(name)
        if not key or key in known or len(name) > 200:
            left_out.append(name)
        else:
            classes[name] = row
            known.add(key)
    return Labels(classes, rows, background, tuple(left_out))


def _values(name: str, value: Any) -> tuple[int, ...]:
    """The label values of a class or region."""
    values = value if isinstance(value, list) else [value]
    try:
        numbers = tuple(int(v) for v in values if not isinstance(v, (bool, float, list, dict)))
    except (TypeError, ValueError):
        numbers = ()
    if not numbers or len(numbers) != len(values) or min(numbers) < 0 or max(numbers) > 4095:
        raise ModelError(
            f"The label {shown(name)} in dataset.json has no value but {shown(value)}."
        )
    return numbers


def orientation_known(plans: Mapping[str, Any]) -> str | None:
    """Where the axes i, j, k of the training's images grow; None where nothing says it."""
    if CANONICAL.casefold() in str(plans.get("dataset_name")).casefold():
        return "RAS"
    return REORIENTING.get(str(plans.get("image_reader_writer")))


def channel_of(dataset: Mapping[str, Any]) -> str:
    """What the only input channel is.

    Raises:
        ModelError: there are several.
    """
    names = dataset.get("channel_names", dataset.get("modality"))
    names = _mapping(names, "'channel_names' in dataset.json")
    if len(names) != 1:
        listed = ", ".join(shown(str(name)) for name in names.values())
        raise ModelError(
            f"It takes {len(names)} images of each patient ({listed}), and FewShotSeg gives a "
            "network one. Give a model that was trained on one alone."
        )
    return str(next(iter(names.values())))


def modality_of_channel(channel: str) -> str | None:
    """CT or MR by a channel's name; None where it tells neither."""
    words = {word for word in channel.casefold().replace("-", " ").replace("_", " ").split()}
    found = [kind for kind, names in _MODALITIES.items() if words & set(names)]
    return found[0] if len(found) == 1 else None


def preprocessing_of(
    plans: Mapping[str, Any], configuration: Mapping[str, Any], orientation: str
) -> dict[str, Any]:
    """The registry entry's ``preprocessing`` of one modality.

    Args:
        orientation: where the axes i, j, k of images as its reader gives them grow.

    Raises:
        ModelError: a part of it is missing, or not known.
    """
    forward = plans.get("transpose_forward", [0, 1, 2])
    if not isinstance(forward, list) or sorted(map(str, forward)) != ["0", "1", "2"]:
        raise ModelError(
            f"'transpose_forward' in plans.json is no order of axes: {shown(forward)}."
        )
    spacing, patch = configuration.get("spacing"), configuration.get("patch_size")
    for name, value in (("spacing", spacing), ("patch_size", patch)):
        if not isinstance(value, list) or len(value) != 3 or not all(map(is_number, value)):
            raise ModelError(f"'{name}' in plans.json is not three numbers: {shown(value)}.")
    backwards = orientation[::-1]  # nnU-Net's arrays have the axes k, j, i
    return {
        "orientation": "".join(backwards[axis] for axis in forward),
        "spacing": spacing,
        **_intensity(plans, configuration),
        "crop": "nonzero",
        **({"resampling": "nnunet"} if resamples_as_usual(configuration) else {}),
        "least": patch,
    }


def resamples_as_usual(configuration: Mapping[str, Any]) -> bool:
    """Whether images are resampled as nnU-Net does by default."""
    more = configuration.get("resampling_fn_data_kwargs") or {}
    usual = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    name = configuration.get("resampling_fn_data", RESAMPLING)
    return name == RESAMPLING and all(more.get(key, value) == value for key, value in usual.items())


def _intensity(plans: Mapping[str, Any], configuration: Mapping[str, Any]) -> dict[str, Any]:
    scheme = _only(configuration.get("normalization_schemes"), "normalization_schemes")
    if scheme == "CTNormalization":
        about = plans.get(
            "foreground_intensity_properties_per_channel",
            plans.get("foreground_intensity_properties_by_modality"),
        )
        about = _mapping(about, "the intensities of the foreground in plans.json")
        about = _mapping(about.get("0"), "channel 0 of the intensities in plans.json")
        names = ("percentile_00_5", "percentile_99_5", "mean", "std")
        low, high, mean, std = (about.get(name) for name in names)
        if not all(map(is_number, (low, high, mean, std))):
            raise ModelError(f"The intensities in plans.json lack one of {', '.join(names)}.")
        return {"intensity": "standardise", "low": low, "high": high, "mean": mean, "std": std}
    if scheme == "ZScoreNormalization":
        masked = _only(configuration.get("use_mask_for_norm"), "use_mask_for_norm")
        return {"intensity": "standardise", **({"mask": "filled"} if masked else {})}
    if scheme == "NoNormalization":
        return {"intensity": "identity"}
    if scheme == "RescaleTo01Normalization":
        return {"intensity": "unit"}
    if scheme == "RGBTo01Normalization":
        return {"intensity": "window", "low": 0, "high": 255}
    raise ModelError(
        f"Its images are normalised by {shown(scheme)}, which is not known. Known are CT, ZScore, "
        "No, RescaleTo01 and RGBTo01Normalization."
    )


def _only(values: Any, name: str) -> Any:
    """The value for the only channel; a mapping by number in old plans."""
    if isinstance(values, Mapping):
        values = list(values.values())
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != 1:
        raise ModelError(f"'{name}' in plans.json is not of one channel: {shown(values)}.")
    return values[0]


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        raise ModelError(f"There is no {what.removeprefix('the ')} that could be read.")
    return value


def words_of(preprocessing: Mapping[str, Any]) -> str:
    """How intensities are prepared, for a person."""
    kind = preprocessing["intensity"]
    if kind == "standardise" and "mean" in preprocessing:
        low, high = preprocessing["low"], preprocessing["high"]
        mean, std = preprocessing["mean"], preprocessing["std"]
        return f"cut off at {low:g} and {high:g}, less {mean:g}, divided by {std:g}"
    if kind == "standardise":
        where = " of what is not 0" if preprocessing.get("mask") else ""
        return f"each volume's mean{where} to 0, and its standard deviation to 1"
    return {
        "identity": "as they are",
        "unit": "each volume's least to 0, its largest to 1",
        "window": "0 to 255 becomes 0 to 1",
    }[kind]


def spacing_text(lengths: Sequence[float]) -> str:
    """Lengths along three axes, such as ``1.5 x 1.5 x 3``."""
    return " x ".join(f"{length:.4g}" for length in three(lengths))
