"""Foundation models as data: one JSON entry each, weights beside it, loaded only when run.

Entries are read from ``Resources/Models`` of this package and from ``models`` in the user's
FewShotSeg folder (``FEWSHOTSEG_HOME``, by default ``~/.fewshotseg``); a path to any other entry
works as well. ``Resources/Models/README.md`` documents the fields. Weights that aren't beside
their entry are looked for in that same ``models`` folder.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from .annotation import class_key
from .backbones import ARCHITECTURES
from .backbones.base import Backbone
from .errors import ModelError, StorageError
from .json_fields import load_json
from .model_files import (
    CHECKSUMS,
    DEFAULT_MODEL,
    entry_paths,
    file_sha256,
    record_sha256,
    recorded_sha256,
    user_folder,
    weights_path,
)
from .preprocessing import Preprocessing
from .requirements import outdated_packages


def same_class(a: str, b: str) -> bool:
    """Whether two class names mean the same: "Left kidney", "kidney_left" and "kidney-left" do."""
    return bool(class_key(a)) and class_key(a) == class_key(b)


@dataclass(frozen=True)
class ModelEntry:
    """One foundation model of the registry. See ``Resources/Models/README.md`` for the fields."""

    id: str
    title: str
    modality: tuple[str, ...]
    architecture: dict[str, Any]
    preprocessing: dict[str, Preprocessing]
    classes: dict[str, int]
    activation: str
    weights: Path
    window: tuple[int, int, int]
    overlap: float
    licence: str
    citation: str
    source_url: str
    sha256: str | None
    size: int | None
    description: str = ""
    background: int | None = field(default=None)
    weights_url: str | None = None

    @classmethod
    def read(cls, path: Path) -> ModelEntry:
        """Read and check one entry.

        Raises:
            ModelError: not JSON, a field missing, unknown or out of range.
        """
        data = load_json(path, "model entry", ModelError)
        try:
            data["modality"] = tuple(data["modality"])
            data["preprocessing"] = {
                modality: Preprocessing.from_json(value)
                for modality, value in data["preprocessing"].items()
            }
            data["weights"] = weights_path(path.parent, data["weights"])
            data["window"] = tuple(int(n) for n in data["window"])
            data["overlap"] = float(data["overlap"])
            entry = cls(**data)
            name = entry.architecture["name"]
            rows = [*entry.classes.values(), entry.background or 0]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(
                f"The model entry {path} is not complete or has a field that is not known: "
                f"{error}. Resources/Models/README.md lists the fields."
            ) from error
        if name not in ARCHITECTURES:
            raise ModelError(
                f"{path}: the architecture '{name}' is not known; there are "
                f"{', '.join(ARCHITECTURES)}."
            )
        if set(entry.preprocessing) != set(entry.modality):
            raise ModelError(f"{path}: 'preprocessing' must have one part for each modality.")
        if not 0 <= entry.overlap < 1 or entry.activation not in ("sigmoid", "softmax"):
            raise ModelError(f"{path}: overlap is in [0, 1), activation sigmoid or softmax.")
        if len(entry.window) != 3 or min(entry.window) < 1:
            raise ModelError(f"{path}: 'window' is three numbers of voxels.")
        if not all(isinstance(row, int) and row >= 0 for row in rows):
            raise ModelError(f"{path}: 'classes' and 'background' are rows of the head, 0 or more.")
        return entry

    def to_json(self) -> dict[str, Any]:
        """The entry for other programs; ``weights`` is the path on this machine."""
        data = {**vars(self), "modality": list(self.modality), "weights": str(self.weights)}
        data["preprocessing"] = {k: p.to_json() for k, p in self.preprocessing.items()}
        return {**data, "window": list(self.window), "installed": self.weights.is_file()}

    def build(self) -> Backbone:
        """The network with random weights from torch's generator.

        Raises:
            ModelError: the architecture's options are wrong.
        """
        options = {k: v for k, v in self.architecture.items() if k != "name"}
        try:
            return ARCHITECTURES[self.architecture["name"]](**options)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ModelError(
                f"The architecture of '{self.id}' can't be built: {_one_line(error)}. "
                "Resources/Models/README.md lists what each architecture takes."
            ) from error

    def class_named(self, name: str) -> str | None:
        """The model's own name of a class that a person calls ``name``, or None if unknown."""
        return next((known for known in self.classes if same_class(known, name)), None)


class Model:
    """A registry entry whose weights are checked and loaded when first needed."""

    def __init__(self, entry: ModelEntry) -> None:
        self.entry = entry

    @cached_property
    def weights_sha256(self) -> str:
        """Hash of the weights file, compared with the entry's, or with that of its first use.

        Raises:
            ModelError: the file is missing, or is not the one that the entry describes.
        """
        entry = self.entry
        try:
            digest = file_sha256(entry.weights)
        except OSError as error:
            get = f"Run: fewshotseg download {entry.id}. Or get" if entry.weights_url else "Get"
            raise ModelError(
                f"The weights of '{entry.id}' are not here. {get} {entry.weights.name} from "
                f"{entry.source_url} and put it into {entry.weights.parent}."
            ) from error
        if entry.sha256 and digest != entry.sha256:
            raise ModelError(
                f"The weights of '{entry.id}' at {entry.weights} are damaged or another version "
                "(their sha256 differs from the registry's). Get the file again."
            )
        if not entry.sha256 and entry.weights.parent == user_folder():
            self._compare_with_first_use(digest)
        return digest

    def _compare_with_first_use(self, digest: str) -> None:
        """Weights without a published checksum stay what they were when they were first used."""
        name = self.entry.weights.name
        known = recorded_sha256(name)
        if known and known != digest:
            raise ModelError(
                f"The weights of '{self.entry.id}' at {self.entry.weights} have changed since they "
                "were first used here (their sha256 differs). Get the file again; if they were "
                f"changed on purpose, remove the line of {name} from {CHECKSUMS} beside them."
            )
        if not known:
            try:
                record_sha256(name, digest)
            except StorageError:
                pass  # a folder that others keep and we may only read

    @cached_property
    def backbone(self) -> Backbone:
        """The frozen network, in evaluation mode on the CPU.

        Raises:
            ModelError: the weights are missing, damaged or of another architecture.
        """
        entry = self.entry
        _ = self.weights_sha256
        backbone = entry.build()
        backbone.import_state_dict(_read_state(entry.weights))
        rows = len(backbone.head_weights()[0])
        if max([*entry.classes.values(), entry.background or 0]) >= rows:
            raise ModelError(
                f"The entry of '{entry.id}' has a class beyond the {rows} rows of its head."
            )
        return backbone.eval().requires_grad_(False)

    def class_head(self, name: str) -> tuple[Tensor, Tensor] | None:
        """Weights (channels[0],) and bias () that score a known class against the rest.

        With a softmax head that is the class's row less the background's, so that a sigmoid of
        the score is the probability of the class against background.

        Returns:
            None where the model does not know the class.
        """
        known = self.entry.class_named(name)
        if known is None:
            return None
        weights, biases = self.backbone.head_weights()
        row, background = self.entry.classes[known], self.entry.background
        if background is None:
            return weights[row].clone(), biases[row].clone()
        return weights[row] - weights[background], biases[row] - biases[background]


def list_entries() -> list[ModelEntry]:
    """Every entry of the project's and the user's folders, the default first.

    Raises:
        ModelError: an entry can't be read, or two have one id.
    """
    entries, faults = _read_entries()
    if faults:
        raise faults[0]
    return entries


def find_model(name: str = DEFAULT_MODEL) -> Model:
    """The model with an id, or described by the entry at a path that ends in ``.json``.

    Raises:
        ModelError: there is none.
    """
    if name.endswith(".json"):
        return Model(ModelEntry.read(Path(name)))
    entries, faults = _read_entries()
    for entry in entries:
        if entry.id == name:
            return Model(entry)
    if faults:  # it may be the one that was meant
        raise faults[0]
    known = ", ".join(entry.id for entry in entries) or "none"
    raise ModelError(
        f"There is no model '{name}'. Known models: {known}; or give the path of an entry (.json)."
    )


def _read_entries() -> tuple[list[ModelEntry], list[ModelError]]:
    """The sound entries, and what is wrong with the others."""
    entries: dict[str, ModelEntry] = {}
    faults = []
    for path in entry_paths():
        try:
            entry = ModelEntry.read(path)
            if entry.id in entries:
                raise ModelError(f"Two models are called '{entry.id}'. Rename the one in {path}.")
            entries[entry.id] = entry
        except ModelError as error:
            faults.append(error)
    return sorted(entries.values(), key=lambda entry: entry.id != DEFAULT_MODEL), faults


def _one_line(error: Exception) -> str:
    """The first line of an error: torch writes paragraphs, and advice to load pickles."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].strip().rstrip(".")


def _refuse_where_pickles_run_code(path: Path) -> None:
    """What ``weights_only=True`` promises holds from our lowest torch on (see ``requirements``)."""
    old = next((old for old in outdated_packages() if old.requirement.name == "torch"), None)
    if old is not None:
        raise ModelError(
            f"The weights file {path} is not opened: {old} Update torch, or have the weights "
            "converted to .safetensors on another machine."
        )


def _read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file, unwrapped; never with a pickle that can run code."""
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        _refuse_where_pickles_run_code(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except ModelError:
        raise
    except (OSError, RuntimeError, ValueError, safetensors.SafetensorError) as error:
        raise ModelError(f"The weights file {path} can't be read: {_one_line(error)}.") from error
    except Exception as error:  # pickle.UnpicklingError and whatever a damaged archive raises
        raise ModelError(
            f"The weights file {path} is not a plain state dict: {_one_line(error)}."
        ) from error
    for wrapper in ("state_dict", "net", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    return state
