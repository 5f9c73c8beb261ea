"""What a format of published models gives."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ...core.model_answers import Answers, flag

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Question:
    """What the files don't tell.

    Attributes:
        answer: the field of ``Answers`` that says it.
        text: what is unknown and why it matters, as a sentence.
        example: an answer that could be right.
    """

    answer: str
    text: str
    example: str

    def __str__(self) -> str:
        value = shlex.quote(self.example)
        return f"{self.text} Say it with {flag(self.answer)}, such as {flag(self.answer)} {value}."


@dataclass(frozen=True)
class Found:
    """A published model as it was understood.

    Attributes:
        entry: fields of a registry entry (``Resources/Models/README.md``), plain JSON, without
            ``weights``, ``sha256`` and ``size``; its ``id`` is a proposal.
        state: tensors by name, as ``import_state_dict`` of the entry's network takes them. Those
            that it doesn't need (heads of deep supervision, an optimiser) are left out.
        facts: what was found, a sentence each, for a person to compare with what they know.
    """

    entry: Mapping[str, Any]
    state: Mapping[str, Tensor]
    facts: tuple[str, ...]


@dataclass(frozen=True)
class Open:
    """A published model of which something is missing that only a person can say.

    Attributes:
        questions: one or more. facts: see :class:`Found`.
    """

    questions: tuple[Question, ...]
    facts: tuple[str, ...] = ()


class Format(Protocol):
    """A module of this package that reads one format."""

    NAME: str
    """What such a path is, with its article, such as ``an nnU-Net v2 result folder``."""

    def recognise(self, path: Path) -> bool:
        """Whether a path, which exists, is of this format. Raises nothing, loads no weights."""

    def read(self, path: Path, answers: Answers) -> Found | Open:
        """What the files tell, with what a person said.

        Raises:
            ModelError: the files are damaged, incomplete, or of a kind that can't be used.
            InputError: an answer can't be.
        """
