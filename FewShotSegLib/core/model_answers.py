"""What a published model's files may leave open and a person says with a flag; without torch."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from .errors import InputError
from .json_fields import parse_json, shown
from .limits import require_path

MAX_TEXT = 2000
"""Characters of an answer."""


def _answer(text: str, metavar: str, path: bool = False) -> Any:
    return field(default=None, metadata={"text": text, "metavar": metavar, "path": path})


@dataclass(frozen=True)
class Answers:
    """Flags of ``fewshotseg models add``, and keyword arguments of ``FewShotSegLib.add_model``.

    Each field is one flag: its metadata are what ``--help`` shows, and whether it is a path. None
    is "not said". A format reads those that it knows and asks for no others.

    Raises:
        InputError: one is no text, or a very long one.
    """

    name: str | None = _answer("the model's id from now on (default: from its files)", "ID")
    title: str | None = _answer("one line for lists (default: from its files)", "TEXT")
    modality: str | None = _answer("what it was trained on: CT, MR or CT,MR", "KIND")
    orientation: str | None = _answer(
        "where the axes i, j, k of the images grow that it was trained on, such as RAS", "LETTERS"
    )
    configuration: str | None = _answer(
        "which of several configurations, such as 3d_fullres", "NAME"
    )
    fold: str | None = _answer("which of several folds: 0 to 4, or all", "N")
    checkpoint: str | None = _answer(
        "which file of weights (default: the last of the training)", "FILE"
    )
    trainer: str | None = _answer(
        "a trainer class of one's own that leaves nnU-Net's network as it is", "CLASS"
    )
    network: str | None = _answer(
        "MONAI's class of a network whose weights alone there are", "NAME"
    )
    arguments: str | None = _answer("of that network's constructor", "JSON")
    spacing: str | None = _answer("voxels in mm along the axes of --orientation", "MM,MM,MM")
    intensity: str | None = _answer(
        'such as "window -175 250", "percentiles 0.5 99.5" or standardise', "TEXT"
    )
    classes: str | None = _answer("the names that rows of the head have", "NAME=ROW,...")
    licence: str | None = _answer("of the weights, for lists", "NAME")

    def __post_init__(self) -> None:
        for option in fields(self):
            value = getattr(self, option.name)
            if value is None:
                continue
            if not isinstance(value, str) or not value.strip() or len(value) > MAX_TEXT:
                raise InputError(
                    f"{flag(option.name)} is a text of 1 to {MAX_TEXT} characters, not "
                    f"{shown(value)}."
                )
            if option.metadata["path"]:
                require_path(value)

    def network_arguments(self) -> dict[str, Any]:
        """What ``arguments`` says; empty where it says nothing.

        Raises:
            InputError: it is no JSON object.
        """
        if self.arguments is None:
            return {}
        try:
            found = parse_json(self.arguments, "--arguments")
        except InputError:
            found = None
        if not isinstance(found, dict):
            raise InputError(
                f"--arguments is a JSON object such as '{{\"out_channels\": 3}}', not "
                f"{shown(self.arguments)}."
            )
        return found


def flag(name: str) -> str:
    """The flag of a field."""
    return "--" + name.replace("_", "-")
