"""After a training: what Dice new volumes can be expected to have, put into the adapter's file.

The adapter is complete before, in its file too: whatever goes wrong here, or stops it, costs the
estimate alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..core.errors import Cancelled, FewShotSegError, in_words, is_out_of_memory
from ..core.events import make_event
from ..core.expected import Expected
from ..core.geometry import Volume
from ..core.options import AdaptOptions
from ..features.extraction import FeatureSource
from ..features.store import VolumeFeatures
from ..inference.evidence import Evidence
from ..inference.prediction import model_probabilities, original_masks
from ..methods.adapters.base import Adapter
from ..training.run import Run
from ..training.validation import PHASE, Start, Subject, cross_validate
from .adapter_file import TrainedAdapter
from .inputs import PathLike
from .runtime import Clock


def before_measuring(options: AdaptOptions, supports: int, on_features: bool) -> Expected:
    """What is known when a training has ended: ``unfinished`` where it is to be measured.

    Args:
        on_features: whether the adapter was trained on stored features.
    """
    if supports < 2:
        return Expected("one support")
    if not options.measures:
        return Expected("skipped")
    return Expected("unfinished" if on_features else "backbone")


def measure(
    trained: TrainedAdapter,
    subject: Subject,
    start: Start,
    source: FeatureSource,
    run: Run,
    clock: Clock,
) -> None:
    """Give an adapter what is to be expected of it.

    It stays ``unfinished`` where this is stopped, or fails, which is a warning: the adapter
    itself is good.

    Args:
        start: where the training of a fold begins. source: of the features; it is asked for none.
    """

    def predict(adapter: Adapter, features: VolumeFeatures, volume: Volume) -> Sequence[np.ndarray]:
        scores = model_probabilities(
            adapter, features, source.device, lambda done, total: run.check()
        )
        placement = source.preprocessing.placement(volume)
        return original_masks(scores, placement, trained.exclusive)

    held_out = Evidence(trained.evidence.supports) if trained.evidence else Evidence([])
    with after_the_adapter(run, "What to expect of new volumes could not be measured."):
        with clock.phase(PHASE, None):
            trained.expected = cross_validate(subject, start, predict, run, held_out.keep)
        if trained.evidence:
            trained.evidence = held_out
        trained.training["seconds"] = clock.seconds()


@contextmanager
def after_the_adapter(run: Run, failed: str) -> Iterator[None]:
    """Work on an adapter that is complete: whatever stops it, or goes wrong, costs this alone.

    Args:
        failed: the sentence that a failure's warning begins with.
    """
    try:
        yield
    except Cancelled:
        return
    except Exception as error:
        if not isinstance(error, FewShotSegError) and not is_out_of_memory(error):
            raise
        _warn(run, f"{failed} {in_words(error)}")


class WrittenAdapter:
    """An adapter's file, which is written again once more is known, unless it changed meanwhile.

    Args: ``path``: of the file.
    """

    def __init__(self, path: PathLike, trained: TrainedAdapter) -> None:
        self._path, self._trained = Path(path), trained
        trained.save(path)
        self._written = self._state()

    def update(self, run: Run) -> None:
        """Write it again. What cannot be written, or is another's by now, is left as it is."""
        expected = self._trained.expected
        known = expected is not None and expected.status != "unfinished"
        if not known and self._trained.companion is None:
            return
        if self._state() != self._written:
            _warn(run, f"{self._path} was changed meanwhile, and is left as it is.")
            return
        try:
            self._trained.save(self._path)
            self._written = self._state()
        except FewShotSegError as error:
            _warn(run, f"The adapter is complete, but not what was added to it since. {error}")

    def _state(self) -> tuple[int, ...] | None:
        try:
            state = os.stat(self._path)
        except OSError:
            return None
        return state.st_ino, state.st_size, state.st_mtime_ns


def _warn(run: Run, message: str) -> None:
    run.events(make_event("warning", message=message))
