"""What an ``.fseft`` file says of itself, read without torch: the Slicer side shows it.

``adapter_file`` documents the fields, and reads and writes the whole.
"""

from __future__ import annotations

import io
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from .annotation import Structure, require_structures
from .checksums import read_head, require_seal
from .errors import InputError
from .expected import Expected
from .json_fields import parse_json, shown
from .json_schema import Check, from_json
from .limits import StrPath, require_path
from .method_catalog import METHODS
from .model_entry import Line, PreprocessingFields, Sha256
from .rounds import Round
from .size_prior import SizePrior

FORMAT = 6
"""A reader refuses a higher one."""
SPARSE_FORMAT = 6
"""Of files with a size that no annotation shows: older readers would expect it of results."""
COMPANION_FORMAT = 5
"""Of files with a second network, whose probabilities are averaged with the adapter's."""
EVIDENCE_FORMAT = 4
"""Of files that hold what results are judged by: older readers would call it damaged."""
REVISED_FORMAT = 3
"""Of adapters on a network that was revised: older readers would give them features that are not
those of their training."""
WHITE_BOX_FORMAT = 2
"""Of files that hold trained tensors of the backbone."""
BLACK_BOX_FORMAT = 1
"""Of files that train nothing of the backbone: older readers understand them."""
KEY = "fewshotseg"
EXTENSION = ".fseft"
MAX_LEVELS, MAX_CHANNELS = 16, 65536


def require_adapter_name(path: StrPath) -> None:
    """Adapters have names of their own, so that none takes the place of an image.

    Raises:
        InputError: the name does not end with :data:`EXTENSION`.
    """
    if not os.fspath(path).endswith(EXTENSION):
        raise InputError(f"{path}: let the adapter's name end with {EXTENSION}.")


Count = Annotated[int, Check("a number, 0 or more", lambda n: n >= 0)]
Length = Annotated[float, Check("a number above 0", lambda n: n > 0)]
Size = Annotated[float, Check("a number, 0 or more", lambda n: n >= 0)]
Voxels = Annotated[int, Check("a number of voxels", lambda n: 1 <= n < 2**31)]
Channels = Annotated[int, Check("a number of channels", lambda n: 1 <= n <= MAX_CHANNELS)]


@dataclass(frozen=True)
class ModelRecord:
    """The foundation model that an adapter is for."""

    id: Annotated[Line, Check("a name", lambda text: bool(text.strip()))]
    weights_sha256: Sha256
    title: Line = ""
    network: dict[str, Any] = None  # type: ignore[assignment]
    """Absent, not null, in files of before it was recorded."""

    def __post_init__(self) -> None:
        if self.network is not None:
            from_json(NetworkRecord, self.network, "'network'")


@dataclass(frozen=True)
class NetworkRecord:
    """How features were computed with the weights: :meth:`ModelEntry.network`, with all options."""

    OTHERS: ClassVar[bool] = True
    name: Line
    revision: Annotated[int, Check("a number from 1 on", lambda n: n >= 1)]


@dataclass(frozen=True)
class SupportRecord:
    """What may be reported of a support."""

    OTHERS: ClassVar[bool] = True
    shape: tuple[Voxels, Voxels, Voxels]
    spacing_mm: tuple[Length, Length, Length] | None = None
    sizes_mm3: dict[str, Size] = field(default_factory=dict)
    cut_off: list[str] = field(default_factory=list)
    content: str = ""


@dataclass(frozen=True)
class TrainingRecord:
    """How it was trained: for people, nothing is computed from it."""

    OTHERS: ClassVar[bool] = True
    settings: dict[str, Any] = field(default_factory=dict)
    preset: str = "own"
    seed: int | None = None
    epochs: Count = 0
    stopped_early: bool = False
    final: dict[str, Any] = field(default_factory=dict)
    joint_query: bool = False
    started_from_classes: dict[str, str | None] = field(default_factory=dict)
    backbone_passes: Count = 0
    backbone_seconds: Size = 0.0
    seconds: dict[str, Size] = field(default_factory=dict)
    device: str = ""


@dataclass(frozen=True)
class EvidenceRecord:
    """What results are judged by: how many supports are described, and adapters lacked some."""

    supports: Annotated[int, Check("a number from 1 on", lambda n: n >= 1)]
    held_out: Count = 0


@dataclass(frozen=True)
class CompanionRecord:
    """A second network, trained on the same supports, whose probabilities are averaged in."""

    OTHERS: ClassVar[bool] = True
    method: str
    decoder: str | None
    training: TrainingRecord
    trained_parameters: Count = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS or self.decoder not in METHODS[self.method].decoders:
            raise InputError(f"no method {shown(self.method)} trains a network in this way")


@dataclass(frozen=True)
class AdapterHeader:
    """The fields that ``adapter_file`` lists.

    Others are left alone: whoever adds one that changes what the rest means raises the format.
    """

    OTHERS: ClassVar[bool] = True
    format: Annotated[int, Check(f"1 to {FORMAT}", lambda n: 1 <= n <= FORMAT)]
    version: Line
    model: ModelRecord
    modality: Line
    preprocessing: PreprocessingFields
    method: str
    features: Literal["multi", "last"]
    channels: Annotated[
        tuple[Channels, ...],
        Check("a list of one or more feature levels", lambda v: 1 <= len(v) <= MAX_LEVELS),
    ]
    structures: Annotated[
        tuple[Structure, ...], Check("a list of one or more", lambda v: len(v) > 0)
    ]
    exclusive: bool
    priors: dict[str, SizePrior]
    training: TrainingRecord
    supports: tuple[SupportRecord, ...]
    decoder: str | None = None
    trained_parameters: Count = 0
    expected: Expected | None = None
    evidence: EvidenceRecord | None = None
    companion: CompanionRecord | None = None
    rounds: tuple[Round, ...] = ()

    def __post_init__(self) -> None:
        require_structures(self.structures, "'structures'")
        for structure in self.structures:
            if structure.color and not all(0 <= part <= 1 for part in structure.color):
                raise InputError(f"the colour of {shown(structure.name)} is not within 0 to 1")
        if set(self.priors) != {structure.name for structure in self.structures}:
            raise InputError("'priors' has one for each structure")
        if self.expected and not set(self.expected.structures) <= set(self.priors):
            raise InputError("'expected' is of other structures")
        if self.method not in METHODS:
            raise InputError(f"the method {shown(self.method)} is not known")
        decoders = METHODS[self.method].decoders
        if self.decoder not in (decoders or (None,)):
            raise InputError(f"'decoder' can't be {shown(self.decoder)} for {self.method}")
        plain = BLACK_BOX_FORMAT if self.decoder is None else WHITE_BOX_FORMAT
        known = (plain, REVISED_FORMAT) if self.evidence is None else (EVIDENCE_FORMAT,)
        known = known if self.companion is None else (COMPANION_FORMAT,)
        if any(prior.basis is not None for prior in self.priors.values()):
            known = (SPARSE_FORMAT,)
        if self.format not in known:
            raise InputError(f"format {self.format} is not that of {self.method}")


def read_metadata(path: StrPath) -> dict[str, Any]:
    """The header of an adapter file, once all of the file is known to be as it was written.

    Raises:
        InputError: as :meth:`pipeline.TrainedAdapter.load`.
    """
    return read_header(read_bytes(path), str(path))


def read_bytes(path: StrPath) -> bytes:
    """A whole adapter file, read once: what is checked is what is loaded.

    Raises:
        InputError: there is none, or it can't be read.
    """
    path = Path(require_path(path))
    if not path.is_file():
        raise InputError(f"There is no adapter file at {path}.")
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"The adapter {path} can't be read ({error.strerror or error})."
        ) from error


def read_header(data: bytes, name: str) -> dict[str, Any]:
    """The metadata in the bytes of an adapter file, checked. ``name`` is what messages call it.

    Raises:
        InputError: they are not an adapter's, are cut short or changed, say what can't be, or are
            from a newer FewShotSeg.
    """
    return read_checked_header(data, name)[0]


def read_checked_header(data: bytes, name: str) -> tuple[dict[str, Any], AdapterHeader]:
    """:func:`read_header`, and the same as fields."""
    damaged = f"{name} is not a FewShotSeg adapter, or is damaged"
    advice = "Train it again, or copy it again."
    try:
        stream = io.BytesIO(data)
        _, header = read_head(stream)
        metadata = parse_json(header["__metadata__"][KEY], "its description")
        end = max(v["data_offsets"][1] for k, v in header.items() if k != "__metadata__")
        if stream.tell() + end != len(data):
            raise ValueError("cut short")
        newer = int(metadata["format"]) > FORMAT
        require_seal(io.BytesIO(data), None if newer else (KEY,))
    except (InputError, ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(f"{damaged}. {advice}") from error
    if newer:
        version = shown(metadata.get("version"))[1:-1]
        raise InputError(f"{name} was written by a newer FewShotSeg ({version}). Update this one.")
    _require_known_method(metadata, name)
    try:
        fields = from_json(AdapterHeader, metadata, "")
    except InputError as error:
        raise InputError(f"{damaged} ({str(error).rstrip('.')}). {advice}") from error
    return _completed(metadata, fields), fields


def _require_known_method(metadata: Any, name: str) -> None:
    """Tell the file of a method that another package adds from a damaged one."""
    method = metadata.get("method")
    if isinstance(method, str) and method not in METHODS:
        raise InputError(
            f"{name} was trained with the method {shown(method)}, which is not known here. Install "
            "the package that adds it, or a FewShotSeg that has it."
        )


def _completed(metadata: dict[str, Any], fields: AdapterHeader) -> dict[str, Any]:
    """With what a file leaves to its default, so that whoever shows it finds every field.

    Numbers stay as they are written: 1 is not 1.0 to the hash of an adapter's content.
    """
    priors = {
        name: {**prior.to_json(), **metadata["priors"][name]}
        for name, prior in fields.priors.items()
    }
    pairs = zip(fields.structures, metadata["structures"], strict=True)
    return {
        "trained_parameters": fields.trained_parameters,
        **metadata,
        "model": {"title": fields.model.title, **metadata["model"]},
        "priors": priors,
        "structures": [{**asdict(known), **given} for known, given in pairs],
    }
