"""One page for many results: a card each with its picture and verdicts, worst first.

The page is a single file of HTML without anything from elsewhere: it opens on any computer, and
asks no server for anything.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from string import Template

from ..core.plain_text import printable
from ..core.trust import FINE, LOOK, UNKNOWN, UNUSABLE

MARK = "<!-- FewShotSeg contact sheet -->"
"""By which a page of ours is distinguished from another's file."""
FAILED = "failed"
_KINDS = {FAILED: "failed", UNUSABLE: "unusable", LOOK: "look", UNKNOWN: "unknown", FINE: "fine"}


@dataclass(frozen=True)
class Line:
    """One structure on a card; texts as they are shown."""

    name: str
    verdict: str
    ml: str = ""
    dice: str = ""
    reasons: Sequence[str] = ()


@dataclass(frozen=True)
class Card:
    """One volume.

    Attributes:
        name: of the volume. verdict: the worst of its lines, or :data:`FAILED`.
        note: what failed; empty. picture: a JPEG, or empty.
    """

    name: str
    verdict: str
    lines: Sequence[Line] = ()
    note: str = ""
    picture: bytes = field(default=b"", repr=False)


def contact_sheet(title: str, subtitle: str, cards: Sequence[Card]) -> str:
    """The page, in the cards' order."""
    counts = {verdict: sum(c.verdict == verdict for c in cards) for verdict in _KINDS}
    choices = "\n".join(
        f'<label class="{_KINDS[verdict]}"><input type="checkbox" value="{_KINDS[verdict]}" '
        f"checked> {verdict} ({count})</label>"
        for verdict, count in counts.items()
        if count
    )
    return _PAGE.substitute(
        mark=MARK,
        title=_text(title),
        subtitle=_text(subtitle),
        choices=choices,
        cards="\n".join(map(_card, cards)),
    )


def _card(card: Card) -> str:
    rows = "".join(
        f'<tr class="{_KINDS[line.verdict]}"><td>{_text(line.name)}</td>'
        f'<td class="verdict">{_text(line.verdict)}</td><td class="number">{_text(line.dice)}</td>'
        f'<td class="number">{_text(line.ml)}</td><td>{_text("; ".join(line.reasons))}</td></tr>'
        for line in card.lines
    )
    table = (
        '<table><tr><th>structure</th><th>verdict</th><th class="number">expected Dice</th>'
        f'<th class="number">ml</th><th>reasons</th></tr>{rows}</table>'
    )
    picture = ""
    if card.picture:
        data = base64.b64encode(card.picture).decode()
        picture = f'<img alt="{_text(card.name)}" src="data:image/jpeg;base64,{data}">'
    return (
        f'<article class="{_KINDS[card.verdict]}" data-name="{_text(card.name.casefold())}">'
        f"<h2>{_text(card.name)} <span>{_text(card.verdict)}</span></h2>"
        f"{picture}{f'<p>{_text(card.note)}</p>' if card.note else ''}"
        f"{table if card.lines else ''}</article>"
    )


def _text(text: str) -> str:
    """Text that shows itself, whatever is in it."""
    return html.escape(printable(text, False))


_PAGE = Template("""<!DOCTYPE html>
$mark
<html lang="en"><head><meta charset="utf-8"><title>$title</title>
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body { background: #0e1116; color: #eceff3; font: 15px/1.45 system-ui, sans-serif; margin: 2em; }
h1 { font-size: 1.5em; margin: 0; } .subtitle { color: #98a2ae; margin: .2em 0 1.2em; }
nav { display: flex; flex-wrap: wrap; gap: 1em; align-items: center; margin-bottom: 1.4em; }
nav input[type=search] { background: #171c23; color: inherit; border: 1px solid #2b323c;
 border-radius: 6px; padding: .4em .7em; font: inherit; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 640px), 1fr));
 gap: 1.2em; align-items: start; }
article { background: #171c23; border-radius: 10px; padding: 1em 1.2em; border-left: 6px solid; }
article[hidden] { display: none; }
h2 { font-size: 1.1em; margin: 0 0 .6em; overflow-wrap: anywhere; }
h2 span { float: right; margin-left: 1em; }
img { width: 100%; border-radius: 6px; background: #000; }
table { border-collapse: collapse; width: 100%; margin-top: .6em; font-size: .92em; }
th { text-align: left; color: #98a2ae; font-weight: normal; }
th, td { padding: .2em .8em .2em 0; vertical-align: top; }
.verdict { white-space: nowrap; } .number { text-align: right; }
article.failed, article.unusable { border-color: #ff6b5e; } article.look { border-color: #ffb347; }
article.fine { border-color: #59c37a; } article.unknown { border-color: #98a2ae; }
.failed h2 span, .unusable h2 span, tr.unusable .verdict, label.failed, label.unusable
 { color: #ff6b5e; }
.look h2 span, tr.look .verdict, label.look { color: #ffb347; }
.fine h2 span, tr.fine .verdict, label.fine { color: #59c37a; }
.unknown h2 span, tr.unknown .verdict { color: #98a2ae; }
td { color: #eceff3; }
</style></head><body>
<h1>$title</h1><p class="subtitle">$subtitle</p>
<nav>$choices <input type="search" placeholder="name" aria-label="name"></nav>
<main>
$cards
</main>
<script>
"use strict";
const search = document.querySelector("nav input[type=search]");
const boxes = [...document.querySelectorAll("nav input[type=checkbox]")];
function filter() {
  const kinds = new Set(boxes.filter(box => box.checked).map(box => box.value));
  const wanted = search.value.toLowerCase();
  for (const card of document.querySelectorAll("article")) {
    card.hidden = !kinds.has(card.className) || !card.dataset.name.includes(wanted);
  }
}
search.addEventListener("input", filter);
boxes.forEach(box => box.addEventListener("change", filter));
</script></body></html>
""")
