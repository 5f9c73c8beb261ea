"""What the Slicer module and its background process say to each other; both sides import this.

``Documentation/reference/process-protocol.md`` is this file for people.

A *job* is a private folder with ``job.json``
and raw arrays. The process is ``python -u -m FewShotSegLib.worker FOLDER``: it writes events
(``events``) as JSON lines on its standard output and leaves what it made in ``FOLDER/results``. It
stops when there is a file ``cancel`` in the folder; when its caller is no more, or the folder, it
removes the folder and ends. (Slicer's launcher of Python passes no standard input on.) With
``--stay DESK`` it does one job after another: see :func:`hand_next`.

Nothing in a folder names a patient: arrays are raw voxels, their place is an affine.
This module needs numpy and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from .annotation import Structure
from .atomic import write_json
from .errors import InputError
from .json_fields import load_json
from .json_schema import Check, from_json
from .options import AdaptOptions, SegmentOptions, shared_fields
from .settings import TrainingSettings
from .size_prior import PriorChange

FORMAT = 1
"""Of ``job.json`` and ``result.json``: both sides refuse another."""
JOB, RESULTS, RESULT = "job.json", "results", "result.json"
ADAPTER = "adapter.fseft"
HEARTBEAT_SECONDS = 1.0
"""A process that works says so at least this often, whatever else it says."""
CANCEL = "cancel"
"""The name of an empty file in the folder that asks the process to stop."""
STAY = "--stay"
"""The worker's option: do one job after another. A desk follows, and the seconds to stay idle."""
NEXT = "next"
"""A file on a desk: the path of the folder of the next job, in UTF-8."""
IDLE_SECONDS = 300.0
"""So long a process without a job waits for one."""
CHUNK_BYTES = 4 * 2**20
"""Voxels are written in pieces of this size, so that whoever writes can do other things between."""
MISSING = "MissingPackage"
"""``kind`` of a ``failed`` event whose ``package`` is not installed."""


def _is_file_name(text: str) -> bool:
    return text not in ("", ".", "..") and not any(char in "/\\:\0" for char in text)


FileName = Annotated[str, Check("the name of a file in the job's folder", _is_file_name)]
Seed = Annotated[int, Check("a number from 0 to 2^64 - 1", lambda n: 0 <= n < 2**64)]


@dataclass(frozen=True)
class ArrayFile:
    """A ``.npy`` file in the job folder and where its voxels (i, j, k) lie.

    Attributes:
        file: its name. affine: 4x4, voxel indices to RAS mm in the world, parent transforms
            included; float64, exact in JSON.
        modality: ``CT``, ``MR`` or None where nobody knows.
    """

    file: FileName
    affine: Annotated[
        list[list[float]],
        Check("a 4x4 matrix", lambda rows: [len(row) for row in rows] == [4] * 4),
    ]
    modality: Literal["CT", "MR"] | None = None


@dataclass(frozen=True)
class MaskFile:
    """One structure in a label array: the voxels that equal ``value``.

    The array may be cropped, and may lie on another grid than the volume's.
    """

    structure: str
    labels: ArrayFile
    value: int = 1


@dataclass(frozen=True)
class SupportFiles:
    """One annotated volume. Masks of one structure add up."""

    volume: ArrayFile
    masks: list[MaskFile]


@dataclass(frozen=True)
class TrainJob:
    """Options as those of :class:`FewShotSegLib.core.options.AdaptOptions`.

    Leaves ``results/adapter.fseft``.

    ``continue_from`` is the file of an adapter to begin with, in the folder: ``settings`` are then
    those that differ from a training that goes on. ``decoder`` None is the method's own choice.
    ``settings`` are the fields of ``TrainingSettings`` that differ from the method's; ``priors``
    are by structure name.
    """

    supports: list[SupportFiles]
    structures: list[Structure]
    model: str
    method: str = "adapter"
    decoder: str | None = None
    preset: Literal["own", "published"] = "own"
    features: Literal["multi", "last"] = "multi"
    modality: Literal["auto", "CT", "MR"] = "auto"
    seed: Seed = 0
    settings: dict[str, int | float | bool | None] = field(default_factory=dict)
    priors: dict[str, PriorChange] = field(default_factory=dict)
    exclusive: bool = True
    device: str = "auto"
    cache: str | None = None
    sparse: Literal["auto", "axial", "coronal", "sagittal"] | None = None
    validate: bool = True
    effort: Literal["quick", "default", "best"] = "default"
    continue_from: FileName | None = None

    def options(self) -> AdaptOptions:
        """The same as :func:`FewShotSegLib.pipeline.adapt` takes it.

        Raises:
            InputError: a value is none that the option can have.
        """
        given = shared_fields(AdaptOptions, self) | {"settings": {}, "priors_ml": self.priors}
        options = AdaptOptions(**given)
        if self.continue_from is not None:
            return replace(options, settings=dict(self.settings))
        settings = {**options.training.to_json(), **self.settings}
        settings = from_json(TrainingSettings, settings, "'settings' of the job")
        return replace(options, settings=settings)


@dataclass(frozen=True, kw_only=True)
class SegmentFields:
    """How queries are segmented: options as those of
    :class:`FewShotSegLib.core.options.SegmentOptions`; the adapter is in the folder of the job."""

    adapter: FileName = ADAPTER
    model: str | None = None
    transductive: bool = True
    largest_component: bool = False
    priors: dict[str, PriorChange] = field(default_factory=dict)
    seed: Seed = 0
    device: str = "auto"
    cache: str | None = None

    def options(self) -> SegmentOptions:
        """The same as :func:`FewShotSegLib.pipeline.segment` takes it.

        Raises:
            InputError: a value is none that the option can have.
        """
        return SegmentOptions(**shared_fields(SegmentOptions, self) | {"priors_ml": self.priors})


@dataclass(frozen=True)
class SegmentJob(SegmentFields):
    """Segment a query.

    Leaves label arrays cropped to their structures, and ``uncertainty.npy`` if asked for (uint8,
    100 where a probability is one half, 0 where it is 0 or 1).
    """

    query: ArrayFile
    uncertainty: bool = False


@dataclass(frozen=True)
class QueryPath:
    """Where a query's file is, or a folder of queries; of several DICOM series in a folder, which
    (its SeriesInstanceUID), and what it is called."""

    path: str
    series: str = ""
    description: str = ""


@dataclass(frozen=True)
class FolderJob(SegmentFields):
    """Segment files, what is in folders, and DICOM series, as the command ``segment`` does.

    Results, ``report.json``, table and page are written to ``out`` and stay there, however the job
    ends; what is there already is not done again.
    """

    queries: list[QueryPath]
    out: str


@dataclass(frozen=True)
class SuggestJob:
    """Rank volumes by what annotating them would bring.

    Leaves their order with reasons in ``result.json``: see :func:`read_suggestions`.

    Attributes:
        volumes: to be ranked. annotated: images that are annotated already.
        adapter: trained on what is annotated so far, in the folder; None before there is one.
        model: with an adapter, another installation of its model; None is its own.
    """

    volumes: list[ArrayFile]
    annotated: list[ArrayFile] = field(default_factory=list)
    adapter: FileName | None = None
    model: str | None = None
    modality: Literal["auto", "CT", "MR"] = "auto"
    device: str = "auto"
    cache: str | None = None


@dataclass(frozen=True)
class DevicesJob:
    """Which devices there are, with their memory, and which version of what is installed."""


@dataclass(frozen=True)
class PhantomsJob:
    """Synthetic patients for trying things out, written to ``folder`` as image and label files."""

    folder: str
    count: Annotated[int, Check("a number from 1 to 1000", lambda n: 1 <= n <= 1000)] = 4
    seed: Seed = 0


@dataclass(frozen=True)
class DownloadJob:
    """Fetch a foundation model's weights over https, check their hash, put them in their place."""

    model: str


@dataclass(frozen=True)
class ImportJob:
    """Copy a foundation model's weights from a file, checked as a download is; ``file`` stays."""

    model: str
    file: str


@dataclass(frozen=True)
class AddJob:
    """Make a model of another program's files usable: a folder, or a file; ``path`` stays.

    Attributes:
        answers: fields of ``core.model_answers.Answers`` by name.
    """

    path: str
    answers: dict[str, str] = field(default_factory=dict)


Job = (
    TrainJob
    | SegmentJob
    | FolderJob
    | SuggestJob
    | DevicesJob
    | PhantomsJob
    | DownloadJob
    | ImportJob
    | AddJob
)
KINDS: dict[str, type] = {
    "train": TrainJob,
    "segment": SegmentJob,
    "folder": FolderJob,
    "suggest": SuggestJob,
    "devices": DevicesJob,
    "phantoms": PhantomsJob,
    "download": DownloadJob,
    "import": ImportJob,
    "add": AddJob,
}


@dataclass(frozen=True)
class SegmentFiles:
    """One structure of a result: masks cropped to a box whose first voxel is ``offset``.

    A file that is None stands for an empty mask; ``unrefined`` is None too where transduction
    changed nothing or was off (``same`` tells).
    """

    structure: Structure
    file: FileName | None
    offset: tuple[int, int, int]
    unrefined: FileName | None
    unrefined_offset: tuple[int, int, int]
    same: bool


@dataclass(frozen=True)
class SuggestedVolume:
    """One volume of a ranking, the first to annotate first.

    Attributes:
        number: of the volume in the job, from 1.
        reasons: why it is where it is; others are called ``Volume N`` in them, by their number.
        dice: what the adapter is expected to reach on it, of ``structure``; None where not known.
        problem: why it has no place in the order; else empty.
    """

    number: Annotated[int, Check("the number of a volume", lambda n: n > 0)]
    reasons: list[str] = field(default_factory=list)
    dice: float | None = None
    structure: str = ""
    problem: str = ""


def kind_of(job: Job) -> str:
    """``train``, ``segment``, ..."""
    return next(kind for kind, cls in KINDS.items() if type(job) is cls)


def write_job(folder: Path, job: Job) -> None:
    """Write ``job.json``: last of all that a job needs, and in one step.

    The writing process becomes the caller, without which the job's process does not go on.
    """
    head = {"format": FORMAT, "kind": kind_of(job), "caller": os.getpid()}
    write_json(folder / JOB, {**head, **asdict(job)})


def hand_next(desk: Path, folder: Path) -> None:
    """Put a job on the desk of a process that stays; its ``job.json`` is complete.

    Raises:
        OSError: the desk is gone, and its process with it.
    """
    temporary = desk / f"{NEXT}-unfinished"
    temporary.write_text(str(folder.absolute()), encoding="utf-8")
    os.replace(temporary, desk / NEXT)


def take_next(desk: Path) -> Path | None:
    """The folder of the job on a desk, which is taken off it; None where there is none."""
    try:
        text = (desk / NEXT).read_text(encoding="utf-8")
        (desk / NEXT).unlink()
    except OSError:
        return None
    return Path(text)


def read_job(folder: Path) -> tuple[Job, int]:
    """The job in a folder, and the id of the process that wrote it.

    Raises:
        InputError: there is none, or it was written by another version.
    """
    try:
        data = load_json(folder / JOB, "job")
        head = from_json(_Head, data, "")
        own = {key: value for key, value in data.items() if key not in vars(head)}
        return from_json(KINDS[head.kind], own, ""), head.caller
    except InputError as error:
        raise InputError(
            f"The job in {folder} can't be read ({str(error).rstrip('.')}). The module and its "
            "engine are of different versions: install both again."
        ) from error


@dataclass(frozen=True)
class _Head:
    """What every ``job.json`` begins with."""

    OTHERS: ClassVar[bool] = True
    format: Annotated[int, Check(f"{FORMAT}", lambda n: n == FORMAT)]
    kind: Literal[
        "train", "segment", "folder", "suggest", "devices", "phantoms", "download", "import", "add"
    ]
    caller: Annotated[int, Check("the id of a process", lambda n: 0 < n < 2**31)]


def array_steps(path: Path, array: np.ndarray) -> Iterator[int]:
    """Write an array (i, j, k) as ``.npy`` in pieces; yields the bytes written after each.

    Slicer's arrays have i running fastest: they are written as they lie, in Fortran order.
    """
    yield from moving_array_steps(path, lambda: array)


def moving_array_steps(path: Path, look: Callable[[], np.ndarray]) -> Iterator[int]:
    """:func:`array_steps` of an array that may be elsewhere after each piece, as VTK's may.

    Args:
        look: gives the array as it is now; called once before each piece. Shape and dtype stay.
    """
    array = look()
    fortran = bool(array.flags.f_contiguous and not array.flags.c_contiguous)
    header = {
        "descr": np.lib.format.dtype_to_descr(array.dtype),
        "fortran_order": fortran,
        "shape": array.shape,
    }
    size, contiguous = array.nbytes, fortran or bool(array.flags.c_contiguous)
    if not contiguous:
        array = np.ascontiguousarray(array)
    with open(path, "wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for start in range(0, size, CHUNK_BYTES):
            if start and contiguous:
                array = look()
            flat = (array.T if fortran else array).reshape(-1).view(np.uint8).data
            piece = flat[start : start + CHUNK_BYTES]
            stream.write(piece)
            yield len(piece)


def read_array(folder: Path, file: str) -> np.ndarray:
    """An array of the folder, mapped from disk.

    Raises:
        InputError: it is not there, outside the folder, or not a plain array.
    """
    path = folder / file
    try:
        if Path(file).name != file:
            raise ValueError("a path")
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"The array {file} of a job can't be read: {error}.") from error


def make_private(folder: Path) -> Path:
    """Make a folder that the user alone can look into."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.name == "posix":
        folder.chmod(0o700)  # whatever the umask
    return folder


def read_segments(data: Any) -> list[SegmentFiles]:
    """The ``segments`` of a ``result.json``.

    Raises:
        InputError: they are something else.
    """
    return from_json(list[SegmentFiles], data, "'segments' of a result")


def read_suggestions(data: Any) -> list[SuggestedVolume]:
    """The ``order`` of a ``result.json``, and what has no place in it at its end.

    Raises:
        InputError: it is something else.
    """
    return from_json(list[SuggestedVolume], data, "'order' of a result")
