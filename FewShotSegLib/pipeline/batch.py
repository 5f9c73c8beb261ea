"""Several queries, one after the other: each fails alone, and the others are done."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..compute.transaction import recover
from ..core.errors import Cancelled, FewShotSegError, InputError, in_words
from ..core.options import SegmentOptions
from ..core.plain_text import path_text
from ..io.volumes import extension_of
from .adapter_file import TrainedAdapter
from .inputs import PathLike, SupportLike
from .report import NAME as REPORT
from .report import read_reports
from .runtime import Runtime
from .segmentation import Segmentation, segment


@dataclass(frozen=True)
class Outcome:
    """What came of one query.

    Attributes:
        query: as it was given. out: the path of its result.
        result: None where it failed. error: why, or None.
    """

    query: PathLike
    out: str
    result: Segmentation | None = None
    error: FewShotSegError | None = None


def result_paths(queries: Sequence[PathLike], folder: PathLike, exclusive: bool) -> list[str]:
    """Where in a folder each query's result goes: ``STEM_seg.nii.gz``.

    ``STEM.seg.nrrd`` where structures may overlap.

    Raises:
        InputError: two queries have one name.
    """
    paths: dict[str, PathLike] = {}
    for query in queries:
        name = Path(query).name
        stem = name[: -len(extension_of(name) or "") or None]
        path = os.path.join(folder, f"{stem}_seg.nii.gz" if exclusive else f"{stem}.seg.nrrd")
        if path in paths:
            raise InputError(
                f"{paths[path]} and {query} would both be written to {path}; segment them in two "
                "runs with a folder each."
            )
        paths[path] = query
    return list(paths)


def segment_each(
    adapter: TrainedAdapter | PathLike,
    queries: Iterable[PathLike],
    out: PathLike,
    options: SegmentOptions | None = None,
    *,
    supports: Sequence[SupportLike] = (),
    runtime: Runtime | None = None,
    **changes: Any,
) -> Iterator[Outcome]:
    """Segment queries into a folder, one after the other, as they are asked for.

    A query that fails, whatever the reason, costs no other: its outcome has the error. A file that
    is there already is replaced only where the folder's report says that FewShotSeg made it: people
    keep their own segmentations under such names.

    Args:
        queries: image files or DICOM folders. out: the folder; it is made where it is missing.
        options, supports, runtime, changes: of :func:`.segmentation.segment`, the same for all.

    Raises:
        InputError, ModelError: the adapter, its model or the names can't be used: no query is read.
        Cancelled: the user stopped; results that are complete stay.
    """
    trained = adapter if isinstance(adapter, TrainedAdapter) else TrainedAdapter.load(adapter)
    queries = list(queries)
    paths = result_paths(queries, out, trained.exclusive)
    options = SegmentOptions.of(options, **changes)
    trained.find_model(options.model)
    recover(out)  # a run that was killed may have left a result whose report is not in place yet
    ours = read_reports(Path(out) / REPORT)
    one = partial(segment, trained, options=options, supports=supports, runtime=runtime)
    return _outcomes(one, list(zip(queries, paths, strict=True)), set(ours))


def _outcomes(
    one: Callable[[PathLike, PathLike], Segmentation],
    work: Sequence[tuple[PathLike, str]],
    ours: set[str],
) -> Iterator[Outcome]:
    for query, path in work:
        try:
            if os.path.lexists(path) and path_text(os.path.basename(path)) not in ours:
                raise InputError(
                    f"{path} is there already, and {REPORT} beside it does not say that FewShotSeg "
                    "made it; choose another folder."
                )
            outcome = Outcome(query, path, one(query, path))
        except (Cancelled, BrokenPipeError):  # the user; whoever listens to the events
            raise
        except Exception as error:
            outcome = Outcome(query, path, error=in_words(error))
        yield outcome
        del outcome  # its masks and probabilities, before those of the next


def summary(failed: Sequence[Outcome], count: int) -> str:
    """How many of so many queries were segmented, and which failed for what reason."""
    done = count - len(failed)
    rest = f"the other {done} {'was' if done == 1 else 'were'}" if done else "none was"
    lines = [f"{len(failed)} of {count} queries could not be segmented; {rest}."]
    for outcome in failed:
        query, why = os.fspath(outcome.query), str(outcome.error)
        lines.append(f"  {why}" if why.startswith(query) else f"  {query}: {why}")
    return "\n".join(lines)
