"""The state dict of a network of MONAI's, whose constructor's arguments a person says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...core.errors import InputError, ModelError
from ...core.json_fields import shown
from ...core.model_answers import Answers
from . import auto3dseg
from .base import Found, Open, Question
from .monai_config import (
    MERGING,
    PUBLIC,
    architecture_of,
    modality_from,
    orientation_from,
    spacing_from,
)
from .naming import proposed_id

NAME = "a file of a network's weights (.pt, .pth, .ckpt or .safetensors)"
SUFFIXES = (".pt", ".pth", ".ckpt", ".safetensors")
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network")
WINDOW = [96, 96, 96]


def recognise(path: Path) -> bool:
    """Whether it may be such a file."""
    return path.is_file() and path.suffix.lower() in SUFFIXES


def read(path: Path, answers: Answers) -> Found | Open:
    """All that the file tells, with what a person said.

    Raises:
        ModelError, InputError: see :meth:`.base.Format.read`.
    """
    from .safe_files import state_dict_of, without_wrappers

    data = _load(path)
    if isinstance(data, Mapping) and isinstance(data.get("config"), Mapping):
        return auto3dseg.read(path, answers)  # in torch's old format, which can't be looked into
    state = without_wrappers(state_dict_of(data, path, *WRAPPERS), path)
    given = answers.network_arguments()
    questions: list[Question] = []
    architecture: dict[str, Any] = {}
    if answers.network is None:
        text = f"The file does not tell which network it is of: {PUBLIC} are known."
        questions.append(Question("network", text, "segresnet"))
    elif not given:
        text = "The file does not tell the arguments of its network's constructor."
        example = '{"out_channels": 3, "init_filters": 16}'
        questions.append(Question("arguments", text, example))
    else:
        architecture = architecture_of(answers.network, given, "--network with --arguments")
        if architecture["name"] == "SwinUNETR" and "downsample" not in architecture:
            questions.append(MERGING)
    modality = modality_from(answers.modality, None, "The file")
    orientation = orientation_from(answers.orientation, "The file")
    spacing = spacing_from(answers.spacing, "The file")
    intensity = _intensity(answers.intensity)
    questions += [q for q in (modality, orientation, spacing, intensity) if isinstance(q, Question)]
    facts = (f"It holds {len(state)} tensors.",)
    if questions or isinstance(modality, Question) or isinstance(intensity, Question):
        return Open(tuple(questions), facts)
    rows = architecture["out_channels"]
    classes = _classes(answers.classes, rows)
    preprocessing = {"orientation": orientation, "spacing": spacing, **intensity}
    background = {"background": 0} if rows > 1 and 0 not in classes.values() else {}
    entry = {
        "id": proposed_id(path.stem),
        "title": f"{answers.network} of {path.stem}"[:500],
        "description": "Added from a network's weights; all else as the person said who added it.",
        "modality": modality,
        "architecture": architecture,
        "preprocessing": {kind: preprocessing for kind in modality},
        "window": architecture.get("img_size", WINDOW),
        "overlap": 0.25,
        "classes": classes,
        "activation": "softmax" if background else "sigmoid",
        **background,
        "licence": "not stated",
        "citation": "",
        "source_url": "",
    }
    return Found(entry, state, facts)


def _load(path: Path) -> Any:
    from .safe_files import load_tensors

    if path.suffix.lower() != ".safetensors":
        return load_tensors(path)
    import safetensors
    import safetensors.torch

    try:
        return safetensors.torch.load_file(path)
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise ModelError(f"{path} can't be read: it is damaged, or no safetensors file.") from error


def _intensity(text: str | None) -> dict[str, Any] | Question:
    """``window LOW HIGH``, ``percentiles LOW HIGH``, ``standardise [nonzero]``, ``unit`` or
    ``identity``.

    Raises:
        InputError: it is none of these.
    """
    if text is None:
        words = "The file does not tell how intensities are prepared: window LOW HIGH, percentiles "
        words += "LOW HIGH, standardise, standardise nonzero, unit or identity."
        return Question("intensity", words, "window -175 250")
    kind, *values = text.split()
    try:
        if kind in ("window", "percentiles") and len(values) == 2:
            low, high = (float(value) for value in values)
            return {"intensity": kind, "low": low, "high": high}
    except ValueError:
        pass
    if kind == "standardise" and values in ([], ["nonzero"]):
        return {"intensity": kind, **({"mask": "nonzero"} if values else {})}
    if kind in ("unit", "identity") and not values:
        return {"intensity": kind}
    raise InputError(
        f'--intensity is such as "window -175 250", "percentiles 0.5 99.5", standardise, '
        f'"standardise nonzero", unit or identity, not {shown(text)}.'
    )


def _classes(text: str | None, rows: int) -> dict[str, int]:
    """``NAME=ROW,...``.

    Raises:
        InputError: it is something else.
    """
    classes: dict[str, int] = {}
    for part in (text or "").split(",") if text else ():
        name, _, row = part.rpartition("=")
        if not name.strip() or not row.strip().isdigit() or int(row) >= rows:
            raise InputError(
                f"--classes is NAME=ROW,... with rows from 0 to {rows - 1}, not {shown(text)}."
            )
        classes[name.strip()] = int(row)
    return classes
