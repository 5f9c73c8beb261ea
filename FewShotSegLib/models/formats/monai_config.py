"""What MONAI's files say of a network, as an entry's ``architecture``; nothing in them is run."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

from ...core.architecture_catalog import network_arguments
from ...core.errors import InputError, ModelError
from ...core.json_fields import shown
from ...core.model_entry import AXES
from .base import Question

NETWORKS = {
    "unet": "MonaiUNet",
    "dynunet": "MonaiDynUNet",
    "segresnet": "MonaiSegResNet",
    "segresnetds": "MonaiSegResNetDS",
    "unetr": "MonaiUNETR",
    "swinunetr": "SwinUNETR",
}
"""Architectures by the lower-case name of MONAI's class. A class is never imported by its name."""
PUBLIC = "UNet, DynUNet, SegResNet, SegResNetDS, UNETR and SwinUNETR"
PREFIXES = ("", "monai.networks.nets.")
SWIN_FIXED: dict[str, Any] = {
    "patch_size": 2,
    "depths": [2, 2, 2, 2],
    "num_heads": [3, 6, 12, 24],
    "window_size": 7,
    "qkv_bias": True,
    "mlp_ratio": 4.0,
    "norm_name": "instance",
    "normalize": True,
    "patch_norm": False,
    "spatial_dims": 3,
    "in_channels": 1,
    "use_v2": False,
}
"""Arguments of SwinUNETR that ours has in no other way."""
SWIN_IDLE = ("img_size", "use_checkpoint", "drop_rate", "attn_drop_rate", "dropout_path_rate")
MERGING = Question(
    "arguments",
    "A SwinUNETR merges patches in an order that changed with MONAI 1.5, and its file does not "
    "tell which it was trained with: monai-0.9 (before 1.5), monai-1.5 or mergingv2.",
    '{"downsample": "monai-0.9"}',
)


def architecture_of(target: str, arguments: Mapping[str, Any], where: str) -> dict[str, Any]:
    """An entry's ``architecture`` of a network of MONAI's.

    Args:
        target: the name of its class. arguments: of its constructor, plain values.
        where: what says so, for messages.

    Raises:
        ModelError: the class is none that is known, or an argument can't be.
    """
    name = target
    for prefix in PREFIXES:
        if prefix and target.startswith(prefix):
            name = target.removeprefix(prefix)
    architecture = NETWORKS.get(name.lower())
    if architecture is None:
        raise ModelError(
            f"{where} names the network {shown(target)}. Of MONAI's, {PUBLIC} are known; another "
            "is one file of Python (see CONTRIBUTING.md)."
        )
    given = {key: plain(value) for key, value in arguments.items() if key != "_target_"}
    for key in ("norm", "norm_name"):
        given = {**given, **({key: _norm(given[key])} if key in given else {})}
    for key in ("act", "act_name", "upsample_mode"):
        if isinstance(given.get(key), str):
            given[key] = given[key].lower()
    if architecture == "SwinUNETR":
        given = _swin(given, where)
    if architecture == "MonaiUNETR":
        given.pop("pos_embed", None)
        if isinstance(given.get("img_size"), int):
            given["img_size"] = [given["img_size"]] * 3
    result = {"name": architecture, **given}
    if architecture == "SwinUNETR" and "downsample" not in given:
        return result  # it is asked for
    try:
        network_arguments(result)
    except InputError as error:
        raise ModelError(f"{where} can't be used: {str(error).rstrip('.')}.") from error
    return result


def _swin(given: dict[str, Any], where: str) -> dict[str, Any]:
    for key, value in SWIN_FIXED.items():
        found = given.pop(key, value)
        same = found == value or (isinstance(found, list) and set(found) == {value})
        if not (same or (isinstance(found, str) and found.lower() == value)):
            raise ModelError(
                f"{where} has a SwinUNETR with {key} {shown(found)}; only {shown(value)} can be "
                "used."
            )
    for key in SWIN_IDLE:
        given.pop(key, None)
    given.setdefault("feature_size", 24)
    if given.get("downsample") in ("merging", None):
        given.pop("downsample", None)
    return given


def _norm(value: Any) -> Any:
    """A normalisation by its plain name: MONAI's faster one for NVIDIA is the same."""
    name, rest = (value[0], value[1:]) if isinstance(value, list) and value else (value, [])
    if isinstance(name, str):
        name = name.lower().replace("instance_nvfuser", "instance")
    return [name, *rest] if rest else name


def plain(value: Any) -> Any:
    """A value of a file as plain JSON; tuples are lists, numpy's numbers are numbers.

    Raises:
        ModelError: it is something else.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    raise ModelError(
        f"A value of the type {type(value).__name__} in it can't be understood. Save the network's "
        "state dict alone, and add that with --network and --arguments."
    )


def orientation_from(text: str | None, what: str) -> str | Question:
    """Three letters that a person said, or the question for them.

    Raises:
        InputError: it is no orientation.
    """
    if text is None:
        return Question(
            "orientation",
            f"{what} does not tell in which direction its images' axes grow; with a wrong one, "
            "left is taken for right.",
            "RAS",
        )
    letters = text.strip().upper()
    if sorted(AXES.get(letter, (9, 0))[0] for letter in letters) != [0, 1, 2]:
        raise InputError(f"--orientation is three letters such as RAS, not {shown(text)}.")
    return letters


def spacing_from(text: str | None, what: str) -> list[float] | Question:
    """Voxel sizes that a person said, or the question for them.

    Raises:
        InputError: they are no three lengths.
    """
    if text is None:
        return Question("spacing", f"{what} does not tell the voxel size in mm.", "1.5,1.5,2")
    try:
        values = [float(part) for part in text.replace("x", ",").split(",")]
    except ValueError:
        values = []
    if len(values) != 3 or not all(0.01 <= v < 100 for v in values):
        raise InputError(f"--spacing is three lengths in mm such as 1.5,1.5,2, not {shown(text)}.")
    return values


def modality_from(text: str | None, said: str | None, what: str) -> list[str] | Question:
    """What images it is for, as a person or a file says.

    Args:
        said: by the file: ``CT``, ``MR`` or anything else, which counts as nothing.

    Raises:
        InputError: the person's is none.
    """
    if text is not None:
        kinds = [part.strip().upper() for part in text.split(",")]
        if not kinds or len(set(kinds)) < len(kinds) or not set(kinds) <= {"CT", "MR"}:
            raise InputError(f"--modality is CT, MR or CT,MR, not {shown(text)}.")
        return kinds
    known = {"CT": "CT", "MR": "MR", "MRI": "MR"}.get(str(said or "").strip().upper())
    if known:
        return [known]
    return Question("modality", f"{what} does not tell whether it is for CT or MR.", "CT")


def classes_from(names: Sequence[Any], first: int) -> dict[str, int]:
    """Rows of the head by name, from a list in the order of the rows.

    Args:
        first: the row of the first name. Rows without a usable name of their own are left out.
    """
    from ...core.annotation import class_key

    found: dict[str, int] = {}
    seen = set()
    for row, name in enumerate(names, first):
        text = " ".join(str(name).replace("_", " ").split())[:200]
        key = class_key(text) if text.isprintable() else ()
        if key and key not in seen and text.lower() != "background":
            seen.add(key)
            found[text] = row
    return found
