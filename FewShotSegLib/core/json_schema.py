"""JSON into dataclasses, by the types of their fields: the one mechanism of every schema.

A registry entry, an adapter's header, a job, a benchmark's plan and the numbers of a pre-training
are each a dataclass; :func:`from_json` reads them from what ``json_fields`` let in. Only the
standard library is used, because the Slicer side reads entries and headers before anything is
installed (with pydantic or msgspec there would be two schemas).
"""

from __future__ import annotations

import inspect
import json
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, Union

from .errors import FewShotSegError, InputError
from .json_fields import is_number, json_object, shown

_T = TypeVar("_T")


@dataclass(frozen=True)
class Check:
    """What a field's value must be besides its type: ``Annotated[float, Check(...)]``.

    Attributes:
        words: what it is, as in "a number from 0 to 1". holds: whether a value is that.
    """

    words: str
    holds: Callable[[Any], bool]


def from_json(kind: Any, data: Any, where: str) -> Any:
    """A value of JSON as a type says that it is.

    Types are str, int, float, bool, None, ``Any``, unions, ``Literal``, lists, tuples, dicts by
    text, ``Annotated`` with :class:`Check`, and dataclasses of these. A dataclass takes an object
    that has its fields: those without a default, and no unknown ones. (A class with ``OTHERS =
    True`` takes objects with more, and leaves these out.)

    Args:
        kind: the type. where: what the value is, for messages, such as ``'window'``; empty for a
            whole document, which they call "it".

    Raises:
        InputError: it is something else; the message names the field and says what it should be.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return data
    if origin is Annotated:
        return _checked(arguments, data, where)
    if origin in (Union, types.UnionType):
        return _one_of(arguments, data, where)
    if origin is Literal:
        return _choice(arguments, data, where)
    if isinstance(kind, type) and is_dataclass(kind):
        return _dataclass(kind, data, where)
    if origin in (tuple, list) and isinstance(data, list):
        return _items(origin, arguments, data, where)
    if _is_mapping(origin) and isinstance(data, dict):
        return {
            key: from_json(arguments[1], v, f"{shown(key)} of {where}") for key, v in data.items()
        }
    if kind is float and is_number(data):
        return float(data)
    if isinstance(kind, type) and type(data) is kind:
        return data
    raise InputError(f"{where} is {_words(kind)}, not {shown(data)}")


def _checked(arguments: tuple[Any, ...], data: Any, where: str) -> Any:
    """A value of ``Annotated[arguments]``."""
    value = from_json(arguments[0], data, where)
    for check in arguments[1:]:
        if not check.holds(value):
            raise InputError(f"{where} is {check.words}, not {shown(data)}")
    return value


def _choice(choices: tuple[Any, ...], data: Any, where: str) -> Any:
    """A value of ``Literal[choices]``; true is not 1."""
    if any(type(data) is type(choice) and data == choice for choice in choices):
        return data
    raise InputError(f"{where} is {_choices(choices)}, not {shown(data)}")


def _is_mapping(origin: Any) -> bool:
    return origin is not None and issubclass(origin, Mapping)


def _dataclass(cls: type[Any], data: Any, where: str) -> Any:
    required: list[str] = []
    optional: list[str] = []
    for field in fields(cls):
        if field.init:
            free = field.default is not MISSING or field.default_factory is not MISSING
            (optional if free else required).append(field.name)
    others = getattr(cls, "OTHERS", False)
    known = None if others else tuple(optional)
    data = json_object(data, where or "it", tuple(required), known)
    data = {key: value for key, value in data.items() if key in (*required, *optional)}
    inside = f" of {where}" if where else ""
    kinds = _kinds(cls)  # type: ignore[arg-type]
    given = {key: from_json(kinds[key], value, f"'{key}'{inside}") for key, value in data.items()}
    try:
        return cls(**given)
    except FewShotSegError as error:
        text = str(error).rstrip(".")
        raise InputError(f"{where}: {text}" if where else text) from error


@cache
def _kinds(cls: type) -> dict[str, Any]:
    kinds: dict[str, Any] = {}
    names = {field.name for field in fields(cls)}
    for base in reversed(cls.__mro__):  # each in its own module's names, lambdas included
        own = {k: v for k, v in inspect.get_annotations(base).items() if k in names}
        plain = types.SimpleNamespace(__annotations__=own)
        module = vars(sys.modules[base.__module__])
        kinds |= typing.get_type_hints(plain, module, include_extras=True)
    return kinds


def _one_of(kinds: tuple[Any, ...], data: Any, where: str) -> Any:
    fitting = [kind for kind in kinds if _fits(kind, data)]
    if not fitting:
        words = " or ".join(
            dict.fromkeys(_words(k) for k in kinds if k is not int or float not in kinds)
        )
        raise InputError(f"{where} is {words}, not {shown(data)}")
    return from_json(fitting[0], data, where)


def _fits(kind: Any, data: Any) -> bool:
    """Whether a value is of a kind at its outside, so that messages can go into it."""
    origin = typing.get_origin(kind)
    if origin is Annotated:
        return _fits(typing.get_args(kind)[0], data)
    if origin is Literal:
        return data in typing.get_args(kind)
    if is_dataclass(kind) or _is_mapping(origin):
        return isinstance(data, dict)
    if origin in (tuple, list):
        return isinstance(data, list)
    if kind is float:
        return is_number(data)
    return kind is Any or type(data) is kind


def _items(origin: type, kinds: tuple[Any, ...], data: list[Any], where: str) -> Any:
    if origin is list or kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(data)
    if len(kinds) != len(data):
        raise InputError(f"{where} is a list of {len(kinds)}, not of {len(data)}")
    numbered = enumerate(zip(kinds, data, strict=True), 1)
    return origin(from_json(kind, item, f"item {n} of {where}") for n, (kind, item) in numbered)


def _words(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return arguments[1].words
    if origin is Literal:
        return _choices(arguments)
    if origin in (tuple, list):
        return "a list [...]"
    if is_dataclass(kind) or _is_mapping(origin):
        return "an object {...}"
    return _WORDS[kind]


_WORDS = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def _choices(values: tuple[Any, ...]) -> str:
    return " or ".join(json.dumps(value) for value in values)
