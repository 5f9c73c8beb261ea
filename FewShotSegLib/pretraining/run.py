"""A whole pre-training: prepare the cases, train, validate, keep the state, export."""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import __version__
from ..core.atomic import write_json
from ..core.errors import Cancelled, InputError
from ..core.events import EventSink, ignore, make_event
from ..core.limits import SEED, STEPS
from ..io.volumes import read_image
from ..models.registry import find_model
from ..models.seen import seen_by
from ..pipeline.adapter_file import content_hash
from ..pipeline.runtime import Runtime
from .assembly import Assembly, read_assembly
from .cases import Case, prepare_case
from .curve import draw_curve
from .ddp import Ranks, process_group
from .export import export_model
from .network import PretrainingNetwork, build_network
from .state import alone_in, require_new, restore_state, save_state
from .trainer import STOPPED, Trainer, learning_rate
from .validation import validate

SAVE_EVERY_SECONDS = 60.0
CURVE, RECORD = "curve.png", "pretraining.json"
FORMAT = 3
"""Part of every recipe: raised when the same assembly would be trained in another way."""


@dataclass(frozen=True)
class Pretrained:
    """How a pre-training ended.

    Attributes:
        entry: the registry entry, for ``--model``. curve: the picture.
        network: the averaged weights with all heads. trainer: with the last weights.
        history: one dictionary an epoch, as in the ``epoch`` events.
    """

    entry: Path
    curve: Path
    network: PretrainingNetwork
    trainer: Trainer
    history: list[dict[str, Any]]


def pretrain(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | None = None,
    steps: int | None = None,
    seed: int = 0,
    resume: bool = False,
    runtime: Runtime | None = None,
) -> Pretrained:
    """Pre-train a foundation model on an assembly of partially labelled data (eq. 1).

    Under ``torchrun`` every process calls this, and the first one writes.

    Args:
        path: the assembly's description. data: where its folders are, if not beside it.
        steps: in place of its own.
        out: a folder for the prepared volumes, the checkpoint, the model and the curve.
        resume: go on from the checkpoint that an interrupted run left in ``out``, if any.
        runtime: device, progress, cancelling.

    Raises:
        InputError, StorageError: see each message.
        Cancelled: the user stopped; the checkpoint holds what was done.
    """
    SEED.check(seed)
    if steps is not None:
        STEPS.check(steps)
    runtime, out = runtime or Runtime(), Path(out)
    with ExitStack() as stack:
        ranks = stack.enter_context(process_group(runtime.device))
        if not ranks.first:
            runtime = replace(runtime, events=ignore)
        assembly = read_assembly(path, steps, data)
        build_network(assembly, seed)  # reported before hours of preparation
        _require_no_data(assembly, out)
        _require_no_inputs(assembly, Path(path), out)
        checkpoint = require_new(out, resume, _results(assembly))
        if ranks.first:
            stack.enter_context(alone_in(out))
        ranks.wait()  # the first must not write a checkpoint before the others have looked
        cases, held_out = _prepare(assembly, out / "cases", ranks, runtime)
        _require_examples(assembly, cases)
        trainer = Trainer(assembly, cases, ranks, seed, runtime.cancel)
        seen = seen_images(assembly, runtime) if ranks.first else set()
        history = _train(trainer, held_out, checkpoint, seed, runtime.events)
        entry, curve = out / f"{assembly.model['id']}.json", out / CURVE
        if ranks.first:
            steps = assembly.training.steps
            export_model(trainer.averaged, assembly, out, seed, steps, sorted(seen))
            draw_curve(history, assembly.classes, curve)
            recipe = {"version": __version__, "seed": seed, "processes": ranks.world}
            record = out / RECORD
            write_json(
                record,
                {**recipe, "assembly": assembly.to_json(with_cases=True), "history": history},
            )
            for kind, file in (("model", entry), ("curve", curve), ("report", record)):
                runtime.events(make_event("result", kind=kind, path=str(file)))
        ranks.wait()
        return Pretrained(entry, curve, trainer.averaged, trainer, history)


def seen_images(assembly: Assembly, runtime: Runtime) -> set[str]:
    """Hashes of every image that is trained on or validated with, and of those that the model has
    seen that it starts from."""
    seen: set[str] = set()
    if assembly.start_from is not None:
        seen |= seen_by(assembly.start_from) or set()
    for data_set in assembly.data:
        for source in (*data_set.sources, *data_set.held_out):
            if source.image is not None:
                if runtime.cancel():
                    raise Cancelled(STOPPED)
                seen.add(content_hash(read_image(source.image)))
    return seen


def _results(assembly: Assembly) -> tuple[str, ...]:
    """The names of the files that a pre-training ends with."""
    name = assembly.model["id"]
    return f"{name}.json", f"{name}.safetensors", CURVE, RECORD


def _require_no_data(assembly: Assembly, out: Path) -> None:
    """Results don't go among a user's images."""
    for data_set in assembly.data:
        for source in (*data_set.sources, *data_set.held_out):
            if out.resolve() in source.segmentation.resolve().parents:
                raise InputError(
                    f"{out} holds the data set '{data_set.name}'; choose another --out."
                )


def _require_no_inputs(assembly: Assembly, path: Path, out: Path) -> None:
    """The model must not take the place of the assembly, or of the model that it starts from."""
    inputs = [path]
    if assembly.start_from is not None:
        model = find_model(assembly.start_from)
        inputs += [Path(assembly.start_from), model.entry.weights]
    inputs = [file.resolve() for file in inputs]
    for result in _results(assembly):
        if (out / result).resolve() in inputs:
            raise InputError(
                f"{out / result} would be replaced by a result; choose another --out, or another "
                "id in 'model'."
            )


def _require_examples(assembly: Assembly, cases: list[list[Case]]) -> None:
    """A class that no case shows is a mistake in the label values or names, not a class."""
    shown = {number for group in cases for case in group for number in case.places}
    for number, name in enumerate(assembly.classes):
        if number not in shown:
            raise InputError(
                f"No case to train on has voxels of the class '{name}'; check its label values or "
                "the names of its segments, or leave it out."
            )


def _prepare(
    assembly: Assembly, folder: Path, ranks: Ranks, runtime: Runtime
) -> tuple[list[list[Case]], list[Case]]:
    """The training cases by data set, and the held-out ones."""

    def check() -> None:
        if runtime.cancel():
            raise Cancelled(STOPPED)

    def tell(text: str) -> None:
        runtime.events(make_event("warning", message=text))

    jobs = [
        (number, data_set, source, source in data_set.held_out)
        for number, data_set in enumerate(assembly.data)
        for source in (*data_set.sources, *data_set.held_out)
    ]
    runtime.events(make_event("phase", phase="prepare", total=len(jobs)))
    # Each process prepares its share; then all are there, and loading them is quick.
    mine = jobs[ranks.rank :: ranks.world]
    for done, (_, data_set, source, _) in enumerate(mine, 1):
        prepare_case(assembly, data_set, source, folder, check, tell)
        progress = {"done": min(len(jobs), done * ranks.world), "total": len(jobs)}
        runtime.events(make_event("progress", phase="prepare", **progress))
    ranks.wait()
    cases: list[list[Case]] = [[] for _ in assembly.data]
    held_out: list[Case] = []
    for number, data_set, source, apart in jobs:
        case = prepare_case(assembly, data_set, source, folder, check)
        (held_out if apart else cases[number]).append(case)
    return cases, held_out


def _train(
    trainer: Trainer, held_out: list[Case], checkpoint: Path, seed: int, events: EventSink
) -> list[dict[str, Any]]:
    """All the steps that are left; returns the history."""
    plan, ranks = trainer.plan, trainer.ranks
    recipe = _recipe(trainer.assembly, seed, ranks.world)
    networks = {"network": trainer.network, "averaged": trainer.averaged}
    history: list[dict[str, Any]] = []
    if checkpoint.exists():
        trainer.done, history = restore_state(
            checkpoint, recipe, networks, trainer.optimizer, trainer.running
        )
        if trainer.done > plan.steps:
            raise InputError(
                f"The checkpoint {checkpoint} is damaged: it is of step {trainer.done} of "
                f"{plan.steps}. Choose another --out, or remove it to start again."
            )
    ranks.wait()
    epochs = -(-plan.steps // plan.epoch_steps)
    events(make_event("phase", phase="pretrain", total=plan.steps))
    clock = _Clock(trainer.done)

    def save() -> None:
        clock.saved()
        trainer.require_finite()
        if ranks.first:
            state = (trainer.done, networks, trainer.optimizer, trainer.running, history)
            save_state(checkpoint, recipe, *state)

    def close_epoch() -> None:
        speed = clock.lap(trainer.done)
        record = _record(trainer, held_out, trainer.done, epochs)
        clock.start()
        history.append(record)
        save()
        events(make_event("epoch", phase="pretrain", **record, **speed))

    def at_end() -> bool:
        return trainer.done > 0 and (
            trainer.done % plan.epoch_steps == 0 or trainer.done == plan.steps
        )

    try:
        # A validation that was stopped is done again.
        if at_end() and (not history or history[-1]["step"] != trainer.done):
            close_epoch()
        for _ in trainer.run():
            if at_end():
                close_epoch()
            elif clock.due():
                save()
    except Cancelled:
        save()
        raise
    return history


def _record(trainer: Trainer, held_out: list[Case], step: int, epochs: int) -> dict[str, Any]:
    """What is known at an epoch's end; with Dice where it is time for that, and at the very end."""
    plan = trainer.plan
    epoch = -(-step // plan.epoch_steps)
    dice: dict[str, Any] = {}
    if held_out and (epoch % plan.validate_every == 0 or step == plan.steps):
        found = validate(trainer.averaged, trainer.assembly, held_out, trainer.ranks, trainer.check)
        if found:
            dice = {"dice": found, "mean_dice": round(sum(found.values()) / len(found), 4)}
    # Last, because it forgets, and a validation that is stopped is done again after resuming.
    losses = trainer.reset_running()
    rate = learning_rate(plan, step - 1)
    head = {"epoch": epoch, "epochs": epochs, "step": step, "steps": plan.steps}
    return {**head, **losses, "learning_rate": rate, **dice}


def _recipe(assembly: Assembly, seed: int, world: int) -> str:
    """Hash of what a checkpoint depends on; what the model is called is no part of it."""
    data = {k: v for k, v in assembly.to_json(with_cases=True).items() if k != "model"}
    start = find_model(assembly.start_from).identity if assembly.start_from else None
    text = json.dumps([FORMAT, seed, world, start, data], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class _Clock:
    """When the state was last kept, and how fast the steps go."""

    def __init__(self, step: int) -> None:
        self._kept = self._start = time.monotonic()
        self._step = step

    def due(self) -> bool:
        return time.monotonic() - self._kept > SAVE_EVERY_SECONDS

    def saved(self) -> None:
        self._kept = time.monotonic()

    def start(self) -> None:
        self._start = time.monotonic()

    def lap(self, step: int) -> dict[str, float]:
        """Seconds a step since the start; nothing where no step was taken."""
        taken, self._step = step - self._step, step
        seconds = time.monotonic() - self._start
        return {"seconds_per_step": round(seconds / taken, 4)} if taken else {}
