"""Parsers of command lines and types of their flags; what a flag may be, ``limits`` says."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from typing import Any

from .errors import InputError
from .limits import Range, require_path


class Parser(argparse.ArgumentParser):
    """A parser to which ``--flag=--`` is a flag without its value.

    Python takes the two dashes away and leaves a list of nothing as the value, or, from 3.13 on,
    the dashes themselves.
    """

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        for text in sys.argv[1:] if args is None else args:
            if text == "--":
                break
            if re.fullmatch(r"--[\w-]+=--", text):
                self.error(f"argument {text.removesuffix('=--')}: -- is no value")
        return super().parse_known_args(args, namespace)


def number_flag(limits: Range) -> Callable[[str], float]:
    """The type of a flag that is a number within limits."""

    def number(text: str) -> float:
        value: float | str
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
