"""Models as others publish them, and how each becomes an entry of the registry.

A format is one file here, and one line in :mod:`.known`. It has two functions (see
:class:`.base.Format`)::

    NAME = "an nnU-Net v2 result folder"

    def recognise(path: Path) -> bool:
        '''Cheap: names of files and their first fields. It loads no weights and raises nothing.'''

    def read(path: Path, answers: Answers) -> Found | Open:
        '''All that the files tell. Raises ModelError, one sentence that says what to do.'''

``read`` gives a :class:`.base.Found` where everything is known: the entry's fields, the tensors as
the network's ``import_state_dict`` takes them, and sentences about what was found. Where something
can't be known from the files and ``answers`` does not say it, it gives an :class:`.base.Open`: what
was found so far, and one :class:`.base.Question` for each missing answer, all of them together. A
new answer is a field of ``core.model_answers.Answers``, which makes it a flag of ``fewshotseg
models add`` and an argument of ``FewShotSegLib.add_model``.

Weights and other pickles are opened with :func:`.safe_files.load_tensors` alone. Names of classes
that files hold are looked up in a table, never imported.

:func:`.adding.add_model` does the rest, the same for every format: the name, the conversion to one
safetensors file in the user's model folder, the entry beside it, loading both once as a check, and
putting them into their place. The files that were given are only read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .adding import Added as Added
    from .adding import add_model as add_model

__all__ = ["Added", "add_model"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # so that reading one format's file does not load torch
        from . import adding

        return getattr(adding, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
