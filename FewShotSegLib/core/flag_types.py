"""Types of command-line flags: what a flag may be is said by ``limits``, as it is everywhere."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from .errors import InputError
from .limits import Range, require_path


def number_flag(limits: Range) -> Callable[[str], float]:
    """The type of a flag that is a number within limits."""

    def number(text: str) -> float:
        try:
            value = int(text) if limits.whole else float(text)
        except ValueError:
            value = text
        return _checked(limits.check, value)

    return number


def path_flag(text: str) -> str:
    """The type of a flag that is a path."""
    return _checked(require_path, text)


def _checked(check: Callable[[Any], Any], value: Any) -> Any:
    try:
        return check(value)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
