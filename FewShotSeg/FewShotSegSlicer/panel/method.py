"""How an adapter is trained: the recommended method up front, every other one under Advanced."""

from __future__ import annotations

from typing import Any

import qt
from slicer.i18n import tr as _

from ..interface.protocol import LogicProtocol
from ..interface.rows import MethodRow
from ..machine.methods import AUTO, decoder_titles, effort_titles, features_of, preset_titles
from ..messages import tooltip
from .tools import current_id, fill_combo, gate

EXPLANATION_LINES = 3


def feature_levels() -> list[tuple[str, str]]:
    """Which levels of the backbone are adapted."""
    return [("multi", _("All (recommended)")), ("last", _("Finest alone, as published"))]


def modalities() -> list[tuple[str, str]]:
    """How intensities are normalised."""
    return [("auto", _("Automatic")), ("CT", "CT"), ("MR", "MR")]


class MethodChoice:
    """Method, decoder, settings, feature levels and modality; kept in the parameter node."""

    def __init__(self, ui: Any, logic: LogicProtocol) -> None:
        self.ui, self.logic = ui, logic
        self.parameters: Any = None
        # Space for the longest: what is below stays in its place when another method is chosen.
        line = ui.methodExplanation.fontMetrics().lineSpacing()
        ui.methodExplanation.setMinimumHeight(EXPLANATION_LINES * line)
        for combo, slot in (
            (ui.methodCombo, self.on_method),
            (ui.decoderCombo, lambda index: self.choose("decoder", ui.decoderCombo)),
            (ui.presetCombo, lambda index: self.choose("preset", ui.presetCombo)),
            (ui.effortCombo, lambda index: self.choose("effort", ui.effortCombo)),
            (ui.featuresCombo, lambda index: self.choose("features", ui.featuresCombo)),
            (ui.modalityCombo, lambda index: self.choose("modality", ui.modalityCombo)),
        ):
            combo.connect("activated(int)", slot)

    def refresh(self) -> None:
        """Show what is chosen, and what it means."""
        parameters, ui = self.parameters, self.ui
        if parameters is None:
            return
        rows = self.logic.methods()
        row = next(row for row in rows if row.id == parameters.method)
        fill_combo(ui.methodCombo, [(r.id, f"{r.title} [{r.id}]") for r in rows], row.id)
        for index, other in enumerate(rows):
            ui.methodCombo.setItemData(index, tooltip(other.explanation), qt.Qt.ToolTipRole)
        ui.methodCombo.setToolTip(tooltip(row.explanation))
        ui.methodExplanation.setText(row.explanation)
        ui.methodLabel.setText(front_text(row, recommended=row is rows[0]))
        ui.methodLabel.setToolTip(_("Open Advanced to choose another method."))
        self._refresh_decoder(row)
        fill_combo(ui.presetCombo, list(preset_titles().items()), parameters.preset)
        fill_combo(ui.effortCombo, list(effort_titles().items()), parameters.effort, 40)
        published = parameters.preset == "published"
        fill_combo(ui.featuresCombo, feature_levels(), features_of(parameters))
        gate(
            ui.featuresCombo,
            _("The published settings adapt the finest level alone.") if published else "",
            _("Which levels of the model's decoder are adapted."),
        )
        fill_combo(ui.modalityCombo, modalities(), parameters.modality)
        ui.epochsSpinBox.specialValueText = _("{n}, of the method").format(n=row.epochs)

    def _refresh_decoder(self, row: MethodRow) -> None:
        chosen = self.parameters.decoder
        titles = decoder_titles()
        # A choice that doesn't go with the method stays in sight, so that it can be put right.
        shown = [name for name in titles if name in (AUTO, chosen, *row.decoders)]
        fill_combo(self.ui.decoderCombo, [(name, titles[name]) for name in shown], chosen)
        frozen = _("This method leaves the whole model frozen.")
        gate(
            self.ui.decoderCombo,
            frozen if not row.decoders and chosen == AUTO else "",
            _("What happens to the model's decoder and bottleneck while the encoder is trained."),
        )

    def on_method(self, _index: int = 0) -> None:
        """A person chose a method: a decoder's choice that doesn't go with it is given up."""
        rows = {row.id: row for row in self.logic.methods()}
        chosen = current_id(self.ui.methodCombo)
        if self.parameters.decoder not in rows[chosen].decoders:
            self.parameters.decoder = AUTO
        self.choose("method", self.ui.methodCombo)

    def choose(self, name: str, combo: Any) -> None:
        """A person chose an entry."""
        if getattr(self.parameters, name) != current_id(combo):
            setattr(self.parameters, name, current_id(combo))


def front_text(row: MethodRow, recommended: bool) -> str:
    """The method in use, for those who leave Advanced closed."""
    if recommended:
        return row.title
    return _("{title} (chosen under Advanced)").format(title=row.title)
