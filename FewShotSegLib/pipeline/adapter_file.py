"""The ``.fseft`` file: one trained adapter as safetensors with JSON metadata.

The file's header holds the key ``fewshotseg``, whose JSON is below, and ``sha256``, a hash of the
file's every byte with zeros in its own place (``checksums``), which older files lack.

=====================  ======================================================================
``format``             6 with a prior that has a ``basis``; else 5 with a ``companion``, 4 with
                       ``evidence``; without these 1, or 2 where the backbone was trained as well,
                       or 3 on an architecture that was revised; a reader refuses a higher one
``version``            of the FewShotSeg that wrote it
``model``              id, title and ``weights_sha256`` of the frozen backbone, and its
                       ``network`` (the architecture's every option and revision); older files have
                       none of that, they are of revision 1
``modality``           which of the model's preprocessings was used, and ``preprocessing`` itself
``method``             its name; ``features`` (``multi`` or ``last``), ``channels``; and
                       ``decoder`` (``frozen``, ``tuned`` or ``new``) of a white-box method
``structures``         name, value, colour and terminology of each, in the order of the scores
``exclusive``          whether a voxel belongs to one structure at most
``priors``             by structure name: mean and deviation in mm^3, count, gamma, cut_off,
                       upper_trusted, enabled; pieces and apart where they are known; where no
                       annotation shows the whole, ``basis``: ``slices`` with the ``uncertainty`` of
                       the mean, which was estimated from drawn slices, or ``part`` where these
                       don't tell it and nothing is expected
``training``           the settings, seed, epochs run, stopped_early, final loss, seconds
``supports``           for each: shape, spacing, modality, sizes, and a hash of its voxel values;
                       no name, path, date or other identifier. Of one that was annotated in part
                       also what was ``known``, the ``uncertainty_mm3`` of sizes that were estimated
                       and ``drawn_mm3`` of structures whose size is not known
``expected``           what Dice new volumes can be expected to have: ``status`` (``measured``, or
                       why not), and where it was measured ``folds``, ``epochs``,
                       ``transductive`` and by structure name the ``dice`` of each support that
                       was held out, ``sparse`` of which were annotated in part; older files have
                       none
``evidence``           how many ``supports`` and ``held_out`` adapters its results are judged by;
                       older files have none, nor those of white-box methods
``companion``          of an adapter trained with the best effort: ``method``, ``decoder``,
                       ``training`` and ``trained_parameters`` of the second network
``rounds``             the trainings that led to it, its own the last: how many ``supports``, how
                       many of them ``added``, ``epochs``, ``seconds`` and ``expected`` Dice by
                       structure; absent where there was one alone
=====================  ======================================================================

Tensors are the adapter's by name and, with ``backbone.`` before it, whatever a white-box method
trained of the backbone: these alone, the rest is the foundation model's. Those of ``evidence`` have
``evidence.`` before their names (:class:`.inference.evidence.Evidence`); those of the companion
have ``companion.`` before what they would be called in a file of its own.
"""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from .. import __version__
from ..core.adapter_header import (
    BLACK_BOX_FORMAT,
    COMPANION_FORMAT,
    EVIDENCE_FORMAT,
    KEY,
    REVISED_FORMAT,
    SPARSE_FORMAT,
    WHITE_BOX_FORMAT,
    EvidenceRecord,
    read_bytes,
    read_checked_header,
    require_adapter_name,
)
from ..core.adapter_header import read_metadata as read_metadata
from ..core.annotation import Structure
from ..core.atomic import replacing
from ..core.checksums import write_sealed
from ..core.errors import InputError, ModelError
from ..core.expected import UNKNOWN, Expected
from ..core.geometry import Volume
from ..core.limits import StrPath
from ..core.plain_text import html_table
from ..core.rounds import Round
from ..core.size_prior import SizePrior
from ..inference.evidence import Evidence
from ..inference.tiles import select_levels
from ..methods.adapters import ADAPTERS, HEAD
from ..methods.adapters.base import Adapter
from ..methods.tuned_model import BACKBONE, TunedModel, count_tuned, split_state
from ..methods.tunings import TUNINGS
from ..models.preprocessing import Preprocessing
from ..models.registry import Model, ModelEntry, find_model

EVIDENCE = "evidence."
"""How the names of the tensors begin that results are judged by."""
COMPANION = "companion."
"""How the names of the second network's tensors begin."""
MEASURED = ("seconds", "backbone_seconds", "backbone_passes", "device")
"""What ``training`` says of the run alone: another run of the same training differs in it."""


@dataclass(repr=False)
class TrainedAdapter:
    """An adapter with everything that is needed to use it again. Fields as in the file.

    Attributes:
        network: how features were computed with the weights (:meth:`ModelEntry.network`); None in
            files of before that was recorded.
        tuned: what a white-box method trained of the backbone, by name; empty for adapters.
        decoder: what it did to the decoder; None for adapters.
        expected: what Dice new volumes can be expected to have, or why that is not known; None in
            files of before it was measured.
        rounds: the trainings that led to it, its own the last; empty where it is the first.
        name: of the file that it was read from, without ``.fseft``; not in the file.
        evidence: what results are judged by; None in files of before, and of white-box methods.
        companion: a second network for the same structures, on the same images, whose
            probabilities are averaged with the adapter's; None but for the best effort.
    """

    adapter: Adapter
    method: str
    features: str
    channels: tuple[int, ...]
    structures: list[Structure]
    priors: dict[str, SizePrior]
    model_id: str
    weights_sha256: str
    modality: str
    preprocessing: Preprocessing
    exclusive: bool = True
    model_title: str = ""
    training: dict[str, Any] = field(default_factory=dict)
    supports: list[dict[str, Any]] = field(default_factory=list)
    version: str = __version__
    tuned: dict[str, Tensor] = field(default_factory=dict)
    decoder: str | None = None
    network: dict[str, Any] | None = None
    expected: Expected | None = None
    evidence: Evidence | None = None
    companion: TrainedAdapter | None = None
    rounds: list[Round] = field(default_factory=list)
    name: str = ""

    def __repr__(self) -> str:
        """One line for people: without it a notebook shows every parameter."""
        names = ", ".join(structure.name for structure in self.structures)
        measured = self.expected.structures if self.expected else {}
        means = [f"{k} {v.expected:.2f}" for k, v in measured.items() if v.dice]
        expected = f"; expected Dice {', '.join(means)}" if means else ""
        return (
            f"<{type(self).__name__}: {names}; {self._methods()} on {self.model_id}, "
            f"{len(self.supports)} supports{expected}>"
        )

    def _methods(self) -> str:
        return self.method + (f" and {self.companion.method}" if self.companion else "")

    def _repr_html_(self) -> str:
        """What a notebook shows: the structures with the Dice to expect, and the rounds."""
        said = {} if self.expected is None else self.expected.sentences()
        rows = [
            [s.name, str(s.value), self.priors[s.name].mean_text(),
             said.get(s.name, said.get("", UNKNOWN))]
            for s in self.structures
        ]  # fmt: skip
        table = html_table(["structure", "label", "mean ml", "on a new volume"], rows)
        return f"<p>{html.escape(repr(self))}</p>{table}"

    @property
    def levels(self) -> tuple[int, ...]:
        """The backbone's feature levels that the adapter uses, finest first."""
        return self.adapter.levels

    def metadata(self) -> dict[str, Any]:
        """What the file's header says."""
        white_box = {} if self.decoder is None else {"decoder": self.decoder}
        return {
            "format": self._format(),
            "version": self.version,
            "model": {
                "id": self.model_id,
                "title": self.model_title,
                "weights_sha256": self.weights_sha256,
                **({} if self.network is None else {"network": self.network}),
            },
            "modality": self.modality,
            "preprocessing": self.preprocessing.to_json(),
            "method": self.method,
            "features": self.features,
            "channels": list(self.channels),
            "trained_parameters": self.adapter.trained_parameters() + count_tuned(self.tuned),
            **white_box,
            "structures": [asdict(structure) for structure in self.structures],
            "exclusive": self.exclusive,
            "priors": {name: prior.to_json() for name, prior in self.priors.items()},
            "training": self.training,
            "supports": self.supports,
            **({} if self.expected is None else {"expected": self.expected.to_json()}),
            **({} if self.evidence is None else {"evidence": self._evidence_counts()}),
            **({} if self.companion is None else {"companion": self.companion._as_companion()}),
            **({"rounds": [one.to_json() for one in self.rounds]} if self.rounds else {}),
        }

    def _as_companion(self) -> dict[str, Any]:
        """What the file of the adapter that this one accompanies says of it."""
        data = self.metadata()
        return {k: data[k] for k in ("method", "decoder", "training", "trained_parameters")}

    def _evidence_counts(self) -> dict[str, int]:
        assert self.evidence is not None
        return {
            "supports": len(self.evidence.supports),
            "held_out": len(self.evidence.held_out),
        }

    def _format(self) -> int:
        """The oldest format whose readers use the file rightly."""
        if any(prior.basis is not None for prior in self.priors.values()):
            return SPARSE_FORMAT
        if self.companion is not None:
            return COMPANION_FORMAT
        return self._plain_format() if self.evidence is None else EVIDENCE_FORMAT

    def _plain_format(self) -> int:
        """The same without what results are judged by."""
        if self.network is not None and self.network["revision"] > 1:
            return REVISED_FORMAT
        return BLACK_BOX_FORMAT if self.decoder is None else WHITE_BOX_FORMAT

    def content_sha256(self) -> str:
        """A hash of the trained parameters and of all that they mean, in memory or on disk alike.

        The same training gives the same hash, however long it took, and whether or not it was
        measured what to expect of it.
        """
        data = self.metadata()
        data.pop("expected", None)
        data.pop("evidence", None)
        data.pop("rounds", None)
        data["format"] = self._plain_format()
        for part in (data, data.get("companion", {"training": {}})):
            part["training"] = {k: v for k, v in part["training"].items() if k not in MEASURED}
        digest = hashlib.sha256(json.dumps(data, sort_keys=True).encode())
        tensors = {k: v for k, v in self._tensors().items() if not k.startswith(EVIDENCE)}
        for key, value in sorted(tensors.items()):
            digest.update(key.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def _tensors(self) -> dict[str, Tensor]:
        """The file's tensors."""
        tuned = {BACKBONE + name: tensor for name, tensor in self.tuned.items()}
        kept = {} if self.evidence is None else self.evidence.tensors()
        evidence = {EVIDENCE + name: tensor for name, tensor in kept.items()}
        other = {} if self.companion is None else self.companion._tensors()
        companion = {COMPANION + name: tensor for name, tensor in other.items()}
        return {**self.adapter.state_dict(), **tuned, **evidence, **companion}

    def save(self, path: StrPath) -> None:
        """Write the file; what was there is replaced only once the new one is complete.

        Raises:
            InputError: the name does not end with ``.fseft``, or a number in it is none.
            StorageError: the disk is full or the place can't be written to.
        """
        require_adapter_name(path)
        tensors = {key: value.detach().cpu().contiguous() for key, value in self._tensors().items()}
        try:
            metadata = {KEY: json.dumps(self.metadata(), sort_keys=True, allow_nan=False)}
        except ValueError as error:
            raise InputError(
                "This training left numbers that are none (NaN or infinite), which no file can "
                "hold. Lower its learning rate, or check its supports."
            ) from error
        data = safetensors.torch.save(tensors)
        with replacing(path) as partial:
            write_sealed(partial, data, metadata)

    @classmethod
    def load(cls, path: StrPath) -> TrainedAdapter:
        """Read a file.

        Raises:
            InputError: it is missing, damaged, no adapter, or from a newer FewShotSeg.
        """
        content = read_bytes(path)
        data, header = read_checked_header(content, str(path))
        # Numbers as they stand there: the hash of the content tells 1 from 1.0.
        structures = [
            Structure(**{**s, "color": tuple(s["color"]) if s["color"] else None})
            for s in data["structures"]
        ]
        levels = select_levels(header.channels, header.features)
        used = [header.channels[level] for level in levels]
        white_box = header.method in TUNINGS

        def make() -> Adapter:
            kind = HEAD if white_box else ADAPTERS[header.method]
            return kind(used, len(structures), levels)

        def make_second() -> Adapter:
            return HEAD(used, len(structures), levels)

        try:
            tensors = safetensors.torch.load(content)
            kept = _taken(tensors, EVIDENCE)
            second = _taken(tensors, COMPANION)
            own, tuned = split_state(tensors)
            adapter = _loaded(make, own)
            evidence = None
            if kept or header.evidence is not None:
                evidence = Evidence.from_tensors(
                    kept, (len(structures), sum(used)), lambda state: _loaded(make, state)
                )
                if header.evidence != EvidenceRecord(
                    len(evidence.supports), len(evidence.held_out)
                ):
                    raise ValueError("the evidence is not what the header says")
            if white_box != bool(tuned):
                raise ValueError("the backbone's tensors are missing or not of this method")
            _require_finite(tuned)
            second_head, second_tuned = split_state(second)
            if bool(second_tuned) != (header.companion is not None):
                raise ValueError("the companion is not what the header says")
            second_adapter = _loaded(make_second, second_head) if second else None
            _require_finite(second_tuned)
        except (KeyError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
            raise InputError(
                f"The adapter {path} is damaged. Train it again, or copy it again."
            ) from error
        trained = cls(
            adapter=adapter.eval(),
            method=header.method,
            features=header.features,
            channels=header.channels,
            structures=structures,
            # The header's keys are sorted; priors are in the structures' order.
            priors={s.name: SizePrior(**data["priors"][s.name]) for s in structures},
            model_id=header.model.id,
            weights_sha256=header.model.weights_sha256,
            modality=header.modality,
            preprocessing=Preprocessing.from_json(data["preprocessing"]),
            exclusive=header.exclusive,
            model_title=header.model.title,
            training=data["training"],
            supports=data["supports"],
            version=header.version,
            tuned=tuned,
            decoder=header.decoder,
            network=data["model"].get("network"),
            expected=header.expected,
            evidence=evidence,
            rounds=list(header.rounds),
            name=Path(path).stem,
        )
        if header.companion is not None and second_adapter is not None:
            trained.companion = replace(
                trained,
                adapter=second_adapter.eval(),
                method=header.companion.method,
                decoder=header.companion.decoder,
                training=data["companion"]["training"],
                tuned=second_tuned,
                expected=None,
                evidence=None,
            )
        return trained

    def find_model(self, name: StrPath | None = None) -> Model:
        """The foundation model that this adapter was trained on, or the one called ``name``.

        Raises:
            ModelError: it is not installed, its weights are not the ones of the training, or its
                features are computed in another way than at the training.
        """
        model = find_model(name or self.model_id)
        if model.weights_sha256 != self.weights_sha256:
            raise ModelError(
                f"This adapter was trained on '{self.model_id}' (weights "
                f"{self.weights_sha256[:12]}), but '{model.entry.id}' here has weights "
                f"{model.weights_sha256[:12]}. Use the same model, or train the adapter again."
            )
        self._require_network(model.entry)
        return model

    def _require_network(self, entry: ModelEntry) -> None:
        """Check that features are computed as at the training: weights alone don't tell that."""
        network = entry.network()
        # Before networks were recorded, every architecture was of its first revision.
        trained = self.network or {**network, "revision": 1}
        if trained == network:
            return
        name = network["name"]
        if trained.get("name") == name and trained["revision"] < network["revision"]:
            raise ModelError(
                f"This adapter was trained on features of '{entry.id}' that an earlier FewShotSeg "
                f"computed otherwise (its {name} was mended since). Train the adapter again."
            )
        keys = sorted(
            key for key in trained.keys() | network.keys() if trained.get(key) != network.get(key)
        )
        differences = ", ".join(
            f"{key} was {trained.get(key)}, is {network.get(key)}" for key in keys
        )
        raise ModelError(
            f"This adapter was trained on other features of these weights than '{entry.id}' here "
            f"gives ({differences}). Use the entry of the training, or train the adapter again."
        )

    def tuned_model(self, model: Model) -> Model:
        """Whose features the adapter reads: the model's own, or those of the trained backbone.

        Args:
            model: from :meth:`find_model`.
        """
        if self.decoder is None:
            return model
        return TunedModel(model, TUNINGS[self.method](self.decoder), self.tuned)


def _taken(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose names begin so, without that, taken out of ``tensors``."""
    names = [name for name in tensors if name.startswith(prefix)]
    return {name.removeprefix(prefix): tensors.pop(name) for name in names}


def _loaded(make: Callable[[], Adapter], state: Mapping[str, Tensor]) -> Adapter:
    """An adapter with these tensors, which it is compared with before it takes any memory.

    Args:
        make: gives a new one.

    Raises:
        ValueError: they are not its, or hold numbers that no training leaves.
    """
    with torch.device("meta"):
        adapter = make()
    wanted = {name: (t.shape, t.dtype) for name, t in adapter.state_dict().items()}
    if {name: (t.shape, t.dtype) for name, t in state.items()} != wanted:
        raise ValueError("the tensors are not those of the method")
    _require_finite(state)
    if any((t == 0).any() for name, t in state.items() if name.startswith("deviation")):
        raise ValueError("a deviation is 0")
    adapter.load_state_dict(state, assign=True)
    return adapter


def _require_finite(state: Mapping[str, Tensor]) -> None:
    for name, tensor in state.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"{name} has numbers that are none")


def content_hash(volume: Volume) -> str:
    """A hash of a volume's voxel values, to recognise it without naming it."""
    return hashlib.sha256(np.ascontiguousarray(volume.array.T)).hexdigest()[:16]
