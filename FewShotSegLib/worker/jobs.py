"""One job from its folder to its results: ``adapt`` and ``segment`` of the pipeline on arrays.

Each loads what it needs and no more: torch takes a second or two, MONAI as long again.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial, singledispatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..core.errors import Cancelled
from ..core.events import EventSink, make_event
from ..core.job_protocol import (
    ADAPTER,
    RESULTS,
    AddJob,
    ArrayFile,
    DevicesJob,
    DownloadJob,
    FolderJob,
    ImportJob,
    Job,
    PhantomsJob,
    SegmentJob,
    SuggestedVolume,
    SuggestJob,
    TrainJob,
    make_private,
)
from .outputs import write_result, write_segmentation

if TYPE_CHECKING:
    from ..pipeline.runtime import Runtime

Cancel = Callable[[], bool]


@singledispatch
def run_job(job: Job, folder: Path, events: EventSink, cancel: Cancel) -> Path:
    """Do a job; the path of its ``result.json``, which is written last.

    Raises:
        FewShotSegError: as :func:`FewShotSegLib.pipeline.adapt` and ``segment`` do.
    """
    raise TypeError(f"no job: {type(job).__name__}")


@run_job.register
def _train(job: TrainJob, folder: Path, events: EventSink, cancel: Cancel) -> Path:
    from ..pipeline import adapt
    from .inputs import read_support

    options = job.options()
    supports = [
        read_support(folder, files, job.structures, f"Support {number}")
        for number, files in enumerate(job.supports, 1)
    ]
    trained = adapt(
        supports,
        make_private(folder / RESULTS) / ADAPTER,
        options=options,
        continue_from=None if job.continue_from is None else folder / job.continue_from,
        runtime=_runtime(job, events, cancel),
    )
    return write_result(folder, "train", adapter=ADAPTER, metadata=trained.metadata())


@run_job.register
def _segment(job: SegmentJob, folder: Path, events: EventSink, cancel: Cancel) -> Path:
    from ..pipeline import segment
    from .inputs import read_volume

    start, options = time.monotonic(), job.options()
    result = segment(
        folder / job.adapter,
        read_volume(folder, job.query, "The query"),
        options=options,
        runtime=_runtime(job, events, cancel),
    )
    return write_segmentation(folder, result, round(time.monotonic() - start, 2))


@run_job.register
def _folder(job: FolderJob, folder: Path, events: EventSink, cancel: Cancel) -> Path:
    from ..io.queries import DicomSeries, find_queries
    from ..pipeline.adapter_file import TrainedAdapter
    from ..pipeline.batch import Outcome, segment_each
    from ..pipeline.listing import Listing

    trained = TrainedAdapter.load(folder / job.adapter)
    found = find_queries(
        [
            DicomSeries(Path(one.path), one.series, one.description) if one.series else one.path
            for one in job.queries
        ]
    )
    runtime = _runtime(job, _of_the_whole(events), cancel)
    listing = Listing(job.out)
    events(make_event("phase", phase="volumes", total=len(found)))
    done = 0
    failed: list[Outcome] = []
    try:
        each = segment_each(
            trained, found, job.out, options=job.options(), runtime=runtime, resume=True
        )
        for outcome in each:
            listing.add(outcome, trained, runtime)
            if outcome.error is not None:
                failed.append(outcome)
                message = f"{outcome.name} was left out: {outcome.error}"
                events(make_event("warning", message=message))
            else:
                done += 1
            count = done + len(failed)
            events(make_event("progress", phase="volumes", done=count, total=len(found)))
            del outcome
    finally:
        page = listing.write_page() if done or failed else ""
    return write_result(
        folder,
        "folder",
        done=done,
        failed=[[outcome.name, str(outcome.error)] for outcome in failed],
        page=str(page),
    )


@run_job.register
def _suggest(job: SuggestJob, folder: Path, events: EventSink, cancel: Cancel) -> Path:
    from ..pipeline.suggesting import Candidate, Images, rank
    from .inputs import read_volume

    def candidates(sources: Sequence[ArrayFile], title: str) -> list[Candidate]:
        names = [f"{title} {number}" for number in range(1, len(sources) + 1)]
        return [
            Candidate(name, partial(read_volume, folder, source, name))
            for name, source in zip(names, sources, strict=True)
        ]

    pool = candidates(job.volumes, "Volume")
    numbers = {one.name: number for number, one in enumerate(pool, 1)}

    def on_volume(done: int, total: int) -> None:
        events(make_event("progress", phase="compare", done=done, total=total))

    events(make_event("phase", phase="compare", total=len(pool) + len(job.annotated)))
    ranked = rank(
        pool,
        candidates(job.annotated, "Annotated volume"),
        folder / job.adapter if job.adapter else None,
        Images(job.model, job.modality),
        runtime=_runtime(job, _of_the_whole(events), cancel),
        on_volume=on_volume,
    )
    order = [
        SuggestedVolume(numbers[one.name], list(one.reasons), one.dice, one.structure)
        for one in ranked
    ]
    for left in ranked.left_out:
        if left.name in numbers:
            order.append(SuggestedVolume(numbers[left.name], problem=left.why))
        else:
            events(make_event("warning", message=f"{left.name} was left out: {left.why}"))
    return write_result(folder, "suggest", order=[asdict(one) for one in order])


@run_job.register
def _devices(job: DevicesJob, folder: Path, events: EventSink, cancel: Cancel) -> Path:
    from importlib.metadata import version

    import torch

    devices = []
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        devices.append(
            {
                "id": f"cuda:{number}",
                "title": f"GPU {number}: {torch.cuda.get_device_name(number)}",
                "free_bytes": free,
                "total_bytes": total,
            }
        )
    versions = {
        "fewshotseg": __version__,
        "torch": torch.__version__,
        "monai": version("monai"),
        "python": platform.python_version(),
    }
    return write_result(folder, "devices", devices=devices, versions=versions)


@run_job.register
def _phantoms(job: PhantomsJob, folder: Path, events: EventSink, cancel: Cancel) -> Path:
    from ..phantoms.patients import write_phantoms

    def on_patient(done: int, total: int) -> None:
        if cancel():
            raise Cancelled("Stopped; the patients made so far stay.")
        events(make_event("progress", phase="phantoms", done=done, total=total))

    events(make_event("phase", phase="phantoms", total=job.count))
    write_phantoms(job.folder, job.count, job.seed, on_patient=on_patient)
    return write_result(folder, "phantoms", patients=job.folder)


@run_job.register
def _download(job: DownloadJob, folder: Path, events: EventSink, cancel: Cancel) -> Path:
    from ..models.download import download

    path = download(job.model, events, cancel)
    return write_result(folder, "download", path=str(path))


@run_job.register
def _import(job: ImportJob, folder: Path, events: EventSink, cancel: Cancel) -> Path:
    from ..models.download import import_weights

    path = import_weights(job.model, job.file, events, cancel)
    return write_result(folder, "import", path=str(path))


@run_job.register
def _add(job: AddJob, folder: Path, events: EventSink, cancel: Cancel) -> Path:
    from ..models.formats.adding import Unanswered, add_model

    events(make_event("phase", phase="add", total=None))
    try:
        added = add_model(job.path, **job.answers)
    except Unanswered as open_:
        questions = [asdict(question) for question in open_.questions]
        return write_result(folder, "add", id=None, found=list(open_.facts), questions=questions)
    return write_result(folder, "add", id=added.id, found=list(added.facts), questions=[])


def _of_the_whole(events: EventSink) -> EventSink:
    """Without what says how far one volume of several is."""

    def hear(event: dict[str, Any]) -> None:
        if event["event"] in ("warning", "waiting"):
            events(event)

    return hear


def _runtime(
    job: TrainJob | SegmentJob | FolderJob | SuggestJob, events: EventSink, cancel: Cancel
) -> Runtime:
    from ..pipeline.runtime import Runtime

    return replace(Runtime(job.device, events=events, cancel=cancel), cache=job.cache)
