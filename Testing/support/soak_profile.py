"""How many examples the property tests run: a sample in ``make test``, 2,000 in ``make soak``.

A property test stands as

    class HeaderTest(unittest.TestCase):
        @examples(40)
        @given(strategies.binary())
        def test_any_bytes_are_a_header_or_a_clear_error(self, raw): ...

It then runs 40 examples, the same ones every time, and under ``FEWSHOTSEG_SOAK=1`` 2,000 new ones.
What runs in the soak alone stands under ``@soak_only``; what it counts, it hands to ``record``.
``conftest`` prints all counts at the end (``watch`` counts the examples and ends those that hang).
"""

from __future__ import annotations

import faulthandler
import functools
import os
import signal
import sys
import threading
import unittest
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.errors import UnsatisfiedAssumption

SOAK = os.environ.get("FEWSHOTSEG_SOAK") == "1"
"""Whether this is ``make soak``."""
EXAMPLES = 2000
"""What every property runs in the soak."""
LONGEST = 120.0
"""Seconds after which an example counts as hanging, far above what any takes on a busy machine."""

COUNTS: Counter[str] = Counter()
"""What was counted: ``examples``, ``hangs``, and whatever tests hand to ``record``."""


def examples(sample: int) -> settings:
    """Settings of a test: ``sample`` fixed examples ordinarily, ``EXAMPLES`` new ones in the soak.

    There is no deadline: how long an example takes hangs on what else the machine does.
    """
    return settings(
        max_examples=EXAMPLES if SOAK else sample,
        derandomize=not SOAK,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow],
    )


def soak_only(test: Any) -> Any:
    """Decorates a test or a class of tests that only ``make soak`` runs."""
    skipped = unittest.skipUnless(SOAK, "runs in make soak (FEWSHOTSEG_SOAK=1)")(test)
    return pytest.mark.soak(skipped)


def record(what: str, number: int = 1) -> None:
    """Count something that the soak is to print: ``record("runs killed")``."""
    COUNTS[what] += number


class Hang(BaseException):
    """An example took longer than ``LONGEST``.

    Not an ``Exception``, so that neither the code under test nor Hypothesis' search for a smaller
    example, which would hang again and again, catches it.
    """


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise ``Hang`` in what takes longer than this, in the main thread of a POSIX system.

    What doesn't come back from C code even so ends the whole run after twice the time, with the
    stack of every thread. Elsewhere than in such a thread there is no limit.
    """
    if not hasattr(signal, "setitimer") or (
        threading.current_thread() is not threading.main_thread()
    ):
        yield
        return

    def ring(*_: object) -> None:
        COUNTS["hangs"] += 1
        raise Hang(f"It took longer than {seconds:g} s.")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    # Not sys.stderr, which pytest replaces by what has no file descriptor in some of its modes.
    faulthandler.dump_traceback_later(2 * seconds, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def watch(inner: Callable[..., Any], limit: float = LONGEST) -> Callable[..., Any]:
    """The inner function of a property test, with its examples counted and ended when they hang."""
    if getattr(inner, "is_watched", False):
        return inner

    @functools.wraps(inner)
    def watched(*args: Any, **kwargs: Any) -> Any:
        COUNTS["examples"] += 1
        try:
            with time_limit(limit):
                return inner(*args, **kwargs)
        except UnsatisfiedAssumption:  # drawn, and put away: it tested nothing
            COUNTS["examples"] -= 1
            raise

    watched.is_watched = True
    return watched
