"""Models that their makers publish as archives, and that become entries when they are downloaded.

What their network is, nobody knows before its files are here; so they are no entries of the
registry yet. ``Resources/published_models.json`` lists them; ``models.published`` fetches them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from .errors import ModelError
from .json_fields import load_json
from .json_schema import from_json
from .model_entry import Address, Day, Id, Line, Modality, Row, Text
from .model_folders import usable_entries

FILE = Path(__file__).resolve().parents[1] / "Resources" / "published_models.json"


@dataclass(frozen=True)
class PublishedModel:
    """One of them.

    Attributes:
        format: of what is in the archive: nnU-Net v2's result folder.
        archive_url: of a zip file. folder: in it, with the model.
        orientation: of the images that it was trained on, which its files don't tell.
        classes: the names of rows of its head, as its makers publish them.
        size: of the archive in bytes; None where the makers don't say.
        others: see :class:`.model_entry.EntryFields`.
    """

    id: Id
    title: Line
    description: Text
    modality: tuple[Modality, ...]
    format: Literal["nnunet"]
    archive_url: Address
    folder: Line
    orientation: str
    classes: dict[str, Row]
    licence: Line
    licence_url: Address
    checked: Day
    citation: Text
    source_url: Text
    size: int | None


@cache
def published_models() -> dict[str, PublishedModel]:
    """All of them by id."""
    found = from_json(list[PublishedModel], load_json(FILE, "list of published models"), "the list")
    return {model.id: model for model in found}


def published_model(model_id: str) -> PublishedModel:
    """One of them.

    Raises:
        ModelError: there is none of that id.
    """
    try:
        return published_models()[model_id]
    except KeyError:
        raise ModelError(f"There is no published model '{model_id}'.") from None


def published_to_download(model_id: str) -> PublishedModel | None:
    """The published model of an id that is not among the user's entries yet; None if there is
    none."""
    if any(entry["id"] == model_id for _, entry in usable_entries()[0]):
        return None
    return published_models().get(model_id)
