"""Foundation models as data: one JSON entry each, weights beside it, loaded only when run.

Entries are read from ``Resources/Models`` of this package and from ``models`` in the user's
FewShotSeg folder (``FEWSHOTSEG_HOME``, by default ``~/.fewshotseg``); a path to any other entry
works as well. ``Resources/Models/README.md`` documents the fields. Weights that aren't beside
their entry are looked for in that same ``models`` folder.

Nothing here needs torch until a network is built: models are listed, fetched and reported without
it.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.annotation import class_key
from ..core.architecture_catalog import ARCHITECTURES, network_arguments
from ..core.errors import InputError, ModelError, StorageError, first_line
from ..core.json_fields import load_json
from ..core.limits import StrPath
from ..core.model_entry import CHECKSUMS, entry_fields
from ..core.model_folders import (
    DEFAULT_MODEL,
    SUPERSEDED,
    UnusableEntry,
    file_sha256,
    read_entries,
    record_sha256,
    recorded_sha256,
    require_unchanged_by_others,
    user_folder,
    weights_path,
)
from .kept import KeptModels, key_of
from .preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import Tensor

    from .backbones import Backbone


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
    licence_url: str | None = None
    checked: str | None = None

    @classmethod
    def read(cls, path: Path) -> ModelEntry:
        """Read and check one entry.

        Raises:
            ModelError: not JSON, a field missing, unknown or out of range.
        """
        data = load_json(path, "model entry", ModelError, max_bytes=2**20)
        fields = entry_fields(data, path)
        return cls(
            **{
                **vars(fields),
                "preprocessing": {
                    modality: Preprocessing(**vars(part))
                    for modality, part in fields.preprocessing.items()
                },
                "weights": weights_path(Path(path).parent, fields.weights),
            }
        )

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
        from .backbones import BACKBONES

        options = {k: v for k, v in self.architecture.items() if k != "name"}
        try:
            return BACKBONES[self.architecture["name"]](**options)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ModelError(
                f"The architecture of '{self.id}' can't be built: {first_line(error)}. "
                "Resources/Models/README.md lists what each architecture takes."
            ) from error

    def network(self) -> dict[str, Any]:
        """What computes features with the weights: the architecture with every option, said in the
        entry or not, and its revision; plain JSON.

        Two entries with the same weights whose networks differ give different features.

        Raises:
            ModelError: the architecture's options are wrong.
        """
        try:
            arguments = asdict(network_arguments(self.architecture))
        except InputError as error:
            raise ModelError(f"The entry of '{self.id}' can't be used: {error}.") from error
        name = self.architecture["name"]
        network = {"name": name, "revision": ARCHITECTURES[name].revision, **arguments}
        return json.loads(json.dumps(network))

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
        require_unchanged_by_others(self.entry.weights)
        kept = kept_models.digest(self.entry) if kept_models is not None else None
        if kept is not None:
            return kept
        try:
            digest = file_sha256(self.entry.weights)
        except OSError as error:
            raise self._missing(error) from error
        self._require_the_described(digest)
        return digest

    def _missing(self, error: OSError) -> ModelError:
        entry = self.entry
        if entry.weights.exists():
            return ModelError(
                f"The weights of '{entry.id}' at {entry.weights} can't be read "
                f"({error.strerror or error})."
            )
        get = f"Run: fewshotseg download {entry.id}. Or get" if entry.weights_url else "Get"
        return ModelError(
            f"The weights of '{entry.id}' are not here. {get} {entry.weights.name} from "
            f"{entry.source_url} and put it into {entry.weights.parent}."
        )

    def _require_the_described(self, digest: str) -> None:
        entry = self.entry
        if entry.sha256 and digest != entry.sha256:
            raise ModelError(
                f"The weights of '{entry.id}' at {entry.weights} are damaged or another version "
                "(their sha256 differs from the registry's). Get the file again."
            )
        if not entry.sha256 and entry.weights.parent == user_folder():
            self._compare_with_first_use(digest)

    @cached_property
    def identity(self) -> str:
        """64 hexadecimal digits for the weights and for how features are computed with them.

        That is the hash of the weights until an architecture is revised: what was keyed by it
        (rows of a benchmark, a pre-training that starts from the model) stays theirs.

        Raises:
            ModelError: as :attr:`weights_sha256`.
        """
        network = self.entry.network()
        if network["revision"] == 1:
            return self.weights_sha256
        parts = json.dumps([self.weights_sha256, network], sort_keys=True)
        return hashlib.sha256(parts.encode()).hexdigest()

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
        if kept_models is None:
            return self._read_backbone()
        digest, kept = kept_models.digest(self.entry), kept_models.get(self.entry)
        if kept is not None and self.__dict__.setdefault("weights_sha256", digest) == digest:
            return kept
        key = key_of(self.entry)
        backbone = self._read_backbone()
        kept_models.put(key, self.weights_sha256, backbone)
        return backbone

    def _read_backbone(self) -> Backbone:
        import torch

        from .weights import read_state

        entry = self.entry
        state = read_state(self._checked_bytes(), entry.weights)
        with torch.random.fork_rng(devices=[]):  # loading a model draws nothing from a seed
            backbone = entry.build()
        backbone.import_state_dict(state)
        del state
        rows = len(backbone.head_weights()[0])
        if max([*entry.classes.values(), entry.background or 0]) >= rows:
            raise ModelError(
                f"The entry of '{entry.id}' has a class beyond the {rows} rows of its head."
            )
        return backbone.eval().requires_grad_(False)

    def _checked_bytes(self) -> bytes:
        """The weights file, read once: what is hashed is what is loaded, whoever writes there.

        That takes the file's size in memory once more while its tensors are made (0.25 GB for a
        Swin UNETR).

        Raises:
            ModelError: see :attr:`weights_sha256`; or the file changed since that was reported.
        """
        try:
            data = self.entry.weights.read_bytes()
        except OSError as error:
            raise self._missing(error) from error
        digest = hashlib.sha256(data).hexdigest()
        self._require_the_described(digest)
        if self.__dict__.setdefault("weights_sha256", digest) != digest:
            raise ModelError(
                f"The weights of '{self.entry.id}' at {self.entry.weights} changed while they were "
                "in use. Start again once nobody writes there."
            )
        return data

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


kept_models: KeptModels | None = None
"""Of a process that runs one job after another; see :func:`keep_loaded_models`."""


def keep_loaded_models() -> None:
    """Keep the last model that was loaded for the next that has the same entry and file."""
    global kept_models
    kept_models = kept_models or KeptModels()


def list_entries() -> list[ModelEntry]:
    """Every entry of the project's and the user's folders that can be used, the default first."""
    return _read_entries()[0]


def unusable_entries() -> list[UnusableEntry]:
    """The files among the entries that :func:`list_entries` leaves out, and why."""
    return _read_entries()[1]


def find_model(name: StrPath = DEFAULT_MODEL) -> Model:
    """The model with an id, or described by the entry at a path that ends in ``.json``.

    Raises:
        ModelError: there is none.
    """
    if isinstance(name, os.PathLike):
        name = os.fspath(name)
    if not isinstance(name, str):
        raise ModelError(f"A model is the text of its id or its entry's path, not {name!r:.60}.")
    name = os.fspath(name)
    if name.endswith(".json"):
        return Model(ModelEntry.read(Path(name)))
    entries, unusable = _read_entries()
    for entry in entries:
        if entry.id == name:
            return Model(entry)
    for fault in unusable:
        if fault.path.stem == name:
            raise ModelError(fault.reason)
    if name in SUPERSEDED:
        raise ModelError(
            f"The model '{name}' does not ship any more: '{DEFAULT_MODEL}' has taken its place, "
            "with other features. Use that, and train again what was trained on the old one."
        )
    known = ", ".join(entry.id for entry in entries) or "none"
    paths = ", ".join(str(fault.path) for fault in unusable)
    others = f" These can't be used: {paths}." if unusable else ""
    raise ModelError(
        f"There is no model '{name}'. Known models: {known}.{others} Or give the path of an entry "
        "(.json)."
    )


def _read_entries() -> tuple[list[ModelEntry], list[UnusableEntry]]:
    found, unusable = read_entries(ModelEntry.read, lambda entry: entry.id)
    entries = [entry for _, entry in found]
    return sorted(entries, key=lambda entry: entry.id != DEFAULT_MODEL), unusable
