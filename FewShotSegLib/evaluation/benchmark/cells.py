"""What a plan comes to: its cells, each one training and the queries that it is tried on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from ...core.architecture_catalog import encoder_of
from ...core.method_catalog import METHODS
from ...core.options import AdaptOptions
from ...models.registry import find_model
from .plan import Draw, Method, Plan, Task
from .results import Results, setting_key
from .untrained import untrained_model


@dataclass(frozen=True)
class Cell:
    """One training and its queries: what the rows of one setting share.

    Attributes:
        suited: whether the method has a meaning on the model's network.
    """

    task: Task
    method: Method
    shots: int
    draw: Draw
    setting: str
    suited: bool = True

    def options(self, model: str) -> AdaptOptions:
        """What the training is asked for, on a model: see :meth:`Models.name`."""
        own: dict[str, Any] = {
            "structures": self.task.structures,
            "seed": self.draw.seed,
            "model": model,
            # The queries have references here: what to expect of them need not be estimated.
            "validate": False,
        }
        return replace(self.method.options, **own)

    def missing(self, results: Results) -> list[str]:
        """The queries without a row."""
        return [q for q in self.draw.queries if self.row(results, q) is None]

    def row(self, results: Results, query: str) -> dict[str, Any] | None:
        """The row of a query; None where it was not run."""
        return results.get(self.setting, query, self.method.refine)

    def rows(self, results: Results) -> list[dict[str, Any]]:
        """The rows that are there, in the queries' order."""
        found = (self.row(results, query) for query in self.draw.queries)
        return [row for row in found if row is not None]


class Models:
    """The models of a plan, by method: paths or ids, and the hashes that stand for them."""

    def __init__(self, folder: Path) -> None:
        self._untrained = cache(lambda model: untrained_model(model, folder))
        self._hash = cache(lambda model: find_model(model).identity)
        self._architecture = cache(lambda model: find_model(model).entry.architecture["name"])

    def name(self, method: Method) -> str:
        """For ``model`` of :func:`pipeline.adapt`."""
        return self._untrained(method.model) if method.untrained else method.model

    def sha256(self, method: Method) -> str:
        """Of the weights, and of a revised network: :attr:`Model.identity`."""
        return self._hash(self.name(method))

    def architecture(self, method: Method) -> str:
        """Of the network, by its name in the registry."""
        return self._architecture(method.model)

    def suits(self, method: Method) -> bool:
        """Whether a method has a meaning on its model's network."""
        return METHODS[method.method].suits(self.architecture(method))


def cells(plan: Plan, models: Models) -> Iterator[Cell]:
    """All of a plan, draw by draw, so that what is stopped has some draws complete.

    Raises:
        ModelError: a model isn't there.
    """
    for number in range(max(len(task.draws) for task in plan.tasks)):
        for shots in plan.shots:
            for task in plan.tasks:
                for method in plan.methods:
                    if number >= len(task.draws) or shots not in (method.shots or plan.shots):
                        continue
                    draw = task.draws[number]
                    count = draw.shots(shots)
                    key = setting_key(task, method, count, draw, models.sha256(method))
                    yield Cell(task, method, count, draw, key, models.suits(method))


def unsuited(plan: Plan, models: Models) -> list[str]:
    """Which of a plan's methods have no meaning on their models, one sentence each."""
    return [
        f"{method.name} is for {METHODS[method.method].encoder} encoders; that of "
        f"{method.model} is {encoder_of(models.architecture(method))}, so it is not run."
        for method in plan.methods
        if not models.suits(method)
    ]
