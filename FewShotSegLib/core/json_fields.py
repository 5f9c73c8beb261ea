"""Reading JSON from files that anybody may have written: nothing but plain data comes out.

:func:`load_json` and :func:`parse_json` are the one way in for everything that is read as JSON.
What they return holds finite numbers below 2^64, text that can be written again, every field of an
object once, and no deeper nesting than :data:`MAX_DEPTH`; all else is one error in one sentence.
"""

from __future__ import annotations

import json
import math
import os
import stat
from typing import Any

from .errors import FewShotSegError, InputError

MAX_BYTES = 16 * 2**20
"""What we read is a few kilobytes; the record of a large pre-training, a few megabytes."""
MAX_DEPTH = 40
"""Objects and lists within one another; what we write has six at most."""
MAX_NUMBER = 2**64
_SHOWN = 60


def load_json(
    path: str | os.PathLike[str],
    what: str,
    error: type[FewShotSegError] = InputError,
    max_bytes: int = MAX_BYTES,
) -> Any:
    """What a JSON file (UTF-8) holds.

    Args:
        what: the file is, for the message, such as ``assembly``.
        error: the class of what is raised.
        max_bytes: a larger file is refused unread.

    Raises:
        InputError (or ``error``): it can't be read, or :func:`parse_json` refuses it.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe or a device could be read for ever
            raise error(f"The {what} {path} is not a file.")
        with open(path, "rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as cause:
        if isinstance(cause, FileNotFoundError):
            raise error(f"There is no {what} at {path} ({cause.strerror}).") from cause
        raise error(f"The {what} {path} can't be read ({cause.strerror}).") from cause
    except ValueError as cause:  # a name with a zero byte
        raise error(f"There is no {what} at {str(path)!r}.") from cause
    return parse_json(data, f"The {what} {path}", error, max_bytes)


def parse_json(
    data: bytes | str,
    name: str,
    error: type[FewShotSegError] = InputError,
    max_bytes: int = MAX_BYTES,
) -> Any:
    """What a JSON text says.

    Args:
        data: a text, or its UTF-8 bytes. name: what messages call it; their first words.
        error: the class of what is raised.

    Raises:
        InputError (or ``error``): it is too large or nested too deep, is not JSON (NaN and infinity
            are not), has a field twice, a number that is not below 2^64, or text that is not
            Unicode.
    """
    if len(data) > max_bytes:
        raise error(f"{name} is larger than {max_bytes / 2**20:g} MB, which no such file is.")
    try:
        text = data if isinstance(data, str) else bytes(data).decode("utf-8-sig")
        result = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_whole_number,
            parse_float=_number,
            parse_constant=_constant,
        )
        _check(result)
        return result
    except UnicodeDecodeError as cause:
        raise error(f"{name} is not JSON: it is not text in UTF-8.") from cause
    except RecursionError as cause:
        raise error(f"{name} can't be used: {_TOO_DEEP}.") from cause
    except json.JSONDecodeError as cause:
        raise error(f"{name} is not JSON: {cause}.") from cause
    except ValueError as cause:
        raise error(f"{name} can't be used: {cause}.") from cause


_TOO_DEEP = f"its lists and objects are nested more than {MAX_DEPTH} deep"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for number, name in enumerate(names) if name in names[:number])
        raise ValueError(f"the field {shown(twice)} comes twice")
    return result


def _whole_number(text: str) -> int:
    if len(text) > 21 or abs(int(text)) >= MAX_NUMBER:
        raise ValueError(f"the number {text[:21]}... is too large")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:21]} is too large")
    return value


def _constant(text: str) -> float:
    raise ValueError(f"{text} is not a number of JSON")


def _check(data: Any) -> None:
    """Refuse what is nested too deep, and half characters, which can't be written again."""
    level, depth = [data], 0
    while level:
        below: list[Any] = []
        for item in level:
            if isinstance(item, str):
                _check_text(item)
            elif isinstance(item, (dict, list)):
                if depth == MAX_DEPTH:
                    raise ValueError(_TOO_DEEP)
                below += [*item.keys(), *item.values()] if isinstance(item, dict) else item
        level, depth = below, depth + 1


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("a text has half a character (an escape of \\ud800 to \\udfff)") from None


def shown(value: Any) -> str:
    """A value of JSON for a message: short, and with every odd character escaped."""
    text = ascii(value) if not isinstance(value, str) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def json_object(
    data: Any, where: str, required: tuple[str, ...], optional: tuple[str, ...] | None
) -> dict[str, Any]:
    """An object with these fields.

    Args:
        where: what it is, for the message. optional: None allows any more.

    Raises:
        InputError: it is something else, lacks a field or has an unknown one.
    """
    if not isinstance(data, dict):
        raise InputError(f"{where} is no object {{...}}")
    for key in required:
        if key not in data:
            raise InputError(f"{where} lacks the field '{key}'")
    if optional is not None:
        unknown = [key for key in data if key not in required + optional]
        if unknown:
            known = ", ".join(required + optional)
            raise InputError(
                f"{where} has the unknown field {shown(unknown[0])}; known are {known}"
            )
    return data


def is_number(value: Any) -> bool:
    """Whether it is a finite number, and no yes or no."""
    return type(value) in (int, float) and math.isfinite(value)
