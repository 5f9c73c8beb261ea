"""Threads that sleep while they wait, and the counts of the property tests.

The tests share their cores with whatever else runs.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from collections import Counter

import pytest
import soak_profile

ENDS: Counter[str] = Counter()
"""How the soak's tests ended."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Property tests belong to the soak, and their examples are counted."""
    for item in items:
        handle = getattr(getattr(item, "obj", None), "hypothesis", None)
        if handle is not None:
            item.add_marker("soak")
            handle.inner_test = soak_profile.watch(handle.inner_test)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> object:
    """Tell a wrong result from a traceback and from a hang."""
    report = yield
    if item.get_closest_marker("soak") and not report.skipped:
        if report.when == "call":
            ENDS["tests"] += 1
        if report.failed:
            error = call.excinfo.value if call.excinfo else None
            ENDS[
                "hanging"
                if isinstance(error, soak_profile.Hang)
                else "wrong results"
                if isinstance(error, AssertionError)
                else "tracebacks"
            ] += 1
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line: what the property tests and the soak's own tests ran, and what came out."""
    counts = soak_profile.COUNTS
    if not ENDS["tests"]:
        return
    others = [f", {counts[key]:,} {key}" for key in counts if key not in ("examples", "hangs")]
    terminalreporter.write_line(
        f"soak: {counts['examples']:,} examples of {ENDS['tests']} tests{''.join(others)}: "
        f"{ENDS['tracebacks']} tracebacks, {counts['hangs']} hangs, "
        f"{ENDS['wrong results']} wrong results"
    )
