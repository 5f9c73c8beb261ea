"""Tables of the documentation that come from the records: ``python tools/tables.py --write``.

A Markdown file has one between ``<!-- table NAME: tools/tables.py -->`` and
``<!-- end of table -->``.
Without ``--write`` it names the files whose tables are old, and ends with status 1.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from FewShotSegLib.core.architecture_catalog import ARCHITECTURES  # noqa: E402
from FewShotSegLib.core.method_catalog import DEFAULT_METHOD, METHODS  # noqa: E402

FOLDERS = ("Documentation", "FewShotSegLib/Resources/Models")
NETWORKS = {"": "all", "transformer": "transformers", "convolutional": "convolutional encoders"}
TABLE = re.compile(
    r"(?P<begin><!-- table (?P<name>\w+): tools/tables\.py -->\n).*?(?P<end><!-- end of table -->)",
    re.DOTALL,
)


def methods() -> str:
    """Every method of the project's own: what it trains, and where it has a meaning."""
    rows = [
        (
            f"`{name}`" + " (default)" * (name == DEFAULT_METHOD),
            method.details or method.explanation,
            ", ".join(method.decoders) or "-",
            NETWORKS[method.encoder],
            "-" if method.published_rate is None else f"{method.published_rate:g}",
        )
        for name, method in METHODS.own.items()
    ]
    head = ("name", "what is trained", "decoder", "on which networks", "published rate")
    return _table(head, rows)


def architectures() -> str:
    """Every architecture of the project's own, and what an entry says of it."""
    rows = [
        (f"`{name}`", record.explanation, record.encoder, record.options)
        for name, record in ARCHITECTURES.own.items()
    ]
    return _table(("`name`", "network", "encoder", "further fields"), rows)


TABLES = {"methods": methods, "architectures": architectures}


def pages() -> Iterator[Path]:
    """The files that have a table."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.md")):
            if TABLE.search(path.read_text(encoding="utf-8")):
                yield path


def renewed(text: str) -> str:
    """A page with its tables as the records have them."""
    return TABLE.sub(lambda m: m["begin"] + TABLES[m["name"]]() + m["end"], text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables, or tell which are old."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the new ones in their places")
    write, old = parser.parse_args(arguments).write, 0
    for path in pages():
        text = path.read_text(encoding="utf-8")
        if renewed(text) != text:
            old += not write
            print(f"{path.relative_to(ROOT)}: {'written' if write else 'old'}")
            if write:
                path.write_text(renewed(text), encoding="utf-8")
    return 1 if old else 0


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
