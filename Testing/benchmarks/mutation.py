"""Do the tests notice a fault? Small faults are put into a copy of the sources, one at a time.

    python Testing/benchmarks/mutation.py                    all of mutants.json
    python Testing/benchmarks/mutation.py --only geometry    those of files whose path holds this
    python Testing/benchmarks/mutation.py --draw             draw mutants.json anew

A mutant is one changed place: a comparison or an operator exchanged, a number off by one, a
condition turned round, a call whose result nobody takes left out. ``mutants.json`` holds those
drawn with a fixed seed, so that two states of the tests are compared on the same faults; a mutant
whose line is there no more is listed as gone. Each runs against the tests of its file alone
(``TESTS``), in a copy of the project, until the first test fails or the time is up, both of which
count as caught. Mutants that change nothing that can be seen survive rightly; the list names them
(``why``).

Each run is forked from a process that has imported torch already: Linux and macOS only.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MUTANTS = Path(__file__).with_name("mutants.json")
SEED = 20

TESTS: dict[str, tuple[int, str]] = {
    "training/losses.py": (5, "losses pretraining_steps training"),
    "training/size_penalty.py": (4, "size_prior refinement segmenting"),
    "training/transduction.py": (8, "refinement option_values piece_reports segmenting"),
    "inference/query_sizes.py": (4, "query_sizes pieces refinement segmenting"),
    "core/geometry.py": (8, "geometry preprocessing refused_headers image_headers"),
    "core/size_prior.py": (6, "size_prior pieces refinement job old_files"),
    "core/atomic.py": (5, "atomic temporary_files transaction bad_disks"),
    "core/checksums.py": (5, "checksums untrusted_files prepared_cases"),
    "core/transaction.py": (4, "transaction temporary_files interrupted"),
    "core/settings.py": (0, "refinement option_values piece_reports segmenting"),
    "models/preprocessing.py": (8, "preprocessing preprocessing_boxes fitted_spacing"),
    "models/resampling.py": (0, "preprocessing preprocessing_boxes fitted_spacing"),
    "io/annotation_grid.py": (4, "annotation_grid annotation_files annotation_pairs"),
    "io/annotations.py": (5, "annotation_files segment_files annotation_grid"),
    "io/segment_fields.py": (3, "segment_files annotation_files untrusted_files"),
    "io/results.py": (5, "results segment_files annotation_grid bad_disks"),
    "io/slice_stack.py": (4, "dicom_stack dicom"),
    "io/dicom_folder.py": (3, "dicom dicom_stack"),
    "io/image_files.py": (3, "image_headers refused_headers read_image"),
    "io/volumes.py": (2, "read_image image_headers dicom"),
    "io/pairs.py": (4, "pairs batch"),
}
"""Of each source: how many mutants are drawn, and the test files asked, quick ones first."""

SWAPPED = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.In: "not in",
    ast.NotIn: "in",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "/",
    ast.Div: "*",
    ast.And: "or",
    ast.Or: "and",
}


@dataclass(frozen=True)
class Mutant:
    """One changed place.

    Attributes:
        file: below ``FewShotSegLib``. line, text: where it is, and the whole line there; the line
            is the nearest one with that text if the file has changed.
        start, end: columns of the line; ``new`` takes the place of what is between them.
        why: what is the same with it, of a mutant that behaves as the original.
    """

    file: str
    line: int
    text: str
    start: int
    end: int
    new: str
    why: str = ""

    def __str__(self) -> str:
        was = self.text[self.start : self.end]
        return f"{self.file}:{self.line}: {was} -> {self.new}    {self.text.strip()}"


def mutants_of(file: str) -> Iterator[Mutant]:
    """Every mutant of a source whose changed place lies on one line."""
    text = (ROOT / "FewShotSegLib" / file).read_text(encoding="utf-8")
    lines = text.splitlines()
    tree = ast.parse(text)
    for parent in ast.walk(tree):
        for child in ast.iter_child_nodes(parent):
            child.parent = parent  # type: ignore[attr-defined]
    for node in ast.walk(tree):
        if _says_something(node):
            continue
        for first, last, new in _changes(node, lines):
            (line, start), (end_line, end) = first, last
            if line == end_line and lines[line - 1].isascii():
                yield Mutant(file, line, lines[line - 1], start, end, new)


def _says_something(node: ast.AST) -> bool:
    """Whether a place is in a message, a type or a default for them, whose words tests may skip."""
    while not isinstance(node, ast.Module):
        parent = node.parent  # type: ignore[attr-defined]
        if isinstance(node, (ast.JoinedStr, ast.Raise)):
            return True
        if node is getattr(parent, "annotation", None) or node is getattr(parent, "returns", None):
            return True
        if isinstance(node, ast.Assert):
            return True
        node = parent
    return False


Place = tuple[int, int]


def _changes(node: ast.AST, lines: list[str]) -> Iterator[tuple[Place, Place, str]]:
    """What can be changed at a node: from, to, and the text in place of it."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in SWAPPED:
        yield _end(node.left), _start(node.comparators[0]), f" {SWAPPED[type(node.ops[0])]} "
    elif isinstance(node, ast.BinOp) and type(node.op) in SWAPPED:
        between = _between(_end(node.left), _start(node.right), lines)
        if between in ("+", "-", "*", "/"):
            yield _end(node.left), _start(node.right), f" {SWAPPED[type(node.op)]} "
    elif isinstance(node, ast.BoolOp):
        for left, right in zip(node.values, node.values[1:], strict=False):
            if _between(_end(left), _start(right), lines) in ("and", "or"):
                yield _end(left), _start(right), f" {SWAPPED[type(node.op)]} "
    else:
        yield from _other_changes(node)


def _other_changes(node: ast.AST) -> Iterator[tuple[Place, Place, str]]:
    """What can be changed at a node that does not stand between two others."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield _start(node), _start(node.operand), ""
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield _start(node), _end(node), str(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield _start(node), _end(node), str(node.value + 1)
    elif isinstance(node, (ast.If, ast.IfExp)):
        test = node.test
        if isinstance(test, (ast.Name, ast.Attribute, ast.Call)):
            yield _start(test), _start(test), "not "
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield _start(node), _end(node), "pass"
    elif isinstance(node, ast.Return) and node.value is not None:
        if not isinstance(node.value, ast.Constant):
            yield _start(node.value), _end(node.value), "None"


def _start(node: ast.AST) -> Place:
    return node.lineno, node.col_offset  # type: ignore[attr-defined]


def _end(node: ast.AST) -> Place:
    return node.end_lineno, node.end_col_offset  # type: ignore[attr-defined]


def _between(first: Place, last: Place, lines: list[str]) -> str:
    """What stands between two places of one line; brackets show that there is more to it."""
    return lines[first[0] - 1][first[1] : last[1]].strip() if first[0] == last[0] else ""


def draw() -> list[Mutant]:
    """As many of each source as ``TESTS`` says, no two on one line."""
    chosen = []
    for file, (number, _) in TESTS.items():
        found = sorted(mutants_of(file), key=lambda m: (m.line, m.start, m.new))
        random.Random(f"{SEED} {file}").shuffle(found)
        by_line: dict[int, Mutant] = {}
        for mutant in found:
            by_line.setdefault(mutant.line, mutant)
        chosen += list(by_line.values())[:number]
    return chosen


def put(mutant: Mutant, tree: Path) -> bool:
    """Write a mutant into the sources below ``tree``; False where its line is there no more."""
    path = tree / "FewShotSegLib" / mutant.file
    if not path.exists():
        return False
    lines = path.read_text(encoding="utf-8").splitlines()
    there = [n for n, line in enumerate(lines) if line == mutant.text]
    if not there:
        return False
    n = min(there, key=lambda n: abs(n + 1 - mutant.line))
    lines[n] = mutant.text[: mutant.start] + mutant.new + mutant.text[mutant.end :]
    text = "\n".join(lines) + "\n"
    ast.parse(text)  # a mutant that is no Python would be caught by any test
    path.write_text(text, encoding="utf-8")
    return True


def run_tests(tree: Path, names: str, limit: float) -> tuple[str, float]:
    """How the tests of a tree end: ``passed``, ``failed`` or ``too long``; and the seconds.

    Raises:
        RuntimeError: they ended in another way, such as that there were none.
    """
    begun = time.monotonic()
    child = os.fork()
    if not child:
        os.setsid()
        status = 99
        try:
            status = _in_child(tree, names)
        finally:
            os._exit(status)
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() - begun > limit:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "too long", time.monotonic() - begun
        time.sleep(0.05)
    took = time.monotonic() - begun
    code = os.waitstatus_to_exitcode(ended[1])
    if code in (0, 1, 2):  # 2: a test file could not even be imported
        return ("failed" if code else "passed"), took
    raise RuntimeError(f"pytest ended with {code} in {tree} ({names})")


def _in_child(tree: Path, names: str) -> int:
    import pytest

    os.chdir(tree)
    os.environ["PYTHONPATH"] = str(tree)
    sys.path[:] = [str(tree)] + [p for p in sys.path if Path(p).resolve() not in (ROOT, HERE)]
    output = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(output, stream)
    files = [f"Testing/engine/test_{name}.py" for name in names.split()]
    return int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *files]))


HERE = Path(__file__).resolve().parent


def main() -> int:
    """Draw, or run; the exit status is 1 where a mutant survived that should not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draw", action="store_true", help="draw mutants.json anew")
    parser.add_argument("--only", default="", help="sources whose path holds this")
    parser.add_argument("--tree", type=Path, default=ROOT, help="another checkout, for comparison")
    parser.add_argument("--limit", type=float, default=300, metavar="SECONDS", help="for a mutant")
    parser.add_argument("--log", type=Path, help="results as JSON lines; what is there is kept")
    given = parser.parse_args()
    if given.draw:
        MUTANTS.write_text(json.dumps([m.__dict__ for m in draw()], indent=1) + "\n", "utf-8")
        return 0
    import monai.losses  # noqa: F401
    import scipy.ndimage  # noqa: F401
    import SimpleITK  # noqa: F401
    import torch

    torch.set_num_threads(1)
    mutants = [Mutant(**m) for m in json.loads(MUTANTS.read_text("utf-8"))]
    mutants = [m for m in mutants if given.only in m.file]
    known = {}
    if given.log and given.log.exists():
        rows = [json.loads(line) for line in given.log.read_text("utf-8").splitlines()]
        known = {row["mutant"]: row["end"] for row in rows}
    ends: dict[str, list[Mutant]] = {"failed": [], "too long": [], "passed": [], "gone": []}
    with tempfile.TemporaryDirectory(prefix="mutants") as folder:
        for mutant in mutants:
            end, took = known.get(str(mutant)), 0.0
            if end is None:
                tree = Path(folder) / "tree"
                shutil.rmtree(tree, ignore_errors=True)
                left_out = shutil.ignore_patterns(
                    ".git", ".venv", "__pycache__", "build", ".*cache"
                )
                shutil.copytree(given.tree, tree, ignore=left_out)
                end = "gone"
                if put(mutant, tree):
                    end, took = run_tests(tree, TESTS[mutant.file][1], given.limit)
                if given.log:
                    with given.log.open("a", encoding="utf-8") as stream:
                        stream.write(json.dumps({"mutant": str(mutant), "end": end}) + "\n")
            ends[end].append(mutant)
            print(f"{end:8} {took:5.0f} s  {mutant}", flush=True)
    survived = [m for m in ends["passed"] if not m.why]
    same = [m for m in ends["passed"] if m.why]
    caught = len(ends["failed"]) + len(ends["too long"])
    print(
        f"{caught} of {len(mutants) - len(ends['gone'])} mutants caught "
        f"({len(ends['too long'])} of them by the time limit), {len(same)} that change nothing, "
        f"{len(ends['gone'])} gone; survived:"
    )
    for mutant in survived:
        print(f"  {mutant}")
    return bool(survived)


if __name__ == "__main__":
    sys.exit(main())
