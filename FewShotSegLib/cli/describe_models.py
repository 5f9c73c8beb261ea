"""Foundation models as text for a terminal: the list, all that is known of one, a licence."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from ..core.method_sizes import network_parameters
from ..core.model_folders import DEFAULT_MODELS, UnusableEntry
from ..core.published_models import PublishedModel, published_models
from ..core.quantities import bytes_text
from ..core.tables import text_table
from ..models.registry import ModelEntry

WIDTH = 100
_WHOLE: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
"""Addresses and paths stay in one piece."""


def models_text(
    entries: Sequence[ModelEntry], unusable: Sequence[UnusableEntry] = (), registry: bool = True
) -> str:
    """The registry, a line each: what there is, whether it is here, or else how to get it.

    Args:
        registry: whether models that are published as archives are listed as well.

    Files among the entries that can't be used come last, with the reason.
    """
    rows = [
        [
            entry.id,
            "/".join(entry.modality),
            _network(entry),
            entry.licence or "not stated",
            _whereabouts(entry),
        ]
        for entry in entries
    ]
    lines = [text_table(["id", "images", "network (parameters)", "licence", "weights"], rows), ""]
    known = {entry.id for entry in entries}
    archives = [
        [model.id, "/".join(model.modality), str(len(model.classes)), model.licence, "not here"]
        for model in published_models().values()
        if registry and model.id not in known
    ]
    if archives:
        header = ["published as an archive", "images", "classes", "licence", "weights"]
        lines += [text_table(header, archives), ""]
    defaults = ", ".join(f"{name} for {kind}" for kind, name in DEFAULT_MODELS.items())
    if entries:
        lines.append(f"Default: {defaults}; --model ID takes another.")
    lines += [
        "All that is known of one, and how its weights come: fewshotseg models ID",
        "To download: fewshotseg download ID; fetched by hand: fewshotseg import ID FILE",
    ]
    if unusable:
        lines += ["", "Can't be used until they are corrected or removed:"]
    for fault in unusable:
        text = f"  {fault.path.name}: {fault.reason}"
        lines.append(textwrap.fill(text, WIDTH, subsequent_indent=" " * 4, **_WHOLE))
    return "\n".join(lines)


def model_text(entry: ModelEntry) -> str:
    """One model: what it was trained on, what it knows, and whether and how its weights come."""
    command = ""
    if entry.weights.is_file():
        weights = f"{entry.weights} ({bytes_text(entry.weights.stat().st_size)})"
    elif entry.weights_url:
        size = bytes_text(entry.size) if entry.size else "size unknown until the server is asked"
        weights, command = f"not here ({size}); to get them:", f"fewshotseg download {entry.id}"
    else:
        weights = f"not here; get {entry.weights.name} by hand from the address above, then:"
        command = f"fewshotseg import {entry.id} FILE"
    kinds = [kind for kind, name in DEFAULT_MODELS.items() if name == entry.id]
    default = f", the default for {' and '.join(kinds)}" if kinds else ""
    lines = [f"{entry.title} [{entry.id}{default}]"]
    for name, value in (
        ("about", entry.description),
        ("images", "/".join(entry.modality)),
        ("network", _network(entry)),
        ("classes", ", ".join(entry.classes) or "none that training could start from"),
        ("licence", _licence(entry)),
        ("cite", entry.citation),
        ("from", entry.source_url),
        ("weights", weights),
    ):
        if value:
            lines.append(_field(name, value))
    if command:
        lines.append(" " * 11 + command)
    return "\n".join(lines)


def published_text(model: PublishedModel) -> str:
    """A model that is published as an archive and not here yet."""
    lines = [f"{model.title} [{model.id}]"]
    size = bytes_text(model.size) if model.size else "size unknown until the server is asked"
    for name, value in (
        ("about", model.description),
        ("images", "/".join(model.modality)),
        ("classes", ", ".join(model.classes)),
        ("licence", _licence(model)),
        ("cite", model.citation),
        ("from", model.source_url),
        ("weights", f"not here ({size}); to get them:"),
    ):
        lines.append(_field(name, value))
    return "\n".join([*lines, " " * 11 + f"fewshotseg download {model.id}"])


def licence_text(entry: ModelEntry | PublishedModel, size: int | None = None) -> str:
    """What a person agrees to by using a model, and whom to cite.

    Args:
        size: of the weights in bytes; None leaves that line out.
    """
    lines = [f"{entry.title} [{entry.id}]"]
    lines += [_field("licence", _licence(entry)), _field("cite", entry.citation)]
    lines += [_field("from", entry.source_url)]
    return "\n".join([*lines, _field("size", bytes_text(size))] if size else lines)


def _licence(entry: ModelEntry | PublishedModel) -> str:
    """What it is called, where it can be read, and when it was last looked up there."""
    text = entry.licence or "not stated"
    if entry.licence_url:
        text += f": {entry.licence_url}"
    return f"{text} (checked on {entry.checked})" if entry.checked else text


def _network(entry: ModelEntry) -> str:
    """The architecture and about how many parameters it has, where they were counted."""
    count = network_parameters(entry.architecture)
    millions = f" ({count / 1e6:.{0 if count >= 1e7 else 1}f} M)" if count else ""
    return entry.architecture["name"] + millions


def _whereabouts(entry: ModelEntry) -> str:
    if entry.weights.is_file():
        return f"here, {bytes_text(entry.weights.stat().st_size)}"
    if not entry.weights_url:
        return "not here, by hand"
    return "not here, download" + (f" of {bytes_text(entry.size)}" if entry.size else "")


def _field(name: str, value: str) -> str:
    """A named value, wrapped; addresses and paths stay whole."""
    return textwrap.fill(
        value,
        WIDTH,
        initial_indent=f"  {name:<9}",
        subsequent_indent=" " * 11,
        **_WHOLE,
    )
