"""What travels between panel and logic: rows of the tables, and what the logic tells.

Nothing here imports slicer, qt or vtk; nodes are passed as they are and named ``Any``.

Units are for people: ml for volumes, seconds, bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

Verdict = Literal["fine", "look at this", "do not use", "not known"]
QueryState = Literal["open", "waiting", "running", "done", "failed", "stopped"]
SupportState = Literal["ready", "no segments", "nothing drawn", "missing", "unusable", "choose"]

# --- rows of the tables -------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelRow:
    """One foundation model of the registry.

    Attributes:
        id: its name for :meth:`LogicProtocol.setModel`. title, description: for a person.
        modality: what it is for, such as ``("CT", "MR")``.
        licence, citation, source_url: shown on hover.
        size: bytes of the weights, None where the entry doesn't say.
        installed: whether the weights are on this machine.
        embedded: whether it ships with the extension, and so can't be removed.
        downloadable: whether :meth:`LogicProtocol.downloadModel` can fetch the weights.
        importable: whether :meth:`LogicProtocol.importModel` can take them from a file.
        problem: why it can't be used, one sentence; empty if it can.
    """

    id: str
    title: str
    description: str = ""
    modality: tuple[str, ...] = ()
    licence: str = ""
    citation: str = ""
    source_url: str = ""
    size: int | None = None
    installed: bool = True
    embedded: bool = True
    downloadable: bool = False
    importable: bool = False
    problem: str = ""


@dataclass(frozen=True)
class DeviceRow:
    """Where the background process may compute.

    Attributes:
        id: ``auto``, ``cpu`` or ``cuda:N``. title: for a person, such as ``GPU 0: NVIDIA T4``.
        free_bytes, total_bytes: memory; None until :meth:`LogicProtocol.refreshDevices` has asked.
    """

    id: str
    title: str
    free_bytes: int | None = None
    total_bytes: int | None = None


@dataclass(frozen=True)
class AnnotationChoice:
    """One annotation that could be a volume's.

    Attributes:
        id: for :meth:`LogicProtocol.chooseAnnotation`. title: the names of its nodes.
    """

    id: str
    title: str


@dataclass(frozen=True)
class SupportRow:
    """One support.

    Attributes:
        id: stays the same while the row lives, through save and reload too.
        volume, segmentation: the nodes (None where one was deleted from the scene).
        volume_name, segmentation_name: for the table.
        structures: names of the classes with at least one voxel here.
        ticked: whether the next training uses it.
        state: ``ready``, or what is missing: ``no segments`` (the segmentation is empty),
            ``nothing drawn`` (its segments are), ``missing`` (a node is gone), ``unusable``, or
            ``choose`` (several annotations could be this volume's, or one could be of several).
        problem: one sentence on what to do; empty where it is ready.
        choices: of a row that waits for one, best first.
    """

    id: str
    volume: Any
    segmentation: Any
    volume_name: str
    segmentation_name: str
    structures: tuple[str, ...] = ()
    ticked: bool = True
    state: SupportState = "ready"
    problem: str = ""
    choices: tuple[AnnotationChoice, ...] = ()


@dataclass(frozen=True)
class PriorRow:
    """The size that a structure is expected to have.

    Attributes:
        mean_ml, sd_ml: over the supports, or what the user typed; None before anything is known.
        count: supports that it was measured on.
        edited: whether the user gave the mean or the spread.
        gamma: the tolerance; ``gamma_edited`` tells whether the user gave it, else it follows the
            spread as the engine's own rule says.
        lower_ml, upper_ml: the tolerated range, None where a bound is not trusted or the prior off.
        enabled: whether it is used at all.
    """

    mean_ml: float | None = None
    sd_ml: float | None = None
    count: int = 0
    edited: bool = False
    gamma: float | None = None
    gamma_edited: bool = False
    lower_ml: float | None = None
    upper_ml: float | None = None
    enabled: bool = True


class PriorEdit(TypedDict, total=False):
    """What a person changes about a prior; what is not given stays."""

    mean_ml: float
    sd_ml: float
    gamma: float
    enabled: bool


@dataclass(frozen=True)
class SegmentLink:
    """One segment of one support, and so one thing that a class was made of."""

    support_id: str
    volume_name: str
    segment_id: str
    segment_name: str


@dataclass(frozen=True)
class StructureRow:
    """One class over all supports.

    Attributes:
        id: stays the same while the row lives. name, color: of the result's segment.
        terminology: Slicer's string, or empty.
        segments: what was matched to it, by terminology, then by name, then by hand.
        ticked: whether it is to be learnt.
        conflict: one sentence where the matching is doubtful (two segments of one support in one
            class; one name under two terminologies; one terminology under two names).
        prior: its size prior.
    """

    id: str
    name: str
    color: tuple[float, float, float]
    terminology: str = ""
    segments: tuple[SegmentLink, ...] = ()
    ticked: bool = True
    conflict: str = ""
    prior: PriorRow = field(default_factory=PriorRow)


@dataclass(frozen=True)
class MethodRow:
    """One method of training.

    Attributes:
        id: its name, as for ``adapt --method``. title, explanation: for a person; what it trains
            of the chosen model with the chosen decoder and settings.
        decoders: what it can do with the decoder; empty where the model stays frozen.
        epochs: how many it trains where nobody says otherwise.
    """

    id: str
    title: str
    explanation: str = ""
    decoders: tuple[str, ...] = ()
    epochs: int = 60


@dataclass(frozen=True)
class AdapterRow:
    """One trained adapter in the scene.

    Attributes:
        id: stays the same through save and reload. name: the user's, can be changed.
        structures: names of its classes. method, model_id, modality: of the training.
        supports: ``name (ml of each structure)`` of each support; of a loaded file their number
            and shapes alone, since a file names nobody.
        created: local time, ISO without a zone; empty where unknown.
        metadata: the header of the file, documented in ``FewShotSegLib/pipeline/adapter_file.py``.
    """

    id: str
    name: str
    structures: tuple[str, ...]
    method: str = ""
    model_id: str = ""
    modality: str = ""
    supports: tuple[str, ...] = ()
    created: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrustRow:
    """What the engine thinks of a structure of a result; see ``FewShotSegLib.core.trust``.

    Attributes:
        verdict: ``not known`` in scenes and for adapters of before, and once a person corrected it.
        reasons: why, in words.
        dice: the expected one. lower, upper: where the true one is, 4 times in 5. None where they
            are not known.
        place: RAS mm, under the query's transform, of what the verdict is about, such as a piece
            far away; None where it is about the whole.
    """

    verdict: Verdict = "not known"
    reasons: tuple[str, ...] = ()
    dice: float | None = None
    lower: float | None = None
    upper: float | None = None
    place: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class ResultRow:
    """One structure of the last result of a query.

    Attributes:
        volume_ml: of the refined segment. unrefined_ml: without transduction.
        prior: the one that was used (None where there was none).
        within: False flags the row.
        note: what should be looked at, a sentence a line; else empty.
        brief: what the engine remarks beside the volume, a few words each.
        corrected: whether a person drew on it since; what was remarked then says nothing any more.
        trust: whether it can be used.
    """

    name: str
    color: tuple[float, float, float]
    volume_ml: float
    unrefined_ml: float
    prior: PriorRow | None
    within: bool
    note: str = ""
    brief: tuple[str, ...] = ()
    corrected: bool = False
    trust: TrustRow = field(default_factory=TrustRow)


@dataclass(frozen=True)
class Result:
    """A segmented query in the scene; nodes are None once deleted.

    Attributes:
        segmentation: one node with the refined segments, under the query's transform.
        unrefined: one node likewise, hidden; None where transduction was off or changed nothing.
        uncertainty: scalar volume, 0 to 100 (100 where a probability is one half); None if not
            asked for.
        rows: sizes against priors. warnings: the engine's, one sentence each.
        seconds: from the press of the button until it was in the scene.
        id: stays the same through save and reload. created: local time, ISO without a zone.
    """

    query: Any
    segmentation: Any
    unrefined: Any
    uncertainty: Any
    rows: tuple[ResultRow, ...]
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    adapter_id: str = ""
    id: str = ""
    created: str = ""


@dataclass(frozen=True)
class QueryRow:
    """One volume of the scene that could be segmented: an image without a row in the support set.

    Attributes:
        id: for :meth:`LogicProtocol.startSeveral`. volume, name: the node, and what it is called.
        state: ``open``; ``waiting``, ``running``; ``done`` (it has a result); ``failed``,
            ``stopped``. message: how it ended, one sentence; else empty.
    """

    id: str
    volume: Any
    name: str
    state: QueryState = "open"
    message: str = ""


@dataclass(frozen=True)
class SeriesRow:
    """One series of Slicer's DICOM database.

    Attributes:
        id: its SeriesInstanceUID. name: patient, study and series, as the database has them.
        folder: that holds its files. problem: why it can't be used, one sentence; else empty.
    """

    id: str
    name: str
    folder: str = ""
    description: str = ""
    problem: str = ""


@dataclass(frozen=True)
class SuggestionRow:
    """One volume of the scene in the order in which to annotate them.

    Attributes:
        id: of the node. volume, name: the node, and what it is called.
        reasons: why it is where it is, in words. unusable: it is at the end, as they say.
    """

    id: str
    volume: Any
    name: str
    reasons: tuple[str, ...] = ()
    unusable: bool = False


@dataclass(frozen=True)
class Estimate:
    """What is about to be run will take roughly this. ``measured`` tells whether the time rests on
    earlier runs on this machine (else it is a guess from the model's size)."""

    memory_bytes: int
    seconds: float
    measured: bool
    text: str
    enough_memory: bool = True


# --- a task -------------------------------------------------------------------------------------

TaskKind = Literal[
    "train", "segment", "folder", "suggest", "devices", "download", "import", "add", "phantoms"
]
EndState = Literal["finished", "cancelled", "failed", "crashed", "not started"]


@dataclass(frozen=True)
class Epoch:
    """One point of the loss plot; sizes and bounds by structure name when refining."""

    phase: str
    epoch: int
    epochs: int
    loss: float
    sizes_ml: Mapping[str, float] = field(default_factory=dict)
    bounds_ml: Mapping[str, tuple[float, float | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """How far a task is.

    Attributes:
        phase: ``hand over``, ``start``, ``read``, ``features`` or ``prepare``, ``train``,
            ``validate``, ``refine``, ``segment``, ``write``, ``load``, ``stopping``.
        text: the same for a person, whole line.
        fraction: of the whole task, 0..1, or None where unknown.
        remaining_seconds: a guess, or None.
        silent_seconds: since the process was last heard of; above 30 the panel should say so.
        memory_bytes: of the background process.
    """

    kind: TaskKind
    phase: str
    text: str
    fraction: float | None = None
    remaining_seconds: float | None = None
    silent_seconds: float = 0.0
    memory_bytes: int | None = None


@dataclass(frozen=True)
class End:
    """How a task ended: ``state`` decides the colour, ``message`` is one sentence (or two).

    Attributes:
        adapter_id: of a finished training. result: of a finished segmentation.
    """

    kind: TaskKind
    state: EndState
    message: str
    adapter_id: str = ""
    result: Result | None = None


# --- what the logic tells its listeners ---------------------------------------------------------

Part = Literal["models", "devices", "supports", "structures", "adapters", "results", "settings"]


@dataclass(frozen=True)
class Changed:
    """A part of the logic's data is not what it was: read it again."""

    part: Part


@dataclass(frozen=True)
class LogLine:
    """One line for the log."""

    text: str


@dataclass(frozen=True)
class ModelQuestion:
    """What the files of a model to be added don't tell.

    Attributes:
        answer: the name of what is asked for. text: a sentence on what is unknown.
        example: an answer that could be right.
    """

    answer: str
    text: str
    example: str


@dataclass(frozen=True)
class ModelAsks:
    """A model can't be added before a person has said what its files don't; comes before ``End``.

    Attributes:
        path: of its files. found: what they tell, a sentence each.
        answers: what was said already. questions: what is to be asked.
    """

    path: str
    found: tuple[str, ...]
    answers: Mapping[str, str]
    questions: tuple[ModelQuestion, ...]


Notice = Changed | Progress | Epoch | End | LogLine | ModelAsks
Listener = Callable[[Notice], None]
