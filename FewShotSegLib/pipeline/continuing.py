"""A trained adapter gone on with: what of it stays, and how much shorter its training is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..core.annotation import as_structures
from ..core.errors import InputError
from ..core.events import EventSink, make_event
from ..core.options import AdaptOptions
from ..core.rounds import Round, round_of
from ..core.settings import TrainingSettings
from ..training.support_set import Support
from .adapter_file import TrainedAdapter, content_hash
from .inputs import PathLike

PART = 1 / 3
"""The part of the epochs of a new training that one which goes on has: it begins near its end."""
SLOWER = 0.5
"""The part of the learning rate likewise."""
ORIGINAL = "original_settings"
"""Where the header keeps the settings of the first training."""
OWN = ("method", "decoder", "features", "preset", "exclusive", "modality")
"""Options that an adapter has for good."""


def continued(
    begin: TrainedAdapter | PathLike | None, options: AdaptOptions
) -> tuple[TrainedAdapter | None, AdaptOptions, AdaptOptions]:
    """An adapter to go on with, the options of the training, and those of a new one like its first.

    Args:
        begin: the adapter; None for a training that begins anew, whose options stay as they are.
        options: as they were given; settings in them are those of the training that goes on.

    Raises:
        InputError: the adapter's backbone was trained, or an option is another than its.
    """
    if begin is None:
        return None, options, options
    before = begin if isinstance(begin, TrainedAdapter) else TrainedAdapter.load(begin)
    if before.decoder is not None:
        raise InputError(
            f"This adapter's method, {before.method}, trains the backbone: it can't be gone on "
            "with. Train a new one on all annotated volumes."
        )
    own = {
        "method": before.method,
        "features": before.features,
        "preset": before.training.get("preset", "own"),
        "exclusive": before.exclusive,
        "modality": before.modality,
        "decoder": None,
    }
    fresh = AdaptOptions()
    for name, value in own.items():
        given = getattr(options, name)
        if given not in (value, getattr(fresh, name)):
            raise InputError(
                f"The adapter that is gone on with has {name} {value}, not {given}. Train a new "
                "one for that."
            )
    wanted = as_structures(options.structures)
    names = [structure.name for structure in before.structures]
    if wanted is not None and sorted(s.name for s in wanted) != sorted(names):
        raise InputError(
            f"The adapter that is gone on with knows {', '.join(names)}. Train a new one for other "
            "structures."
        )
    kept = before.training.get(ORIGINAL) or before.training.get("settings", {})
    given_settings = options.settings
    changed = dict(given_settings) if isinstance(given_settings, Mapping) else {}
    if isinstance(given_settings, TrainingSettings):
        changed = given_settings.to_json()
    whole = replace(options, structures=tuple(before.structures), settings=kept, **own)
    base = whole.training
    shorter: dict[str, Any] = {"epochs": max(1, round(PART * base.epochs)), "warm_up": 1}
    rate = base.learning_rate or before.adapter.learning_rate
    shorter["learning_rate"] = SLOWER * rate
    return before, replace(whole, settings={**kept, **shorter, **changed}), whole


def rounds_after(before: TrainedAdapter, now: TrainedAdapter) -> list[Round]:
    """The rounds of an adapter that was gone on with, its own the last."""
    return [*rounds_of(before), _last(now, [s.get("content", "") for s in before.supports])]


def rounds_of(trained: TrainedAdapter) -> list[Round]:
    """The rounds that an adapter's file has, or its one training."""
    return list(trained.rounds) or [_last(trained, ())]


def _last(trained: TrainedAdapter, before: Sequence[str]) -> Round:
    contents = [s.get("content", "") for s in trained.supports]
    return round_of(contents, before, trained.training, trained.expected)


def tell_missing(
    before: TrainedAdapter, supports: Sequence[Support], events: EventSink, anew: bool
) -> None:
    """Warn where volumes of the round before are not given: an adapter forgets them; and where its
    second network, which is never gone on with, would be lost unseen.

    Args:
        anew: whether a second network is trained in this round.
    """
    if before.companion is not None and not anew:
        message = (
            "The adapter was averaged with a second network, which this round does not train: the "
            "new file has none. With the best effort it is trained anew."
        )
        events(make_event("warning", message=message))
    given = {content_hash(support.volume) for support in supports}
    missing = sum(support.get("content") not in given for support in before.supports)
    if missing:
        message = (
            f"{missing} of the {len(before.supports)} annotated volumes of before are not given "
            "now: the adapter may forget what they show. Give all of them; their features are "
            "cached."
        )
        events(make_event("warning", message=message))
