"""What holds for every test: random numbers that no other test moves, and who is counted.

The tests share their cores with whatever else runs: threads sleep while they wait.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import random
from collections import Counter

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / "support"))
import soak_profile

ENDS: Counter[str] = Counter()
"""How the soak's tests ended."""
LONG = (
    "module_click_path",
    "kills",
    "pretraining",
    "worker",
    "module_process",
    "demo",
    "benchmark",
    "module_methods",
    "published_weights",
    "golden",
    "evaluation",
    "stopped",
    "model_registry",
    "backbones",
    "tunings",
    "tuning_files",
    "module_kills",
    "packed",
    "cli",
    "adapting",
    "dicom_stack",
)
"""Files of tests that take long. On several cores they come first, so that none is left over at
the end while the other cores are idle."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Property tests belong to the soak, and their examples are counted."""
    if hasattr(config, "workerinput"):
        order = {f"test_{name}": number for number, name in enumerate(LONG)}
        items.sort(key=lambda item: order.get(item.path.stem, len(LONG)))
    for item in items:
        handle = getattr(getattr(item, "obj", None), "hypothesis", None)
        if handle is not None:
            item.add_marker("soak")
            handle.inner_test = soak_profile.watch(handle.inner_test)


def seed_everything() -> None:
    """The generators that a test may draw from without a seed of its own.

    What it draws is then the same in any order of the tests, and whichever of them run.
    """
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    if "torch" in sys.modules:  # where it isn't, its first draws are always the same
        sys.modules["torch"].manual_seed(0)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """For what a class makes once: the test that happens to be its first does not matter."""
    seed_everything()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """For the test itself."""
    seed_everything()


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
