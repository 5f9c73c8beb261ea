"""``models``, ``download``, ``import`` and ``remove``: foundation models."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.errors import Cancelled, InputError
from ...core.events import EventSink, make_event
from ...core.model_answers import Answers, flag
from .common import say

if TYPE_CHECKING:  # it loads numpy, which --help does not wait for
    from ...core.published_models import PublishedModel


def models_command(args: argparse.Namespace, sink: EventSink) -> int:
    """List the foundation models, tell all of one, or add one."""
    if args.model == "add":
        return _add(args, sink)
    said = [flag(option.name) for option in fields(Answers) if getattr(args, option.name)]
    if args.path is not None or said:
        what = said[0] if said else f"A path ({args.path})"
        raise InputError(f"{what} goes with 'models add PATH' alone.")
    from ...core.published_models import published_to_download
    from ...models.registry import find_model, list_entries, unusable_entries
    from ..describe_models import model_text, models_text, published_text

    one = args.model is not None
    published = published_to_download(args.model) if one else None
    if published is not None:
        known = [{**vars(published), "installed": False}]
        sink(make_event("result", kind="models", path=None, models=known, unusable=[]))
        say(args, json.dumps(known, indent=2) if args.json else published_text(published))
        return 0
    entries = [find_model(args.model).entry] if one else list_entries()
    unusable = [] if one else unusable_entries()
    data = [entry.to_json() for entry in entries]
    faults = [{"path": str(fault.path), "reason": fault.reason} for fault in unusable]
    sink(make_event("result", kind="models", path=None, models=data, unusable=faults))
    if args.json:
        say(args, json.dumps(data, indent=2))
    else:
        say(args, model_text(entries[0]) if one else models_text(entries, unusable))
    return 0


def _add(args: argparse.Namespace, sink: EventSink) -> int:
    """Make a published model one of the registry."""
    if args.path is None:
        raise InputError("Say which folder or file: fewshotseg models add PATH")
    from ...models.formats.adding import Unanswered, add_model

    try:
        added = add_model(args.path, **{f.name: getattr(args, f.name) for f in fields(Answers)})
    except Unanswered as error:
        say(args, "\n".join(error.facts))
        raise
    facts = list(added.facts)
    sink(make_event("result", kind="model", path=str(added.path), id=added.id, found=facts))
    say(args, "\n".join([*facts, f"It is added as '{added.id}': --model {added.id} takes it."]))
    return 0


def download_command(args: argparse.Namespace, sink: EventSink) -> int:
    """Show the licence and the size, ask, and fetch a model's weights."""
    from ...core.published_models import published_to_download
    from ...models.download import announced_size, download, require_downloadable
    from ...models.registry import find_model
    from ..describe_models import licence_text

    published = published_to_download(args.model)
    if published is not None:
        return _download_published(args, sink, published)
    entry = find_model(args.model).entry
    require_downloadable(entry)
    size = None if args.events else announced_size(entry)
    text = licence_text(entry, size)
    say(args, text if size else f"{text}\n  size     unknown: the server does not tell")
    if not args.accept_licence:
        _require_consent(args, entry.licence)
    _installed(args, sink, download(args.model, sink, size=size))
    return 0


def _download_published(args: argparse.Namespace, sink: EventSink, model: PublishedModel) -> int:
    """The same for a model that is published as an archive."""
    from ...models.published import announced_size, download_published
    from ..describe_models import licence_text

    size = None if args.events else announced_size(model)
    text = licence_text(model, size)
    say(args, text if size else f"{text}\n  size     unknown: the server does not tell")
    if not args.accept_licence:
        _require_consent(args, model.licence)
    _installed(args, sink, download_published(model, sink, size=size))
    return 0


def import_command(args: argparse.Namespace, sink: EventSink) -> int:
    """Install a model's weights from a file."""
    from ...core.published_models import published_to_download
    from ...models.download import import_weights
    from ...models.published import import_published
    from ...models.registry import find_model
    from ..describe_models import licence_text

    published = published_to_download(args.model)
    if published is not None:
        say(args, licence_text(published))
        _installed(args, sink, import_published(published, args.file))
        return 0
    say(args, licence_text(find_model(args.model).entry))
    _installed(args, sink, import_weights(args.model, args.file, sink))
    return 0


def remove_command(args: argparse.Namespace, sink: EventSink) -> int:
    """Delete a model's weights."""
    from ...core.model_folders import remove_model

    if remove_model(args.model):
        say(args, f"The weights of '{args.model}' are removed.")
    else:
        say(args, f"There are no weights of '{args.model}' to remove.")
    return 0


def _installed(args: argparse.Namespace, sink: EventSink, path: Path) -> None:
    sink(make_event("result", kind="weights", path=str(path)))
    say(args, str(path))


def _require_consent(args: argparse.Namespace, licence: str) -> None:
    """Ask a person; whoever can't be asked has to say so in the command.

    Raises:
        InputError: nobody can be asked. Cancelled: the answer is no.
    """
    if args.events or not (sys.stdin and sys.stdin.isatty()):
        raise InputError(
            f"Nobody can be asked here whether the licence ({licence}) is accepted. Read it, and "
            "add --accept-licence."
        )
    print("Do you accept this licence, and download the weights? [y/N] ", end="", flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Cancelled("Nothing was downloaded.")
