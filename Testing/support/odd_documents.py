"""JSON documents and files changed as accidents and enemies change them, for property tests."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st

DEEP: Any = 0
for _ in range(60):
    DEEP = [DEEP]
ODD = st.one_of(
    st.sampled_from(
        [
            *(None, True, False, 0, 1, -1, 2, 3, 255, 65535, 65536, 2**31, 2**63, 2**64, 10**30),
            *(0.0, -0.0, 0.5, 1.0, -1.5, 1e-300, 1e6, 1e300, float("nan"), float("inf")),
            *("", " ", "x", "CT", "0", "\ud800", "\u202e", "a\nb", "../x", "/etc/passwd", "CON"),
            *("SHA256SUMS", "x.json", "x" * 20_000, [], {}, [0], {"": 0}, [[]], DEEP, [1] * 500),
        ]
    ),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=12),
).map(copy.deepcopy)  # whatever is changed further is changed for one example alone
"""Values that no field, or the wrong one, should have."""


def _places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value of a document."""
    inside: list[tuple[Any, Any]] = []
    if isinstance(document, dict):
        inside = list(document.items())
    elif isinstance(document, list):
        inside = list(enumerate(document))
    return [path, *(place for key, value in inside for place in _places(value, (*path, key)))]


@st.composite
def changed(draw: st.DrawFn, documents: list[Any]) -> Any:
    """One of the documents with one to three changes."""
    document = copy.deepcopy(draw(st.sampled_from(documents)))
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from(_places(document))) or [None]
        kind = draw(st.sampled_from(["replace", "replace", "remove", "add", "rename", "repeat"]))
        if last is None:
            if kind == "replace" and draw(st.integers(0, 9)) == 0:
                return draw(ODD)
            holder, last = document, next(iter(document), None) if document else None
        else:
            holder = document
            for key in way:
                holder = holder[key]
        if holder and isinstance(holder, (dict, list)):
            _change(draw, holder, last, kind)
    return document


def _change(draw: st.DrawFn, holder: Any, last: Any, kind: str) -> None:
    """One change of an object or a list, in place; ``last`` is the key of one of its values."""
    if kind == "replace":
        holder[last] = draw(ODD)
    elif kind == "remove":
        del holder[last]
    elif isinstance(holder, list):
        holder.insert(draw(st.integers(0, len(holder))), copy.deepcopy(draw(ODD)))
        if kind == "repeat":
            holder[:] = holder * 2
    elif kind == "add":
        holder[draw(st.text(max_size=8))] = draw(ODD)
    elif kind == "rename":
        holder[draw(st.text(max_size=8))] = holder.pop(last)
    else:
        other = draw(st.sampled_from(list(holder)))
        holder[other] = copy.deepcopy(holder[last])


@st.composite
def spoilt(draw: st.DrawFn, files: list[bytes]) -> bytes:
    """One of the files with one to four accidents: bits turned, bytes lost, repeated or zeroed."""
    data = bytearray(draw(st.sampled_from(files)))
    for _ in range(draw(st.integers(1, 4))):
        if not data:
            break
        # Half of them near the start, where the header and its length are.
        place = draw(
            st.one_of(st.integers(0, min(63, len(data) - 1)), st.integers(0, len(data) - 1))
        )
        length = draw(st.integers(1, 300))
        kind = draw(st.sampled_from(["bit", "byte", "cut", "zero", "end", "repeat", "insert"]))
        if kind == "bit":
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "byte":
            data[place] = draw(st.integers(0, 255))
        elif kind == "cut":
            del data[place : place + length]
        elif kind == "zero":
            data[place : place + length] = bytes(len(data[place : place + length]))
        elif kind == "end":
            del data[place:]
        elif kind == "repeat":
            data[place:place] = data[place : place + length]
        else:
            data[place:place] = draw(st.binary(min_size=1, max_size=16))
    return bytes(data)


def plain(value: Any) -> Any:
    """As JSON would give it back: tuples are lists."""
    return json.loads(json.dumps(value))
