"""Sentences of the engine on the panel, which has boxes and buttons where a command has flags."""

from __future__ import annotations

import re
from dataclasses import fields

from FewShotSegLib.core.model_answers import Answers

ADVANCED = "under Advanced"
WORDS = (
    ("(--largest-component; Largest piece only in Slicer)", f"(Largest piece only, {ADVANCED})"),
    (
        " If that is wrong, say --intensity-offset 0, or --modality MR where it is MR.",
        f" If it is MR, choose that as modality {ADVANCED}.",
    ),
    ("say --modality CT", f"choose CT as modality {ADVANCED}"),
    ("say --modality", f"choose the modality {ADVANCED}"),
    ("say which with --modality", f"choose the modality {ADVANCED}"),
    ("or use --device cpu", f"or choose the CPU {ADVANCED}"),
    ("Use --device auto or cpu", f"Choose another device {ADVANCED}"),
    ("Use --device auto, cpu, cuda or cuda:N", f"Choose another device {ADVANCED}"),
    (
        "Choose another cache folder with --cache",
        "Choose another folder with the environment variable FEWSHOTSEG_HOME",
    ),
    ("with --cache", "with the environment variable FEWSHOTSEG_HOME"),
    ("it now (--sparse), or", "it now (Only the slices I drew on), or"),
    (" If it is drawn in full by now, say --sparse whole.", ""),
    ("use --features last", f"choose «Finest alone» {ADVANCED}"),
    (
        "Use the project's own settings (without --preset)",
        f"Choose FewShotSeg's own settings {ADVANCED}",
    ),
    ("Use its own (without --preset)", f"Choose FewShotSeg's own settings {ADVANCED}"),
)
"""What a sentence says of a flag, and what the panel says instead; the longer one first."""


TERMS = (
    (
        ", or auto, or give a mask of what is known.",
        ", or automatic, beside Only the slices I drew on.",
    ),
    (" of one kind, or give a mask of what is known.", " of one kind."),
    (", or give a mask of the slices on which all are.", "."),
    ("Transduction left it", "The adjustment to the expected volume left it"),
    ("Transduction more than", "The adjustment to the expected volume more than"),
    ("look at the result without transduction", "look at the result that is not adjusted"),
    ("before transduction", "before it was adjusted"),
    ("transduction changed it", "the adjustment to the expected volume changed it"),
    ("lacked some supports", "lacked some of the annotated volumes"),
    ("unlike the supports", "unlike the annotated volumes"),
    ("differs from the supports'", "differs from the annotated volumes"),
    ("in the supports", "in the annotated volumes"),
    ("times the supports'", "times that in the annotated volumes"),
    ("held-out supports", "annotated volumes that were held out"),
)
"""The paper's terms, and what the panel calls the same."""


_ANSWER = re.compile(
    r"(?<![\w-])--(" + "|".join(f.name.replace("_", "-") for f in fields(Answers)) + r")\b"
)
"""What a model's files don't say is asked for in a box each, not by flags."""


def panel_words(text: str) -> str:
    """A sentence of the engine without the command line's flags and the paper's terms."""
    for said, instead in (*WORDS, *TERMS):
        text = text.replace(said, instead)
    return _ANSWER.sub(lambda found: f"«{found[1].replace('-', ' ')}»", text)
