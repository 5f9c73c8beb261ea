"""MONAI Auto3DSeg's ``model.pt``: its configuration beside the weights of a SegResNetDS.

A. Myronenko et al., Auto3DSeg, 2023. Preprocessing is that of MONAI's template: orientation, crop
to the foreground, resampling, then intensities.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...core.errors import InputError, ModelError
from ...core.json_fields import shown
from ...core.model_answers import Answers
from .base import Found, Open, Question
from .monai_config import (
    MERGING,
    architecture_of,
    classes_from,
    modality_from,
    orientation_from,
    plain,
    spacing_from,
)
from .naming import proposed_id

NAME = "a model.pt of MONAI's Auto3DSeg"
CITATION = "A. Myronenko et al., Automated 3D segmentation of kidneys and tumors in MICCAI KiTS "
CITATION += "2023 (Auto3DSeg), 2023; and the authors of this model"
MARK = b"normalize_mode"
KEEP, MARGIN = 0.25, 10
"""Of MONAI's template: a spacing this near stays, and voxels around the foreground."""
MAX_LABELS = 2**20


def recognise(path: Path) -> bool:
    """Whether it is such a file, or a folder with one."""
    file = _file(path)
    if file is None:
        return False
    try:
        with zipfile.ZipFile(file) as archive:
            for item in archive.infolist():
                if item.filename.endswith("data.pkl") and item.file_size < 2**24:
                    return MARK in archive.read(item)
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError):
        pass
    return False


def _file(path: Path) -> Path | None:
    if path.is_dir():
        path = path / "model.pt"
    return path if path.is_file() and path.suffix in (".pt", ".pth") else None


def read(path: Path, answers: Answers) -> Found | Open:
    """All that the file tells, with what a person said.

    Raises:
        ModelError, InputError: see :meth:`.base.Format.read`.
    """
    from .safe_files import load_tensors, state_dict_of, without_wrappers

    file = _file(path)
    assert file is not None  # it was recognised
    data = load_tensors(file)
    if not isinstance(data, Mapping) or not isinstance(data.get("config"), Mapping):
        raise ModelError(f"{file} has no 'config', so that it is no model.pt of Auto3DSeg.")
    if not isinstance(data.get("state_dict"), Mapping):
        raise ModelError(
            f"{file} has a configuration and no 'state_dict': its weights are missing. Take the "
            "model.pt that the training saved last."
        )
    config = plain(data["config"])
    state = without_wrappers(state_dict_of(data["state_dict"], file), file)
    _require_one_image(config, file)
    architecture = _architecture(config, answers, file)
    preprocessing, questions = _preprocessing(config, answers, file)
    modality = modality_from(answers.modality, config.get("modality"), "Its configuration")
    questions += [modality] if isinstance(modality, Question) else []
    questions += [MERGING] if "downsample" not in architecture and _is_swin(architecture) else []
    facts = _facts(config, architecture)
    if questions or isinstance(modality, Question):
        return Open(tuple(questions), facts)
    sigmoid = config.get("sigmoid") is True
    folder = file.parent.name if file.stem == "model" else file.stem
    classes = _classes(config, architecture, sigmoid, file)
    entry = {
        "id": proposed_id(folder, "auto3dseg"),
        "title": f"Auto3DSeg model {folder}"[:500],
        "description": "Added from a model.pt of MONAI's Auto3DSeg.",
        "modality": modality,
        "architecture": architecture,
        "preprocessing": {kind: preprocessing for kind in modality},
        "window": _window(config, file),
        "overlap": 0.25,
        "classes": classes,
        "activation": "sigmoid" if sigmoid else "softmax",
        **({} if sigmoid else {"background": 0}),
        "licence": "not stated",
        "citation": CITATION,
        "source_url": "",
    }
    known = ", ".join(classes) or "none has a name in its files"
    return Found(entry, state, (*facts, f"Its classes: {known}."))


def _require_one_image(config: Mapping[str, Any], file: Path) -> None:
    channels = config.get("input_channels")
    if config.get("extra_modalities") or channels not in (None, 1):
        raise ModelError(
            f"{file} takes several images together; FewShotSeg works on one. Train a model on "
            "one of them."
        )
    for kind, transforms in (config.get("custom_transforms") or {}).items():
        if transforms:
            raise ModelError(
                f"{file} has transforms of its own ({shown(kind)} of 'custom_transforms'), which "
                "can't be done here; its results would be others."
            )


def _architecture(config: Mapping[str, Any], answers: Answers, file: Path) -> dict[str, Any]:
    network = config.get("network")
    if not isinstance(network, Mapping) or not isinstance(network.get("_target_"), str):
        raise ModelError(f"The configuration in {file} names no network ('network', '_target_').")
    values = {"input_channels": 1, **config}
    arguments = {
        key: values.get(value[1:], value)
        if isinstance(value, str) and value.startswith("@")
        else value
        for key, value in network.items()
        if key != "_target_"
    }
    for key, value in arguments.items():
        if isinstance(value, str) and value.startswith(("$", "@")):
            raise ModelError(
                f"{shown(key)} of the network in {file} is the expression {shown(value)}, which is "
                "not run. Write its value there."
            )
    return architecture_of(
        network["_target_"], {**arguments, **answers.network_arguments()}, f"The network in {file}"
    )


def _preprocessing(
    config: Mapping[str, Any], answers: Answers, file: Path
) -> tuple[dict[str, Any], list[Question]]:
    """As an entry has it, and what is not known of it."""
    orientation: str | Question = "RAS"
    if config.get("orientation_ras") is not True:
        orientation = orientation_from(answers.orientation, "Its configuration")
    spacing: Any = config.get("resample_resolution")
    if config.get("resample", spacing is not None) is not True or spacing is None:
        spacing = spacing_from(
            answers.spacing, "It was trained at each image's own voxel size, and its configuration"
        )
    elif len(spacing) != 3:
        raise ModelError(f"'resample_resolution' in {file} is not three lengths in mm.")
    questions = [q for q in (orientation, spacing) if isinstance(q, Question)]
    fields = {"orientation": orientation, "spacing": spacing, **_intensity(config, file)}
    fields |= {"resampling": "monai", "keep": KEEP, "normalised": "resampled"}
    if config.get("crop_foreground") is True:
        fields |= {"crop": "positive", "margin": MARGIN}
    return fields, questions


def _intensity(config: Mapping[str, Any], file: Path) -> dict[str, Any]:
    mode = config.get("normalize_mode")
    if mode == "none":
        return {"intensity": "identity"}
    if mode in ("range", "ct"):
        bounds = config.get("intensity_bounds") or [-250, 250]  # as the template has it
        if not isinstance(bounds, list) or len(bounds) != 2:
            raise ModelError(f"'intensity_bounds' in {file} is not two values.")
        low, high = bounds
        window = {"intensity": "window", "low": low, "high": high, "onto": [-1, 1], "cut": False}
        return {**window, "squash": "sigmoid"}
    if mode in ("meanstd", "mri"):
        return {"intensity": "standardise", "mask": "nonzero"}
    if mode == "meanstdtanh":
        return {"intensity": "standardise", "mask": "nonzero", "squash": "tanh"}
    if mode == "pet":
        return {"intensity": "above-least", "squash": "sigmoid"}
    raise ModelError(
        f"{file} normalises intensities by {shown(mode)}. Of Auto3DSeg's modes, range, ct, "
        "meanstd, mri, meanstdtanh, pet and none are known."
    )


def _window(config: Mapping[str, Any], file: Path) -> list[int]:
    roi = config.get("roi_size")
    if not isinstance(roi, list) or len(roi) != 3 or not all(isinstance(n, int) for n in roi):
        raise ModelError(f"'roi_size' in {file} is not three numbers of voxels: it is no 3D model.")
    return roi


def _classes(
    config: Mapping[str, Any], architecture: Mapping[str, Any], sigmoid: bool, file: Path
) -> dict[str, int]:
    """By the table that SlicerMONAIAuto3DSeg puts beside its models, else by the configuration."""
    rows = architecture["out_channels"]
    table = file.with_name("labels.csv")
    if table.is_file() and not sigmoid:
        return {name: row for name, row in _table(table).items() if 0 < row < rows}
    names = config.get("class_names")
    if not isinstance(names, list):
        return {}
    return {n: r for n, r in classes_from(names, max(0, rows - len(names))).items() if r < rows}


def _table(path: Path) -> dict[str, int]:
    try:
        if path.stat().st_size > MAX_LABELS:
            raise InputError("it is too large")
        text = path.read_text(encoding="utf-8-sig")
        found = {
            row["Name"].strip(): int(row["LabelValue"]) for row in csv.DictReader(io.StringIO(text))
        }
    except (
        OSError,
        ValueError,
        KeyError,
        AttributeError,
        TypeError,
        csv.Error,
        InputError,
    ) as error:
        raise ModelError(
            f"{path} can't be read as a table with the columns LabelValue and Name. Correct it, or "
            "move it away."
        ) from error
    by_row = {row: name for name, row in found.items()}
    return {name: row for row, text in by_row.items() for name in classes_from([text], row)}


def _is_swin(architecture: Mapping[str, Any]) -> bool:
    return architecture["name"] == "SwinUNETR"


def _facts(config: Mapping[str, Any], architecture: Mapping[str, Any]) -> tuple[str, ...]:
    mode = config.get("normalize_mode")
    return (
        f"Its network is MONAI's {architecture['name'].removeprefix('Monai')} with "
        f"{architecture['out_channels']} rows; intensities by {mode!r}.",
    )
