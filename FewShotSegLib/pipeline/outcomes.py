"""What came of a list of queries, as a list that shows itself."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from ..core.data_frames import data_frame
from ..core.errors import Cancelled, InputError, in_words
from ..core.geometry import Volume
from ..core.options import SegmentOptions
from ..core.plain_text import html_table
from ..core.quantities import ml_text
from ..io.queries import find_queries
from ..io.results import EXTENSIONS
from .adapter_file import TrainedAdapter
from .batch import Outcome, segment_each
from .inputs import PathLike
from .rows import COLUMNS, report_rows
from .segmentation import segment


class Outcomes(list[Outcome]):
    """An :class:`Outcome` for each query, in their order; a notebook shows them as a table."""

    def __repr__(self) -> str:
        failed = [outcome for outcome in self if outcome.error is not None]
        lines = [f"<{len(self)} volumes, {len(failed)} failed>"]
        lines += [f"{o.name}: {o.error or _volumes(o)}" for o in self]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        header = ["volume", "structure", "ml", "verdict", "expected Dice", "reasons"]
        rows = []
        for row in self._rows():
            dice, ml = row.get("expected_dice"), row.get("ml")
            rows.append(
                [
                    row["volume"],
                    row.get("structure", ""),
                    "" if ml is None else ml_text(ml),
                    row.get("verdict", "failed"),
                    "" if dice is None else f"{dice:.2f}",
                    row.get("reasons") or row.get("error", ""),
                ]
            )
        return html_table(header, rows)

    def to_pandas(self) -> Any:
        """A ``DataFrame`` with a row a volume and structure, as ``volumes.csv`` has them.

        Raises:
            InputError: pandas is not installed.
        """
        return data_frame(self._rows(), COLUMNS)

    def _rows(self) -> Iterator[dict[str, Any]]:
        for outcome in self:
            if outcome.error is not None:
                yield {"volume": outcome.name, "error": str(outcome.error)}
            elif outcome.report is not None:
                yield from report_rows(outcome.name, outcome.out, outcome.report)


def _volumes(outcome: Outcome) -> str:
    entries = (outcome.report or {}).get("structures", {})
    return ", ".join(f"{name} {ml_text(entry['volume_ml'])} ml" for name, entry in entries.items())


def segment_list(
    adapter: TrainedAdapter | PathLike,
    queries: Sequence[PathLike | Volume],
    out: PathLike | None = None,
    options: SegmentOptions | None = None,
    **more: Any,
) -> Outcomes:
    """Segment several queries; one that fails costs no other, and its outcome has the error.

    All results stay in memory: for many large volumes :func:`.batch.segment_each` gives one after
    the other.

    Args:
        queries: image files, DICOM folders, folders of these; and volumes in memory, which have no
            name that a file could have.
        out: a folder for the results, if they are to be written: see :func:`.batch.segment_each`.
        options, more: of :func:`.segmentation.segment`, the same for all.

    Raises:
        InputError, ModelError: the adapter, its model or the names can't be used.
        Cancelled: the user stopped.
    """
    trained = adapter if isinstance(adapter, TrainedAdapter) else TrainedAdapter.load(adapter)
    paths = [query for query in queries if not isinstance(query, Volume)]
    if out is not None:
        if os.fspath(out).lower().endswith(EXTENSIONS):
            raise InputError(
                f"{os.fspath(out)} is a file's name, and a list of queries needs a folder for its "
                "results. Give one query, or a folder."
            )
        if len(paths) < len(queries):
            raise InputError(
                "Volumes in memory have no names to be written by. Give one after the other, each "
                "with its own out, or none at all."
            )
        return Outcomes(segment_each(trained, paths, out, options, **more))
    trained.find_model(SegmentOptions.of(options, **_options(more)).model)
    outcomes = Outcomes()
    for number, query in enumerate(queries, 1):
        if isinstance(query, Volume):
            outcomes.append(_outcome(trained, query, f"volume {number}", options, more))
            continue
        for found in find_queries([query]):
            outcomes.append(_outcome(trained, found.query, found.name, options, more))
    return outcomes


def _options(more: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in more.items() if key not in ("supports", "runtime")}


def _outcome(
    trained: TrainedAdapter,
    query: PathLike | Volume,
    name: str,
    options: SegmentOptions | None,
    more: dict[str, Any],
) -> Outcome:
    place = name if isinstance(query, Volume) else os.fspath(query)
    try:
        return Outcome(place, "", segment(trained, query, None, options, **more), name=name)
    except (Cancelled, BrokenPipeError):  # the user; whoever listens to the events
        raise
    except Exception as error:
        return Outcome(place, "", error=in_words(error), name=name)
