"""nnU-Net v2's result folders: ``plans.json``, ``dataset.json`` and ``fold_N/checkpoint_*.pth``.

Isensee et al., Nature Methods 18, 2021. nnU-Net itself is not needed, and nothing of the folder is
run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.errors import InputError, ModelError
from ...core.json_fields import load_json, shown
from ...core.modality import MODALITIES
from ...core.model_answers import Answers, flag
from ...core.model_entry import AXES
from . import nnunet_plans as reading
from .base import Found, Open, Question
from .naming import proposed_id
from .nnunet_trainers import changes_network, has_batch_norm, keeps_network

NAME = "an nnU-Net v2 result folder"
CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth", "checkpoint_latest.pth")
"""The names of nnU-Net's files of weights, the one that it uses itself first."""
OVERLAP = 0.25
"""Of the windows that features are made with. nnU-Net's own prediction takes 0.5, which runs the
network three times as often; ``inference.published`` does so too."""
CITATION = "Isensee et al., nnU-Net, Nature Methods 18, 2021; and the authors of this model"
_FOLD = re.compile(r"fold_(\d+|all)")


@dataclass(frozen=True)
class _Place:
    """Where a model's files are.

    Attributes:
        folder: with ``plans.json``. fold, checkpoint: chosen by the path that was given.
    """

    folder: Path
    fold: str | None = None
    checkpoint: str | None = None


def recognise(path: Path) -> bool:
    """Whether a path is a trainer's folder, a data set's with some, a fold's, or its weights."""
    return bool(_places(path)) or _is_first_version(path)


def read(path: Path, answers: Answers) -> Found | Open:
    """All that the folder tells, with what a person said.

    Raises:
        ModelError, InputError: see :meth:`.base.Format.read`.
    """
    from .safe_files import load_tensors

    if _is_first_version(path):
        raise ModelError(
            f"{path} is of nnU-Net's first version, which saved Python objects. Train the data set "
            "with nnU-Net v2, or export it there, and give that folder."
        )
    place = _choose_place(_places(path), answers)
    if isinstance(place, Open):
        return place
    plans, dataset = _json_of(place.folder, "plans.json"), _json_of(place.folder, "dataset.json")
    weights, remark = _choose_weights(place, answers)
    checkpoint = load_tensors(weights)
    if not isinstance(checkpoint, Mapping) or "network_weights" not in checkpoint:
        raise ModelError(
            f"{weights} has no 'network_weights', so that it is no checkpoint of nnU-Net v2. Give "
            "the folder as nnU-Net's training left it."
        )
    return _understand(_Files(place, plans, dataset, checkpoint, weights, remark), answers)


@dataclass(frozen=True)
class _Files:
    """What was read.

    Attributes:
        remark: on which of several weights were chosen; may be empty.
    """

    place: _Place
    plans: Mapping[str, Any]
    dataset: Mapping[str, Any]
    checkpoint: Mapping[str, Any]
    weights: Path
    remark: str


def _understand(files: _Files, answers: Answers) -> Found | Open:
    from ..backbones.nnunet import own_tensors
    from .safe_files import state_dict_of, without_wrappers

    plans, dataset = files.plans, files.dataset
    name = _configuration_name(files, answers)
    configuration = reading.configuration_of(plans, name)
    reading.require_usable(configuration, name)
    labels, channel = reading.labels_of(dataset), reading.channel_of(dataset)
    trainer = str(files.checkpoint.get("trainer_name", "nnUNetTrainer"))
    if changes_network(trainer):
        raise ModelError(
            f"It was trained by {shown(trainer)}, which trains another network than the plans "
            f"describe. Of nnU-Net's, {' and '.join(reading.NETWORKS)} are known."
        )
    architecture = reading.architecture_of(configuration, labels.rows)
    if has_batch_norm(trainer):
        architecture["norm"] = "batch"
    data_set = str(plans.get("dataset_name", files.place.folder.parent.name))
    facts = _facts(name, data_set, architecture, labels, files)
    modality = _modality(answers, channel)
    orientation = _orientation(answers, plans)
    questions = [q for q in (modality, orientation) if isinstance(q, Question)]
    if not keeps_network(trainer) and answers.trainer != trainer:
        questions.append(
            Question(
                "trainer",
                f"It was trained by {shown(trainer)}, which is not nnU-Net's own. If that changes "
                "the loss, the augmentation or the schedule and leaves the network as it is, "
                "it can be used.",
                trainer,
            )
        )
    if isinstance(modality, Question) or isinstance(orientation, Question) or questions:
        return Open(tuple(questions), facts)
    preprocessing = reading.preprocessing_of(plans, configuration, orientation)
    state = without_wrappers(
        state_dict_of(files.checkpoint["network_weights"], files.weights), files.weights
    )
    entry = {
        "id": proposed_id(re.sub(r"^Dataset\d+_", "", data_set), name),
        "title": f"nnU-Net {name} of {data_set}"[:500],
        "description": f"Added from nnU-Net v2's files; trained by {trainer}.",
        "modality": modality,
        "architecture": architecture,
        "preprocessing": {kind: preprocessing for kind in modality},
        "window": configuration["patch_size"],
        "overlap": OVERLAP,
        "classes": labels.classes,
        "activation": "sigmoid" if labels.background is None else "softmax",
        **({} if labels.background is None else {"background": labels.background}),
        "licence": _text(dataset, "licence", "license") or "not stated",
        "citation": _text(dataset, "reference") or CITATION,
        "source_url": _text(dataset, "reference", "url") or "",
    }
    more: tuple[str, ...] = (
        f"Images: {' and '.join(modality)}, resampled to voxels of "
        f"{reading.spacing_text(preprocessing['spacing'])} mm along axes that grow to "
        f"{preprocessing['orientation']}, and seen in windows of "
        f"{reading.spacing_text(configuration['patch_size'])} voxels; what is 0 around the body is "
        "cropped.",
        f"Intensities: {reading.words_of(preprocessing)}.",
    )
    if "resampling" not in preprocessing:
        more += (
            "It resamples with "
            f"{shown(configuration.get('resampling_fn_data'))} and settings of its own, in place "
            "of which FewShotSeg takes a linear kernel: features differ a little from nnU-Net's.",
        )
    return Found(entry, own_tensors(state, len(architecture["levels"]) - 2), (*facts, *more))


def _facts(
    name: str, data_set: str, architecture: Mapping[str, Any], labels: reading.Labels, files: _Files
) -> tuple[str, ...]:
    kinds = {kind: network for network, kind in reading.NETWORKS.items()}
    widths = [level["channels"] for level in architecture["levels"]]
    what = "regions that may overlap" if labels.background is None else "classes"
    facts = [
        f"The configuration {shown(name)} of {shown(data_set)}: a "
        f"{kinds[architecture['encoder']]} of {len(widths)} levels with {widths[0]} to "
        f"{max(widths)} channels.",
        f"It knows {len(labels.classes)} {what}: {', '.join(map(shown, labels.classes))}."
        if labels.classes
        else "It knows no classes by name.",
        f"The weights are {files.weights.parent.name}/{files.weights.name}.",
    ]
    if labels.left_out:
        left = ", ".join(map(shown, labels.left_out))
        facts.append(f"Names that can't be distinguished from others are left out: {left}.")
    return (*facts, *([files.remark] if files.remark else []))


def _places(path: Path) -> list[_Place]:
    """Every folder with ``plans.json`` that a path can mean."""
    if path.is_file():
        above = path.parent
        if path.suffix == ".pth" and _FOLD.fullmatch(above.name) and _is_trained(above.parent):
            return [_Place(above.parent, above.name.removeprefix("fold_"), path.name)]
        if path.name in ("plans.json", "dataset.json") and _is_trained(above):
            return [_Place(above)]
        return []
    if _FOLD.fullmatch(path.name) and _is_trained(path.parent):
        return [_Place(path.parent, path.name.removeprefix("fold_"))]
    if _is_trained(path):
        return [_Place(path)]
    try:
        below = sorted(p for p in path.iterdir() if p.is_dir() and _is_trained(p))
    except OSError:
        return []
    return [_Place(folder) for folder in below]


def _is_trained(folder: Path) -> bool:
    """Whether a folder is of one training: it has plans, or folds with checkpoints."""
    if (folder / "plans.json").is_file():
        return True
    return bool(_folds(folder)) and bool(re.search(r"__\w+__", folder.name))


def _is_first_version(path: Path) -> bool:
    """Whether a path is a result of nnU-Net v1."""
    folders = [path, path.parent] if path.is_file() else [path, *(path.glob("fold_*"))]
    return any(
        (folder / name).is_file()
        for folder in folders
        for name in ("plans.pkl", "model_final_checkpoint.model.pkl")
    )


def _folds(folder: Path) -> list[str]:
    """Of the folds that have a checkpoint, what comes after ``fold_``."""
    try:
        names = [p.name for p in folder.iterdir() if p.is_dir() and _FOLD.fullmatch(p.name)]
    except OSError:
        return []
    names = [name for name in names if any((folder / name).glob("checkpoint_*.pth"))]
    return sorted(name.removeprefix("fold_") for name in names)


def _choose_place(places: list[_Place], answers: Answers) -> _Place | Open:
    """The training that is meant, where a path has several."""
    if len(places) == 1:
        return places[0]
    wanted = answers.configuration
    fitting = [place for place in places if place.folder.name.rsplit("__", 1)[-1] == wanted]
    if len(fitting) == 1:
        return fitting[0]
    several = fitting if wanted and fitting else places
    names = [place.folder.name for place in several]
    if wanted and fitting:
        raise InputError(
            f"Several trainings here are of {shown(wanted)}: give the folder of one, "
            f"{' or '.join(names)}."
        )
    kinds = sorted({name.rsplit("__", 1)[-1] for name in names})
    return Open(
        (
            Question(
                "configuration",
                f"There are {len(names)} trainings here ({', '.join(names)}), and one is added.",
                next((k for k in kinds if k == "3d_fullres"), kinds[0]),
            ),
        )
    )


def _json_of(folder: Path, name: str) -> dict[str, Any]:
    """One of the two files that say everything.

    Raises:
        ModelError: it is missing, or no JSON object.
    """
    if not (folder / name).is_file():
        raise ModelError(
            f"There is no {name} in {folder}, without which the weights can't be understood. Copy "
            "it there from where nnU-Net trained."
        )
    data = load_json(folder / name, "file", ModelError)
    if not isinstance(data, dict):
        raise ModelError(f"{folder / name} is no object {{...}}, and not of nnU-Net.")
    return data


def _choose_weights(place: _Place, answers: Answers) -> tuple[Path, str]:
    """The weights, and a remark where there was a choice.

    Raises:
        ModelError: there are none. InputError: not those that a person asked for.
    """
    known, wanted = _folds(place.folder), answers.fold or place.fold
    if wanted is not None and not re.fullmatch(r"\d+|all", wanted):
        raise InputError(f"A fold is a number or 'all', not {shown(wanted)}.")
    if wanted is not None and wanted not in known:
        there = f"only {', '.join(known)}" if known else "nor of any other"
        raise ModelError(f"There is no checkpoint of fold {wanted} in {place.folder}, {there}.")
    if not known:
        raise ModelError(
            f"There is no fold_N/checkpoint_final.pth in {place.folder}: the training has not "
            "ended, or its weights were not copied."
        )
    fold = wanted or ("all" if "all" in known else known[0])
    folder = place.folder / f"fold_{fold}"
    name = answers.checkpoint or place.checkpoint
    if name is not None and (Path(name).name != name or not (folder / name).is_file()):
        raise InputError(f"There is no file {shown(name)} in {folder}.")
    if name is None:
        name = next((n for n in CHECKPOINTS if (folder / n).is_file()), None)
    if name is None:
        raise ModelError(f"There is none of {', '.join(CHECKPOINTS)} in {folder}.")
    remarks = []
    if len(known) > 1 and wanted is None:
        remarks.append(
            f"Of its folds {', '.join(known)} one is taken, {fold}; {flag('fold')} takes another."
        )
    if name == CHECKPOINTS[-1]:
        remarks.append("Its training had not ended: these are the latest weights.")
    return folder / name, " ".join(remarks)


def _configuration_name(files: _Files, answers: Answers) -> str:
    arguments = files.checkpoint.get("init_args")
    said = arguments.get("configuration") if isinstance(arguments, Mapping) else None
    if isinstance(said, str):
        if answers.configuration not in (None, said):
            raise InputError(
                f"These weights are of the configuration {shown(said)}, not "
                f"{shown(answers.configuration)}."
            )
        return said
    return answers.configuration or files.place.folder.name.rsplit("__", 1)[-1]


def _modality(answers: Answers, channel: str) -> list[str] | Question:
    """Raises: InputError where the answer is neither."""
    if answers.modality is not None:
        said = [part.strip().upper() for part in answers.modality.split(",")]
        if not said or any(part not in MODALITIES for part in said) or len(set(said)) < len(said):
            raise InputError(
                f"{flag('modality')} is CT, MR or CT,MR, not {shown(answers.modality)}."
            )
        return said
    found = reading.modality_of_channel(channel)
    if found is not None:
        return [found]
    return Question(
        "modality",
        f"Its images are called {shown(channel)}, which doesn't tell whether they are CT or MR.",
        "MR",
    )


def _orientation(answers: Answers, plans: Mapping[str, Any]) -> str | Question:
    """Raises: InputError where the answer is no orientation, or another than the files tell."""
    reader = str(plans.get("image_reader_writer"))
    known = reading.orientation_known(plans)
    if answers.orientation is None:
        if known is not None:
            return known
        return Question(
            "orientation",
            f"Its images were read as they lie in their files ({shown(reader)}), and nothing says "
            "how that is. Of one of its training images 3D Slicer and ITK-SNAP show where the axes "
            "i, j and k grow: RAS is to the right, to the front and upwards, LPS what DICOM has.",
            "RAS",
        )
    said = answers.orientation.strip().upper()
    if sorted(AXES.get(letter, (9, 0))[0] for letter in said) != [0, 1, 2]:
        raise InputError(
            f"{flag('orientation')} is three letters, one each of R or L, A or P, and S or I, not "
            f"{shown(answers.orientation)}."
        )
    if known not in (None, said):
        raise InputError(
            f"Its images were turned to {known} before training: leave out {flag('orientation')}."
        )
    return said


def _text(data: Mapping[str, Any], *names: str) -> str | None:
    """The first field that is a text of some length."""
    values = (data.get(name) for name in names)
    return next((v.strip()[:500] for v in values if isinstance(v, str) and v.strip()), None)
