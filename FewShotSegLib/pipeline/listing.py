"""What became of many volumes: a table for programs (CSV), and a page for people (HTML)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.atomic import replacing, require_writable
from ..core.errors import ClusterError, FewShotSegError, InputError
from ..core.events import make_event
from ..core.plain_text import path_text
from ..core.quantities import ml_text
from ..core.result_formats import volume_name
from ..core.tables import write_csv
from ..core.trust import VERDICTS, worst
from ..overlay.contact_sheet import FAILED, MARK, Card, Line, contact_sheet
from ..overlay.thumbnail import comment_of, draw_thumbnail, with_comment
from .adapter_file import TrainedAdapter
from .batch import Outcome
from .inputs import PathLike
from .newest import newest_results
from .report import NAME as REPORT
from .report import read_reports
from .rows import COLUMNS, judgements, report_rows
from .runtime import Runtime

TABLE, PAGE, PICTURES = "volumes.csv", "volumes.html", "pictures"


class Listing:
    """The table and the page of a folder of results, which grow with them.

    They have the newest result of each volume that the folder's report knows, and the failures of
    this run; but where a cluster failed, and not the volume, its result of before stands. What a
    volume's older results were, in another format, is in ``report.json`` alone.

    Args:
        folder: of the results. pictures: whether each gets one.

    Raises:
        InputError: a file of another kind is in the way. StorageError: it can't be written to.
    """

    def __init__(self, folder: PathLike, pictures: bool = True) -> None:
        self.folder, self.pictures = Path(folder), pictures
        self._failed: dict[str, Outcome] = {}
        self._names: dict[str, str] = {}
        for name, mark in ((TABLE, ",".join(COLUMNS)), (PAGE, MARK)):
            _require_ours(self.folder / name, mark)
            require_writable(self.folder / name)

    def add(self, outcome: Outcome, trained: TrainedAdapter, runtime: Runtime) -> None:
        """What came of a query; the table is written anew. A picture that can't be drawn, or
        written, is a warning: the result is good."""
        key = path_text(Path(outcome.out).name)
        self._names[key] = outcome.name
        self._failed.pop(key, None)
        if outcome.error is not None:
            self._failed[key] = outcome
        elif self.pictures:
            try:
                picture = _picture_of(outcome, trained)
                if picture:
                    with replacing(self._picture(key)) as partial:
                        partial.write_bytes(with_comment(picture, _mark(key, outcome.report)))
            except (FewShotSegError, ValueError) as error:
                message = f"There is no picture of {outcome.name}. {error}"
                runtime.events(make_event("warning", message=message))
        self.write_table()

    def write_table(self) -> Path:
        """The CSV, worst first."""
        results, failures = self._known()
        rows = [row for key, report in results for row in report_rows(self._name(key), key, report)]
        rows += [{"volume": self._name(k), "error": str(o.error)} for k, o in failures.items()]
        path = self.folder / TABLE
        write_csv(path, COLUMNS, rows)
        return path

    def write_page(self) -> Path:
        """The page of HTML, worst first, what failed before all. Its title is the folder's name:
        results of several adapters may be in it."""
        results, failures = self._known()
        cards = [
            Card(self._name(key), FAILED, note=str(outcome.error))
            for key, outcome in failures.items()
        ]
        for key, report in results:
            picture = self._picture_beside(key, report) if self.pictures else b""
            cards.append(_card(self._name(key), report, picture))
        adapters = len({report.get("adapter", {}).get("sha256") for _, report in results})
        by = f" by {adapters} adapters" if adapters > 1 else ""
        subtitle = f"{len(results)} segmented{by}, {len(failures)} failed; worst first"
        title = self.folder.resolve().name or str(self.folder)
        path = self.folder / PAGE
        with replacing(path) as partial:
            partial.write_text(contact_sheet(title, subtitle, cards), encoding="utf-8")
        return path

    def _known(self) -> tuple[list[tuple[str, Mapping[str, Any]]], dict[str, Outcome]]:
        """Result file and report of each volume, worst first; and failures by result file, without
        those that say nothing of a volume that has a result."""
        newest = newest_results(self.folder, read_reports(self.folder / REPORT), self._names)
        standing = {volume_name(key) for key in newest if (self.folder / key).exists()}
        failures = {
            key: outcome
            for key, outcome in self._failed.items()
            if not (isinstance(outcome.error, ClusterError) and volume_name(key) in standing)
        }
        failed = {volume_name(key) for key in failures}
        known = [(k, v) for k, v in newest.items() if volume_name(k) not in failed]
        return sorted(known, key=lambda p: (worst(judgements(p[1])), p[0])), failures

    def _name(self, key: str) -> str:
        return self._names.get(key) or volume_name(key)

    def _picture(self, key: str) -> Path:
        return self.folder / PICTURES / f"{volume_name(key)}.jpg"

    def _picture_beside(self, key: str, report: Mapping[str, Any]) -> bytes:
        """The picture of this very result; empty where there is none. There is one a volume, which
        may be of another of its results."""
        path = self._picture(key)
        if not path.is_file():
            return b""
        picture = path.read_bytes()
        # Pictures of results of before reports had a time say nothing.
        wanted = _mark(key, report) if "time" in report else ""
        return picture if comment_of(picture) == wanted else b""


def _mark(key: str, report: Mapping[str, Any] | None) -> str:
    """What a picture says of the result that it is of."""
    return f"{key} {(report or {}).get('time', '')}"


def _picture_of(outcome: Outcome, trained: TrainedAdapter) -> bytes:
    """As a JPEG; empty of a result of before.

    Raises:
        ValueError: it can't be drawn.
    """
    if outcome.elsewhere is not None:
        return outcome.elsewhere[1]
    result = outcome.result
    if result is None:
        return b""
    assert result.image is not None  # every new one has it
    return draw_thumbnail(result.image, result.masks, trained.structures)


def _card(name: str, report: Mapping[str, Any], picture: bytes) -> Card:
    entries = report.get("structures", {})
    found = judgements(report)
    lines = [
        Line(
            structure,
            trust["verdict"],
            ml_text(entry["volume_ml"]),
            "" if trust["dice"] is None else f"{trust['dice']:.2f}",
            trust["reasons"],
        )
        for (structure, entry), trust in zip(entries.items(), found, strict=True)
    ]
    place = min((VERDICTS.index(trust["verdict"]) for trust in found), default=0)
    return Card(name, VERDICTS[place], lines, picture=picture)


def _require_ours(path: Path, mark: str) -> None:
    """Refuse to write over another's file.

    Raises:
        InputError: there is one.
    """
    if not path.exists():
        return
    try:
        with path.open(encoding="utf-8-sig") as stream:
            ours = mark in stream.read(4096)
    except (OSError, UnicodeDecodeError):
        ours = False
    if not ours:
        raise InputError(
            f"{path} is there already and is not FewShotSeg's; choose another output folder."
        )
