"""How long each phase of a task takes: a guess at first, and then what such phases took here.

A phase's time is its *amount* times the seconds that one of it takes. Amounts follow from what is
about to be run: millions of voxels, epochs. Seconds are kept for each model and device: of what ran
here, the last runs count most, and large ones more than small ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import qt

SPEED = "FewShotSeg/Speed"
KEEP = 0.5
"""What earlier runs still count when another has ended."""
LEAST_SECONDS = 0.05
"""Shorter phases say nothing of how long larger ones take."""
GUESS: Mapping[str, float] = {
    "start": 6.0,
    "start-warm": 0.1,
    "hand over": 0.02,
    "read": 0.05,
    "features": 2.0,
    "segment": 0.2,
    "refine": 4.5,
    "judge": 0.45,
    "load": 0.03,
    "epoch": 0.45,
    "validate": 0.6,
}
"""Seconds for one of each, on two CPU cores with the model that comes with FewShotSeg."""
ON_THE_DEVICE = ("features", "segment", "refine", "train", "validate", "companion")
"""Phases that a graphics card makes faster."""
ON_THE_NETWORK = ("features", "train")
"""Without having timed these here, an estimate is a guess."""
GRAPHICS_CARD = 20.0
"""How many times, until something has run on it."""


@dataclass(frozen=True)
class Part:
    """One phase of a task.

    Attributes:
        phase: as the engine names it. key: under what its speed is kept.
        amount: how much there is to do. guess: seconds for one, where nothing ran here yet.
    """

    phase: str
    key: str
    amount: float
    guess: float


@dataclass(frozen=True)
class Workload:
    """What is about to be run, as far as its time depends on it.

    Attributes:
        model, device: where it runs. parts: its phases.
        graphics_card: whether the device is one.
    """

    model: str
    device: str
    parts: Sequence[Part]
    graphics_card: bool = False

    def seconds(self) -> tuple[float, bool]:
        """Seconds in all, and whether the phases in which the network runs were measured here."""
        total, measured = 0.0, True
        for part in self.parts:
            known = speed(self.model, self.device, part.key)
            each = part.guess if known is None else known
            if known is None and self.graphics_card and part.phase in ON_THE_DEVICE:
                each /= GRAPHICS_CARD
            total += part.amount * each
            measured = measured and (known is not None or part.phase not in ON_THE_NETWORK)
        return total, measured

    def learn(self, times: Mapping[str, float], cached: bool = False) -> None:
        """Keep what the phases took.

        Args:
            times: seconds by phase. cached: whether the features were there already.
        """
        for part in self.parts:
            took = times.get(part.phase, 0.0)
            if part.amount <= 0 or took < LEAST_SECONDS or (cached and part.phase == "features"):
                continue
            remember(self.model, self.device, part.key, took, part.amount)


def start_part(warm: bool) -> Part:
    """Starting the process, or handing the job to one that waits."""
    key = "start-warm" if warm else "start"
    return Part("start", key, 1.0, GUESS[key])


def part(phase: str, amount: float, times: float = 1.0) -> Part:
    """A phase with its usual guess, or so many times that."""
    return Part(phase, phase, amount, GUESS[phase] * times)


def speed(model: str, device: str, key: str) -> float | None:
    """Seconds for one of what ``key`` counts, where that was measured here."""
    found = _read(model, device, key)
    return None if found is None else found[0] / found[1]


def remember(model: str, device: str, key: str, seconds: float, amount: float = 1.0) -> None:
    """Keep what a run took, for the next estimate."""
    old_seconds, old_amount = _read(model, device, key) or (0.0, 0.0)
    both = (old_seconds * KEEP + seconds, old_amount * KEEP + amount)
    qt.QSettings().setValue(_place(model, device, key), " ".join(map(repr, map(float, both))))


def _read(model: str, device: str, key: str) -> tuple[float, float] | None:
    """Seconds and amount that were kept; versions before kept the seconds for one alone."""
    value = qt.QSettings().value(_place(model, device, key), None)
    if value is None:
        return None
    try:
        numbers = [float(text) for text in str(value).split()]
    except ValueError:
        return None
    seconds, amount = [*numbers, 1.0][:2] if numbers else (0.0, 0.0)
    return (seconds, amount) if seconds >= 0 and amount > 0 else None


def _place(model: str, device: str, key: str) -> str:
    return f"{SPEED}/{model}/{device.replace(':', '')}/{key}"
