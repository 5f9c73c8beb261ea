"""Queries segmented on a Dask cluster, into one folder.

A worker writes a result into a folder of its own within a hidden one beside the results. Where it
is complete the coordinator moves it to its place together with its report. So a worker that ends
in the middle leaves nothing that counts, and no two processes write into the folder's report. Once
the coordinator has gone the hidden folder goes too, which workers notice: they stop.
"""

from __future__ import annotations

import math
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..compute.cluster import Cluster
from ..compute.transaction import Transaction, recover
from ..core.atomic import require_writable
from ..core.errors import FewShotSegError, InputError, in_words
from ..core.events import make_event
from ..core.options import SegmentOptions
from ..core.plain_text import path_text
from ..io.queries import DicomSeries, Found
from ..overlay.thumbnail import draw_thumbnail
from .adapter_file import TrainedAdapter
from .batch import Outcome, require_ours, result_paths
from .inputs import PathLike
from .report import NAME as REPORT
from .report import commit_with_report, read_reports
from .runtime import Runtime
from .segmentation import segment, work_key

PICTURE, WAITED_FOR = ".picture.jpg", "waited-for"
SECONDS_BETWEEN_LOOKS = 1.0


@dataclass(frozen=True)
class SegmentTask:
    """What a worker is to do with one query. All paths are absolute.

    Attributes:
        name: of the result's file. workspace: where the worker makes a folder for it.
        done: the ``work`` of a result of before; empty where there is none.
        picture: whether one is to be drawn.
    """

    adapter: str
    query: str | os.PathLike[str]
    name: str
    workspace: str
    options: SegmentOptions
    supports: tuple[tuple[str, str], ...]
    device: str
    cache: str | None
    cache_bytes: int
    done: str
    picture: bool


@dataclass(frozen=True)
class Segmented:
    """What a worker has to say.

    Attributes:
        folder: where the files are; None where a result of before is the same.
        report: of the result. warnings: sentences.
    """

    folder: str | None = None
    report: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()


def segment_on(
    cluster: Cluster,
    adapter: PathLike,
    queries: Sequence[Found],
    out: PathLike,
    options: SegmentOptions,
    *,
    runtime: Runtime | None = None,
    **how: Any,
) -> Iterator[Outcome]:
    """As :func:`.batch.segment_each`, on a cluster; outcomes come as they are done.

    The file system is shared: adapter, queries, ``out`` and a ``cache`` have the same paths on all
    machines.

    Args:
        adapter: the path of its file.
        how: ``supports`` as pairs of paths; ``format`` and ``resume`` as there; ``pictures``,
            whether outcomes have one.

    Raises:
        InputError, ModelError, StorageError: the adapter, its model, the names or the folder can't
            be used: no query is read.
    """
    runtime = runtime or Runtime()
    trained = TrainedAdapter.load(adapter)
    trained.find_model(options.model)
    paths = result_paths(queries, out, trained.exclusive, how.get("format"))
    for path in paths:
        require_writable(path)
    recover(out)
    reports = read_reports(Path(out) / REPORT)
    with Transaction(out) as scratch:
        workspace = scratch.workspace()
        (workspace / WAITED_FOR).touch()
        jobs: list[SegmentTask] = []
        places: list[tuple[Found, str]] = []
        for found, path in zip(queries, paths, strict=True):
            name = os.path.basename(path)
            before = reports.get(path_text(name))
            try:
                there = require_ours(path, before)
            except InputError as error:
                yield Outcome(found.query, path, error=error, name=found.name)
                continue
            places.append((found, path))
            known = before if there and how.get("resume") else None
            jobs.append(
                SegmentTask(
                    adapter=os.path.abspath(adapter),
                    query=_absolute(found.query),
                    name=name,
                    workspace=str(workspace),
                    options=options,
                    supports=tuple(
                        (os.path.abspath(a), os.path.abspath(b)) for a, b in how.get("supports", ())
                    ),
                    device=runtime.device,
                    cache=None if runtime.cache is None else os.path.abspath(runtime.cache),
                    cache_bytes=runtime.cache_bytes,
                    done=(known or {}).get("work", ""),
                    picture=bool(how.get("pictures")),
                )
            )
        runtime.events(make_event("phase", phase="volumes", total=len(jobs)))
        for count, (number, said) in enumerate(cluster.run(segment_task, jobs), 1):
            found, path = places[number]
            yield _outcome(found, path, said, reports, runtime)
            runtime.events(make_event("progress", phase="volumes", done=count, total=len(jobs)))


def _outcome(
    found: Found, path: str, said: Segmented | FewShotSegError, reports: Any, runtime: Runtime
) -> Outcome:
    """What came of a query, its files in their places."""
    if isinstance(said, FewShotSegError):
        return Outcome(found.query, path, error=said, name=found.name)
    for message in said.warnings:  # several volumes are worked on side by side
        runtime.events(make_event("warning", message=f"{found.name}: {message}"))
    if said.folder is None:
        before = reports[path_text(os.path.basename(path))]
        return Outcome(found.query, path, name=found.name, before=before)
    assert said.report is not None
    picture = Path(said.folder) / PICTURE
    try:
        shown = picture.read_bytes() if picture.is_file() else b""
        with Transaction(Path(path).parent) as files:
            for child in sorted(Path(said.folder).iterdir()):
                if child.name not in (REPORT, PICTURE):
                    os.replace(child, files.path(child.name))
            commit_with_report(files, path, said.report)
    except (FewShotSegError, OSError) as error:
        return Outcome(found.query, path, error=in_words(error), name=found.name)
    return Outcome(found.query, path, name=found.name, elsewhere=(said.report, shown))


def _absolute(query: PathLike) -> PathLike:
    if isinstance(query, DicomSeries):
        return DicomSeries(Path(os.path.abspath(query)), query.uid, query.description)
    return os.path.abspath(query)


def segment_task(job: SegmentTask) -> Segmented:
    """On a worker: segment one query.

    Raises:
        FewShotSegError: as of :func:`.segmentation.segment`.
        Cancelled: nobody waits for it any more.
    """
    trained = _adapter(job.adapter, os.stat(job.adapter).st_mtime_ns)
    if job.done and job.done == work_key(trained, job.query, job.options, job.supports):
        return Segmented()
    workspace = Path(job.workspace)
    folder, gone = workspace / secrets.token_hex(8), _gone(workspace / WAITED_FOR)
    warnings: list[str] = []

    def events(event: dict[str, Any]) -> None:
        if event["event"] == "warning":
            warnings.append(event["message"])

    runtime = Runtime(job.device, job.cache, job.cache_bytes, events, gone)
    runtime.check()
    folder.mkdir(parents=True)
    how: dict[str, Any] = {"supports": job.supports, "runtime": runtime}
    try:
        result = segment(trained, job.query, folder / job.name, job.options, **how)
        runtime.check()
    except BaseException:
        _tidy(folder)
        raise
    if job.picture and result.image is not None:
        try:
            picture = draw_thumbnail(result.image, result.masks, trained.structures)
            (folder / PICTURE).write_bytes(picture)  # it shows a patient: it takes no network
        except (ValueError, OSError) as error:
            warnings.append(f"There is no picture of {job.name}. {error}")
    return Segmented(str(folder), result.report, tuple(warnings))


def _tidy(folder: Path) -> None:
    """Take a folder away whose result is not wanted; and those around it where they were made again
    after the coordinator had gone."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # they are in use, or have gone
        folder.parent.rmdir()
        folder.parent.parent.rmdir()


def _gone(mark: Path) -> Callable[[], bool]:
    """Asks whether a file is gone, now and then."""
    last: list[Any] = [-math.inf, False]

    def gone() -> bool:
        if time.monotonic() - last[0] > SECONDS_BETWEEN_LOOKS:
            last[:] = [time.monotonic(), not mark.exists()]
        return bool(last[1])

    return gone


@lru_cache(maxsize=1)
def _adapter(path: str, changed: int) -> TrainedAdapter:
    """The adapter of this worker's last query, which is most often that of the next."""
    return TrainedAdapter.load(path)
