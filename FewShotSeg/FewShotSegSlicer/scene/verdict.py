"""What about a result should be looked at: by structure, and of the whole in a sentence."""

from __future__ import annotations

from typing import Literal

from slicer.i18n import tr as _

from FewShotSegLib.core.trust import FINE, LOOK, UNKNOWN, UNUSABLE

from ..interface.rows import Result, ResultRow, Verdict
from ..text import ml_text

MOVED = 1 / 3
"""Part of a structure's volume that an adjustment has to take away or add to be named."""


def out_of_range(row: ResultRow) -> Literal["", "below", "above"]:
    """On which side of its expected volume a structure is; empty where it is within."""
    prior = row.prior
    if prior is None or not prior.enabled:
        return ""
    if prior.lower_ml is not None and row.volume_ml < prior.lower_ml:
        return "below"
    if prior.upper_ml is not None and row.volume_ml > prior.upper_ml:
        return "above"
    return ""


def was_moved(row: ResultRow) -> bool:
    """Whether the adjustment to the expected volume changed a structure by a third or more."""
    larger = max(row.volume_ml, row.unrefined_ml)
    return abs(row.volume_ml - row.unrefined_ml) >= MOVED * larger > 0


def flags_of(row: ResultRow) -> list[str]:
    """What to look at in a structure, a few words each; empty where nothing stands out."""
    found = [_("corrected")] if row.corrected else []
    side = out_of_range(row)
    if row.volume_ml <= 0:
        found.append(_("not found"))
    elif side:
        words = {"below": _("small"), "above": _("large")}
        if row.within:
            words = {"below": _("slightly small"), "above": _("slightly large")}
        found.append(words[side])
    if was_moved(row):
        found.append(_("was {volume} ml").format(volume=ml_text(row.unrefined_ml)))
    found += [text for text in row.brief if text not in found]
    if not row.within and not found:
        found.append(row.note.splitlines()[0] if row.note else _("not as expected"))
    return found


def needs_look(row: ResultRow) -> bool:
    """Whether a structure may be wrong. One that misses its range by a hair is marked, no more."""
    odd = not row.within or row.volume_ml <= 0 or was_moved(row) or bool(row.brief)
    return odd or row.trust.verdict in (LOOK, UNUSABLE)


def mark_of(row: ResultRow) -> Verdict:
    """The verdict that is shown: none is "fine" beside something else that should be looked at."""
    verdict = row.trust.verdict
    return "look at this" if verdict == FINE and needs_look(row) else verdict


def verdict_text(verdict: Verdict) -> str:
    """A verdict for a person."""
    return {
        FINE: _("fine"),
        LOOK: _("look at this"),
        UNUSABLE: _("do not use"),
        UNKNOWN: _("not known"),
    }[verdict]


def dice_text(row: ResultRow) -> str:
    """What Dice to expect of a structure, a sentence; empty where it is not known."""
    trust = row.trust
    if trust.dice is None:
        return ""
    text = _("Expected Dice: {dice:.2f}").format(dice=trust.dice)
    if trust.lower is not None and trust.upper is not None:
        text += _(" ({low:.2f} to {high:.2f}, 4 times in 5)").format(
            low=trust.lower, high=trust.upper
        )
    return text


def judgement_of(row: ResultRow) -> str:
    """Verdict, reasons and expected Dice in full, in lines; empty where nothing is known."""
    trust = row.trust
    if trust.verdict == UNKNOWN and not trust.reasons:
        return ""
    head = _("{name}: {verdict}").format(name=row.name, verdict=verdict_text(trust.verdict))
    lines = [head, *(f"- {reason}" for reason in trust.reasons), dice_text(row)]
    return "\n".join(line for line in lines if line)


def sentences_of(row: ResultRow, brief: bool = False) -> str:
    """The same in full, a sentence a line, with the structure's name; the verdict first.

    Args:
        brief: of the reasons of a verdict the first alone, and no Dice.
    """
    return "\n".join([*_verdict_sentence(row, brief), *notes_of(row).splitlines()])


def notes_of(row: ResultRow) -> str:
    """What is to be said of a structure beside its verdict."""
    found = row.note.splitlines()
    side = out_of_range(row)
    if side and not found:
        words = {
            "below": _("{name}: {volume} ml is less than the expected {low} ml."),
            "above": _("{name}: {volume} ml is more than the expected {high} ml."),
        }[side]
        low, high = (ml_text(end) for end in (row.prior.lower_ml, row.prior.upper_ml))
        found.append(words.format(name=row.name, volume=ml_text(row.volume_ml), low=low, high=high))
    if was_moved(row) and not any("djust" in line for line in found):
        text = _("{name}: adjusted to the expected volume, from {before} to {after} ml.")
        before, after = ml_text(row.unrefined_ml), ml_text(row.volume_ml)
        found.append(text.format(name=row.name, before=before, after=after))
    return "\n".join(found)


def _verdict_sentence(row: ResultRow, brief: bool) -> list[str]:
    """The verdict in one line, where it is one to be acted on."""
    trust = row.trust
    if trust.verdict not in (LOOK, UNUSABLE):
        return []
    text = _("{name}: {verdict}: {reasons}.").format(
        name=row.name,
        verdict=verdict_text(trust.verdict),
        reasons="; ".join(trust.reasons[: 1 if brief else None]),
    )
    dice = "" if brief else dice_text(row)
    return [f"{text} {dice}." if dice else text]


def kind_of(result: Result) -> Literal["done", "warning"]:
    """Whether there is anything to look at: then a result is no success yet."""
    return "warning" if any(map(needs_look, result.rows)) else "done"


def sentence_of(result: Result) -> str:
    """The whole result for a status line."""
    name = result.query.GetName() if result.query is not None else ""
    text = _("«{query}» is segmented in {s:.0f} seconds.").format(query=name, s=result.seconds)
    missing = [row.name for row in result.rows if row.volume_ml <= 0]
    found = [row for row in result.rows if row.volume_ml > 0]
    useless = [row.name for row in found if row.trust.verdict == UNUSABLE]
    flagged = [row.name for row in found if needs_look(row) and row.name not in useless]
    if missing:
        text += " " + _("Not found in it: {names}.").format(names=", ".join(missing))
    if useless:
        text += " " + _("Do not use: {names}.").format(names=", ".join(useless))
    if flagged:
        text += " " + _("Look at: {names}.").format(names=", ".join(flagged))
    return text
