"""An episodic pre-training from a pack: trained, kept every few minutes, exported, resumed."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...core.atomic import require_writable, write_json
from ...core.errors import InputError
from ...core.events import make_event
from ...core.limits import BATCH, EPISODES, MINUTES, SEED
from ...features.extraction import choose_device
from ...pipeline.runtime import Runtime
from ..curve import draw_episodes
from ..export import FinishedModel, halved, write_model
from ..state import NAME, alone_in, require_new, restore_state, save_state
from .pack import Pack, read_pack
from .recipe import Recipe, read_recipe
from .trainer import EpisodeTrainer, learning_rate

SAVE_EVERY_SECONDS = 180.0
CURVE, RECORD = "curve.png", "pretraining.json"
FORMAT = 2
"""Part of every checkpoint's hash: raised when the same recipe would be trained in another way."""


@dataclass(frozen=True)
class EpisodesRun:
    """How a run ended: the registry entry, and the history, one dictionary an epoch."""

    entry: Path
    history: list[dict[str, Any]]
    trainer: EpisodeTrainer


@dataclass(frozen=True)
class Amount:
    """How much is trained.

    Attributes:
        episodes, batch: in place of the recipe's.
        minutes: no step starts after so many; the state is kept and the model exported.

    Raises:
        InputError: one is out of range.
    """

    episodes: int | None = None
    batch: int | None = None
    minutes: float = math.inf

    def __post_init__(self) -> None:
        for limits, value in ((EPISODES, self.episodes), (BATCH, self.batch)):
            if value is not None:
                limits.check(value)
        MINUTES.check(self.minutes)


def pretrain_packed(
    recipe_path: str | os.PathLike[str],
    pack_path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    amount: Amount | None = None,
    resume: bool = False,
    runtime: Runtime | None = None,
) -> EpisodesRun:
    """Pre-train a backbone on a packed file by a recipe.

    A checkpoint goes on on any device, and with any ``batch``: the learning rate follows the
    episodes that were done. On one CPU with given threads and one batch, a run that was stopped
    and resumed ends with exactly the weights of one that was not.

    Args:
        out: a folder for the checkpoint, the model and the record.
        amount: of training; the recipe's, without a limit of time, where not given.
        runtime: device, progress and cancelling, which is asked before every step: true keeps the
            state, exports the model and ends the run.

    Raises:
        InputError, StorageError: see each message.
    """
    SEED.check(seed)
    out = Path(out)
    require_writable(out / NAME)
    with alone_in(out):
        return _pretrain(
            recipe_path, pack_path, out, seed, amount or Amount(), resume, runtime or Runtime()
        )


def _pretrain(
    recipe_path: str | os.PathLike[str],
    pack_path: str | os.PathLike[str],
    out: Path,
    seed: int,
    amount: Amount,
    resume: bool,
    runtime: Runtime,
) -> EpisodesRun:
    start = time.monotonic()
    events = runtime.events
    recipe = read_recipe(recipe_path)
    plan = recipe.training
    plan = replace(
        plan, episodes=amount.episodes or plan.episodes, batch=amount.batch or plan.batch
    )
    recipe = replace(recipe, training=plan)
    pack = read_pack(Path(pack_path))
    missing = {group.modality for group in pack.groups} - set(recipe.preprocessing)
    if missing:
        raise InputError(
            f"The pack has {missing.pop()}, which 'preprocessing' of the recipe lacks."
        )
    name = recipe.model["id"]
    checkpoint = require_new(out, resume, (f"{name}.json", f"{name}.safetensors", RECORD, CURVE))
    trainer = EpisodeTrainer(recipe, pack, seed, choose_device(runtime.device))
    networks = {"network": trainer.network, "averaged": trainer.averaged}
    key = _key(recipe, pack.sha256, seed)
    history: list[dict[str, Any]] = []
    if checkpoint.exists():
        trainer.done, history = restore_state(
            checkpoint, key, networks, trainer.optimizer, trainer.running
        )
    kept = begun = time.monotonic()
    first = trainer.done

    def save() -> None:
        trainer.require_finite()
        save_state(
            checkpoint, key, trainer.done, networks, trainer.optimizer, trainer.running, history
        )

    def stop() -> bool:
        return runtime.cancel() or time.monotonic() - start > 60 * amount.minutes

    events(make_event("phase", phase="pretrain", total=plan.episodes))
    for _ in trainer.run(stop):
        now = time.monotonic()
        # Batches need not divide an epoch: it ends with the step that crosses its end.
        if trainer.done % plan.epoch < plan.batch or trainer.done >= plan.episodes:
            record = {"episodes": trainer.done, **trainer.reset_running()}
            record["learning_rate"] = learning_rate(plan, trainer.done - 1)
            seconds = round((now - begun) / max(1, trainer.done - first), 3)
            history.append(record)
            events(make_event("epoch", phase="pretrain", **record, seconds_per_episode=seconds))
        if now - kept > SAVE_EVERY_SECONDS:
            save()
            kept = now
    save()
    entry = export(trainer, recipe, pack, seed, out)
    if history:
        draw_episodes(history, out / CURVE)
    write_json(
        out / RECORD,
        {
            "recipe": recipe.to_json(),
            "pack": pack.sha256,
            "seed": seed,
            "episodes": trainer.done,
            "history": history,
        },
    )
    for kind, path in (("model", entry), ("report", out / RECORD)):
        events(make_event("result", kind=kind, path=str(path)))
    return EpisodesRun(entry, history, trainer)


def export(trainer: EpisodeTrainer, recipe: Recipe, pack: Pack, seed: int, out: Path) -> Path:
    """Write ``ID.safetensors`` and ``ID.json``; returns the latter, for ``--model``.

    Raises:
        InputError: a weight is too large. StorageError: they can't be written.
    """
    about = FinishedModel(
        model=recipe.model,
        architecture={**recipe.architecture, "out_channels": 1},
        preprocessing=recipe.preprocessing,
        window=[2 * n for n in recipe.training.crop],
        classes={},
    )
    done = {"seed": seed, "episodes": trainer.done, "seen": list(pack.seen)}
    done |= {"recipe": recipe.to_json(), "pack": pack.sha256}
    return write_model(out, halved(trainer.averaged.backbone), done, about)


def _key(recipe: Recipe, pack: str, seed: int) -> str:
    """Hash of what a checkpoint depends on; the name, the length and the batch are no part."""
    data = {k: v for k, v in recipe.to_json().items() if k != "model"}
    data["training"] = {
        k: v for k, v in data["training"].items() if k not in ("episodes", "batch", "epoch")
    }
    text = json.dumps([FORMAT, seed, pack, data], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
