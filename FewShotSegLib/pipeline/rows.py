"""A result's report as rows of a table, one a structure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..core.trust import UNKNOWN, VERDICTS

COLUMNS = (
    *("volume", "structure", "ml", "verdict", "expected_dice", "lower", "upper", "reasons"),
    *("seconds", "result", "error"),
)
OF_ONE = COLUMNS[1:8]
"""Those of a single result."""
SUPPORT_WARNING = (
    "This query is one of the adapter's supports: the result says nothing of how well it works on "
    "new images."
)


def is_support(report: Mapping[str, Any]) -> bool:
    """Whether the adapter was trained on the volume of a result; older reports only warn of it."""
    return bool(report.get("is_support", SUPPORT_WARNING in report.get("warnings", ())))


def judgements(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Of each structure; one of before there were any is not known."""
    nothing: dict[str, Any] = {
        "verdict": UNKNOWN,
        "reasons": [],
        "dice": None,
        "lower": None,
        "upper": None,
    }
    found = [entry.get("trust") or nothing for entry in report.get("structures", {}).values()]
    return [trust if trust.get("verdict") in VERDICTS else nothing for trust in found]


def report_rows(name: str, result: str, report: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of a volume, by :data:`COLUMNS`.

    Args:
        name: of the volume. result: the name of its file.
    """
    entries = report.get("structures", {})
    for (structure, entry), trust in zip(entries.items(), judgements(report), strict=True):
        yield {
            "volume": name,
            "structure": structure,
            "ml": entry["volume_ml"],
            "verdict": trust["verdict"],
            "expected_dice": trust["dice"],
            "lower": trust["lower"],
            "upper": trust["upper"],
            "reasons": "; ".join(trust["reasons"]),
            "seconds": report.get("seconds", {}).get("total"),
            "result": result,
        }
