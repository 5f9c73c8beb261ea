"""Several queries, one after the other: each fails alone, and the others are done.

What was done before, by the same adapter on the same volume with the same options, is not done
again: a run that was stopped goes on where it was.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..compute.transaction import recover
from ..core.errors import Cancelled, FewShotSegError, InputError, in_words
from ..core.options import SegmentOptions
from ..core.plain_text import path_text
from ..core.result_formats import FORMATS
from ..io.queries import Found, find_queries, stem_of
from .adapter_file import TrainedAdapter
from .inputs import PathLike, SupportLike
from .report import NAME as REPORT
from .report import read_reports
from .runtime import Runtime
from .segmentation import Segmentation, segment, work_key


@dataclass(frozen=True)
class Outcome:
    """What came of one query.

    Attributes:
        query: as it was given, or found in a folder. out: the path of its result.
        result: None where it failed, or was done before. error: why it failed, or None.
        name: what the result is called by. before: the report of a result of before.
        elsewhere: of a result that another machine made, its report and its picture.
    """

    query: PathLike
    out: str
    result: Segmentation | None = None
    error: FewShotSegError | None = None
    name: str = ""
    before: Mapping[str, Any] | None = None
    elsewhere: tuple[Mapping[str, Any], bytes] | None = None

    @property
    def report(self) -> Mapping[str, Any] | None:
        """What ``report.json`` says of the result; None where there is none."""
        if self.elsewhere is not None:
            return self.elsewhere[0]
        return self.before if self.result is None else self.result.report


def result_paths(
    queries: Sequence[PathLike | Found],
    folder: PathLike,
    exclusive: bool,
    format: str | None = None,
) -> list[str]:
    """Where in a folder each query's result goes: ``STEM_seg.nii.gz``.

    ``STEM.seg.nrrd`` where structures may overlap.

    Args:
        queries: volumes, as :func:`.io.queries.find_queries` gives them; or paths, which are not
            looked into.
        format: one of :data:`.result_formats.FORMATS`; None as above.

    Raises:
        InputError: two queries have one name, or there is no such format.
    """
    if format is not None and format not in FORMATS:
        raise InputError(f"There is no format '{format}'. Known: {', '.join(FORMATS)}.")
    ending = FORMATS[format or ("nii.gz" if exclusive else "seg.nrrd")]
    paths: dict[str, PathLike] = {}
    for query in queries:
        found = query if isinstance(query, Found) else Found(stem_of(query), query)
        path = os.path.join(folder, found.name + ending)
        if path in paths:
            raise InputError(
                f"{paths[path]} and {found.query} would both be written to {path}; segment them in "
                "two runs with a folder each."
            )
        paths[path] = found.query
    return list(paths)


def segment_each(
    adapter: TrainedAdapter | PathLike,
    queries: Iterable[PathLike | Found],
    out: PathLike,
    options: SegmentOptions | None = None,
    *,
    supports: Sequence[SupportLike] = (),
    runtime: Runtime | None = None,
    resume: bool = False,
    **changes: Any,
) -> Iterator[Outcome]:
    """Segment queries into a folder, one after the other, as they are asked for.

    A query that fails, whatever the reason, costs no other: its outcome has the error. A file that
    is there already is replaced only where the folder's report says that FewShotSeg made it: people
    keep their own segmentations under such names.

    Args:
        queries: image files, DICOM folders, or folders of these (:func:`.find_queries`).
        out: the folder; it is made where it is missing.
        options, supports, runtime, changes: of :func:`.segmentation.segment`, the same for all;
            and among the changes the ``format`` of the results: ``nii.gz`` (where not given),
            ``nrrd``, ``seg.nrrd`` (where structures may overlap) or, of DICOM, ``dicom-seg``.
        resume: leave out what the folder's report says was done, of the same voxels by the same
            adapter with the same options; its outcome has the report in ``before``.

    Raises:
        InputError, ModelError: the adapter, its model or the names can't be used: no query is read.
        Cancelled: the user stopped; results that are complete stay.
    """
    trained = adapter if isinstance(adapter, TrainedAdapter) else TrainedAdapter.load(adapter)
    found: list[Found] = []
    for query in queries:
        found += [query] if isinstance(query, Found) else find_queries([query])
    paths = result_paths(found, out, trained.exclusive, changes.pop("format", None))
    options = SegmentOptions.of(options, **changes)
    trained.find_model(options.model)
    recover(out)  # a run that was killed may have left a result whose report is not in place yet
    reports = read_reports(Path(out) / REPORT)
    one = partial(segment, trained, options=options, supports=supports, runtime=runtime)
    key = partial(work_key, trained, options=options, supports=supports) if resume else None
    return _outcomes(one, key, list(zip(found, paths, strict=True)), reports)


def _outcomes(
    one: Callable[[PathLike, PathLike], Segmentation],
    key: Callable[[PathLike], str] | None,
    work: Sequence[tuple[Found, str]],
    reports: Mapping[str, Mapping[str, Any]],
) -> Iterator[Outcome]:
    for found, path in work:
        query, name = found.query, path_text(os.path.basename(path))
        before, outcome = reports.get(name), None
        try:
            there = require_ours(path, before)
            if key and there and before and "work" in before and before["work"] == key(query):
                outcome = Outcome(query, path, name=found.name, before=before)
            else:
                outcome = Outcome(query, path, one(query, path), name=found.name)
        except (Cancelled, BrokenPipeError):  # the user; whoever listens to the events
            raise
        except Exception as error:
            outcome = Outcome(query, path, error=in_words(error), name=found.name)
        yield outcome
        del outcome  # its masks and probabilities, before those of the next


def require_ours(path: str, before: Mapping[str, Any] | None) -> bool:
    """Whether a result is there already.

    Args:
        before: what the folder's report says of it.

    Raises:
        InputError: a file that is not ours is in its place.
    """
    there = os.path.lexists(path)
    if there and before is None:
        raise InputError(
            f"{path} is there already, and {REPORT} beside it does not say that FewShotSeg "
            "made it; choose another folder."
        )
    return there


def summary(failed: Sequence[Outcome], count: int) -> str:
    """How many of so many queries were segmented, and which failed for what reason."""
    done = count - len(failed)
    rest = f"the other {done} {'was' if done == 1 else 'were'}" if done else "none was"
    lines = [f"{len(failed)} of {count} queries could not be segmented; {rest}."]
    for outcome in failed:
        query, why = os.fspath(outcome.query), str(outcome.error)
        lines.append(f"  {why}" if why.startswith(query) else f"  {query}: {why}")
    return "\n".join(lines)
