"""MONAI bundles: ``configs/metadata.json``, ``configs/inference.json`` or ``.yaml``, and weights.

The network and the deterministic transforms that come before it are understood; everything else in
a bundle (its data, handlers, post-processing) has no meaning here and is not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...core.errors import InputError, ModelError
from ...core.json_fields import load_json, shown
from ...core.model_answers import Answers
from .base import Found, Open, Question
from .bundle_transforms import preprocessing_of
from .expressions import Values
from .monai_config import (
    MERGING,
    architecture_of,
    modality_from,
    orientation_from,
    plain,
    spacing_from,
)
from .naming import proposed_id

NAME = "a MONAI bundle (a folder with configs/metadata.json)"
CONFIGS = ("inference.json", "inference.yaml", "inference.yml")
WRAPPERS = ("state_dict", "model", "net", "network")
MAX_BYTES = 2**22


def recognise(path: Path) -> bool:
    """Whether it is a bundle's folder, or its ``configs``."""
    return (_root(path) / "configs" / "metadata.json").is_file()


def _root(path: Path) -> Path:
    return path.parent if path.name == "configs" else path


def read(path: Path, answers: Answers) -> Found | Open:
    """All that the bundle tells, with what a person said.

    Raises:
        ModelError, InputError: see :meth:`.base.Format.read`.
    """
    from .safe_files import load_tensors, state_dict_of, without_wrappers

    root = _root(path)
    metadata = load_json(root / "configs" / "metadata.json", "bundle's metadata", ModelError)
    if not isinstance(metadata, Mapping):
        raise ModelError(f"{root}/configs/metadata.json is no JSON object.")
    name, config = _config(root)
    values = Values(config, name)
    architecture = _architecture(values, metadata, answers)
    inputs, labels = _formats(metadata)
    if inputs.get("num_channels") not in (None, 1):
        raise ModelError(
            f"This bundle takes images of {shown(inputs['num_channels'])} channels; FewShotSeg "
            "works on one."
        )
    fields = preprocessing_of(values, name)
    modality = modality_from(answers.modality, inputs.get("modality"), "Its metadata.json")
    orientation: Any = fields.pop("orientation", None)
    if orientation is None:
        orientation = orientation_from(answers.orientation, "Its preprocessing")
    spacing: Any = fields.pop("spacing", None)
    if spacing is None:
        spacing = spacing_from(answers.spacing, "Its preprocessing resamples nothing, and")
    questions = [q for q in (modality, orientation, spacing) if isinstance(q, Question)]
    questions += [MERGING] if _merges(architecture) else []
    facts = (
        f"Its network is MONAI's {architecture['name'].removeprefix('Monai')} with "
        f"{architecture['out_channels']} rows, as {name} says.",
    )
    if questions or isinstance(modality, Question):
        return Open(tuple(questions), facts)
    weights = _weights(root, answers)
    state = without_wrappers(state_dict_of(load_tensors(weights), weights, *WRAPPERS), weights)
    preprocessing = {"orientation": orientation, "spacing": spacing, **fields}
    sigmoid = _is_sigmoid(config)
    classes, background = _classes(labels, architecture["out_channels"], sigmoid)
    window, overlap = _window(values, architecture)
    entry = {
        "id": proposed_id(root.resolve().name),
        "title": str(metadata.get("name") or f"MONAI bundle {root.resolve().name}")[:500],
        "description": str(metadata.get("description") or "Added from a MONAI bundle.")[:10_000],
        "modality": modality,
        "architecture": architecture,
        "preprocessing": {kind: preprocessing for kind in modality},
        "window": window,
        "overlap": overlap,
        "classes": classes,
        "activation": "sigmoid" if sigmoid else "softmax",
        **({} if background is None else {"background": background}),
        "licence": "not stated",
        "citation": str(metadata.get("copyright") or metadata.get("authors") or "")[:10_000],
        "source_url": "",
    }
    known = ", ".join(classes) or "none has a name in its files"
    return Found(entry, state, (*facts, f"Its classes: {known}."))


def _config(root: Path) -> tuple[str, Mapping[str, Any]]:
    """Name and content of the configuration for inference."""
    for name in CONFIGS:
        path = root / "configs" / name
        if path.is_file():
            break
    else:
        raise ModelError(
            f"{root}/configs has no inference.json or inference.yaml, which says how the network "
            "and its images are made."
        )
    config = load_json(path, "bundle", ModelError) if name.endswith(".json") else _yaml(path)
    if not isinstance(config, Mapping):
        raise ModelError(f"{path} is no list of named values.")
    return name, plain(config)


def _yaml(path: Path) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise ModelError(
            f"{path} is YAML, which needs the package PyYAML: pip install pyyaml. Or save it as "
            "inference.json."
        ) from error
    if path.stat().st_size > MAX_BYTES:
        raise ModelError(f"{path} has more than {MAX_BYTES // 2**20} MB: it is no configuration.")
    try:
        text = path.read_text(encoding="utf-8")
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise ModelError(f"{path} has YAML aliases (*name), which are not followed.")
        return yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise ModelError(f"{path} can't be read as YAML.") from error


def _architecture(values: Values, metadata: Mapping[str, Any], answers: Answers) -> dict[str, Any]:
    key = next((k for k in ("network_def", "network") if k in values.config), None)
    network = values.config.get(key) if key else None
    if not isinstance(network, Mapping) or not isinstance(network.get("_target_"), str):
        raise ModelError(
            f"{values.name} has no 'network_def' with a '_target_': it does not say which network "
            "it is."
        )
    arguments = values.of({k: v for k, v in network.items() if k != "_target_"}, "network_def")
    version = str(metadata.get("monai_version", ""))
    if network["_target_"].endswith("SwinUNETR") and version[:1].isdigit():
        numbers = [int(n) if n.isdigit() else 0 for n in version.split(".")[:2]]
        order = "monai-0.9" if numbers < [1, 5] else "monai-1.5"
        if arguments.get("downsample", "merging") == "merging":
            arguments["downsample"] = order
    given = {**arguments, **answers.network_arguments()}
    return architecture_of(network["_target_"], given, f"The network in {values.name}")


def _merges(architecture: Mapping[str, Any]) -> bool:
    return architecture["name"] == "SwinUNETR" and "downsample" not in architecture


def _formats(metadata: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Of the image, and the classes by row, as the metadata have them."""
    described = metadata.get("network_data_format")
    described = described if isinstance(described, Mapping) else {}
    inputs, outputs = described.get("inputs"), described.get("outputs")
    image = inputs.get("image") if isinstance(inputs, Mapping) else None
    pred = outputs.get("pred") if isinstance(outputs, Mapping) else None
    labels = pred.get("channel_def") if isinstance(pred, Mapping) else None
    return (
        image if isinstance(image, Mapping) else {},
        labels if isinstance(labels, Mapping) else {},
    )


def _is_sigmoid(config: Mapping[str, Any]) -> bool:
    """Whether its own post-processing gives each class a yes or no."""
    post = config.get("postprocessing")
    steps = post.get("transforms") if isinstance(post, Mapping) else None
    return any(
        isinstance(step, Mapping) and step.get("sigmoid") is True
        for step in (steps if isinstance(steps, list) else ())
    )


def _classes(
    labels: Mapping[str, Any], rows: int, sigmoid: bool
) -> tuple[dict[str, int], int | None]:
    from .monai_config import classes_from

    classes: dict[str, int] = {}
    background = None if sigmoid else 0
    for key, name in labels.items():
        if not str(key).isdigit() or int(key) >= rows or not isinstance(name, str):
            continue
        if name.strip().lower() == "background":
            background = int(key) if not sigmoid else None
            continue
        for text in classes_from([name], int(key)):
            if text not in classes:
                classes[text] = int(key)
    return {n: row for n, row in classes.items() if row != background}, background


def _window(values: Values, architecture: Mapping[str, Any]) -> tuple[list[int], float]:
    """Voxels of a window, and the part shared with the next."""
    inferer = values.config.get("inferer")
    inferer = inferer if isinstance(inferer, Mapping) else {}
    size: Any = architecture.get("img_size") or [96, 96, 96]
    if "roi_size" in inferer and "img_size" not in architecture:
        size = values.of(inferer["roi_size"], "inferer#roi_size")
    if isinstance(size, int):
        size = [size] * 3
    overlap = values.of(inferer.get("overlap", 0.25), "inferer#overlap")
    if not isinstance(size, list) or len(size) != 3:
        raise ModelError(f"'roi_size' of the inferer in {values.name} is not three numbers.")
    overlap = overlap if isinstance(overlap, int | float) and 0 <= overlap <= 0.95 else 0.25
    return [int(n) if isinstance(n, int) and n > 0 else 96 for n in size], min(overlap, 0.5)


def _weights(root: Path, answers: Answers) -> Path:
    folder = root / "models"
    if answers.checkpoint is not None:
        path = folder / answers.checkpoint
        if Path(answers.checkpoint).name != answers.checkpoint or not path.is_file():
            raise InputError(f"There is no file {shown(answers.checkpoint)} in {folder}.")
        return path
    if (folder / "model.pt").is_file():
        return folder / "model.pt"
    others = sorted(p.name for p in folder.glob("*.pt")) if folder.is_dir() else []
    if (folder / "model.ts").is_file() and not others:
        raise ModelError(
            f"{folder} has only model.ts, a program (TorchScript), which is not run. Get model.pt."
        )
    if len(others) == 1:
        return folder / others[0]
    found = f"Of {', '.join(others)}, say which with --checkpoint. " if others else ""
    raise ModelError(
        f"There is no {folder / 'model.pt'}. {found}"
        "A bundle's weights are fetched apart from it: large_files.yml names their address."
    )
