"""Where and how the work runs: device, cache, progress, stopping; and how long each phase took."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

from ..core.errors import Cancelled
from ..core.events import EventSink, ignore, make_event
from ..core.limits import CACHE_BYTES, require_device, require_path
from ..core.model_folders import own_folder
from ..features.extraction import FeatureSource, choose_device
from ..features.store import DEFAULT_MAX_BYTES, FeatureStore
from ..models.preprocessing import Preprocessing
from ..models.registry import Model


@dataclass
class Runtime:
    """Where and how to run; none of it changes a result.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        cache: folder of the feature store; None is ``cache`` in the user's FewShotSeg folder.
        cache_bytes: its size limit.
        events: receives events of progress.
        cancel: asked many times a second; true stops the work with :class:`Cancelled`.
    """

    device: str = "auto"
    cache: str | os.PathLike[str] | None = None
    cache_bytes: int = DEFAULT_MAX_BYTES
    events: EventSink = ignore
    cancel: Callable[[], bool] = lambda: False

    def __post_init__(self) -> None:
        require_device(self.device)
        CACHE_BYTES.check(self.cache_bytes)
        if self.cache is not None:
            require_path(self.cache)

    def check(self) -> None:
        """Raise :class:`Cancelled` if the user stopped the work."""
        if self.cancel():
            raise Cancelled("Stopped. Nothing was written.")

    def source(self, model: Model, preprocessing: Preprocessing) -> FeatureSource:
        """Features of a model, through this runtime's store.

        Raises:
            StorageError: the store's usual folder can't be used. InputError: there is no such
                device.
        """
        folder = Path(self.cache) if self.cache else own_folder("cache")
        store = FeatureStore(folder, self.cache_bytes)
        device = choose_device(self.device)
        return FeatureSource(model, preprocessing, store, device, self.events, self.check)


_Function = TypeVar("_Function", bound=Callable[..., Any])


def ends_progress(function: _Function) -> _Function:
    """A function of a ``runtime`` whose sink of events learns that no more come: bars go away.

    A sink that has something to take away has ``when_done``.
    """

    @wraps(function)
    def ended(*arguments: Any, **named: Any) -> Any:
        try:
            return function(*arguments, **named)
        finally:
            when_done = getattr(getattr(named.get("runtime"), "events", None), "when_done", None)
            if callable(when_done):
                when_done()

    return cast(_Function, ended)


class Clock:
    """Times phases and announces them.

    Args:
        subject: what the work is on, if that has a name that helps.
    """

    def __init__(self, events: EventSink, subject: str = "") -> None:
        self.events = events
        self.times: dict[str, float] = {}
        self._about = {"subject": subject} if subject else {}
        self._start = time.perf_counter()

    @contextmanager
    def phase(self, name: str, total: int | None) -> Iterator[None]:
        """One phase; the seconds of phases of one name add up."""
        self.events(make_event("phase", phase=name, total=total, **self._about))
        with self.timed(name):
            yield

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """The same of what is too short to be announced."""
        start = time.perf_counter()
        yield
        self.times[name] = round(self.times.get(name, 0) + time.perf_counter() - start, 3)

    def seconds(self) -> dict[str, float]:
        """Seconds by phase, and in all."""
        return {**self.times, "total": round(time.perf_counter() - self._start, 3)}
