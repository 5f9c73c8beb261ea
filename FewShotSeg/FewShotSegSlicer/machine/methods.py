"""The choice of a method: in words for the panel, what comes of it, and why it can't be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slicer.i18n import tr as _

from FewShotSegLib.core.architecture_catalog import encoder_of
from FewShotSegLib.core.method_catalog import DEFAULT_METHOD, METHODS
from FewShotSegLib.core.method_sizes import trained_parameters

from ..interface.rows import MethodRow

AUTO = "auto"
"""The decoder's choice is the method's own."""


def method_titles() -> dict[str, str]:
    """Name on the panel by name of the method, the recommended one first."""
    titles = {name: _(method.title) for name, method in METHODS.items()}
    titles[DEFAULT_METHOD] = _("{method} (recommended)").format(method=titles[DEFAULT_METHOD])
    return titles


def decoder_titles() -> dict[str, str]:
    """What happens to the model's decoder."""
    return {
        AUTO: _("As the method does"),
        "frozen": _("Frozen: stays as it is"),
        "tuned": _("Tuned: trained on from its own parameters"),
        "new": _("New: trained from random parameters"),
    }


def effort_titles() -> dict[str, str]:
    """How much is done for an adapter."""
    return {
        "quick": _("Quick: the adapter alone"),
        "default": _("Standard: and what Dice to expect"),
        "best": _("Best: and a second network (minutes)"),
    }


def wrong_effort(effort: str, method: str, preset: str) -> str:
    """Why a method can't be trained with an effort, and what to choose instead; else empty."""
    if effort != "best" or not METHODS[method].runs_on_images(preset):
        return ""
    return _(
        "The best effort adds a second network to an adapter on the frozen model: under Advanced, "
        "set Effort to «{effort}», or choose another method and FewShotSeg's own settings."
    ).format(effort=effort_titles()["default"])


def preset_titles() -> dict[str, str]:
    """Whose settings of the training."""
    return {"own": _("FewShotSeg's own (recommended)"), "published": _("As published (slow)")}


def method_rows(parameters: Any, entry: Mapping[str, Any] | None) -> list[MethodRow]:
    """Every method as the panel shows it, under the other choices of a parameter node.

    Args:
        entry: of the foundation model, where there is one.
    """
    rows = []
    for name, title in method_titles().items():
        method = METHODS[name]
        decoder = parameters.decoder if parameters.decoder in method.decoders else AUTO
        text = explanation(name, decoder, parameters.preset, features_of(parameters), entry)
        epochs = method.schedule(parameters.preset).epochs
        rows.append(MethodRow(name, title, text, method.decoders, epochs))
    if parameters.method not in METHODS:  # of a scene that was saved where another package was
        rows.append(MethodRow(parameters.method, parameters.method, _unknown(parameters.method)))
    return rows


def _unknown(method: str) -> str:
    return _(
        "The method {method} is not known here: install the package that adds it and restart "
        "Slicer, or choose another method."
    ).format(method=method)


def features_of(parameters: Any) -> str:
    """The feature levels that are adapted: the published settings know the finest alone."""
    return "last" if parameters.preset == "published" else parameters.features


def explanation(
    method: str, decoder: str, preset: str, features: str, entry: Mapping[str, Any] | None
) -> str:
    """What a choice trains, of how many parameters, and that it takes long where it does.

    Args:
        entry: of the foundation model, where there is one.
    """
    parts = [_(METHODS[method].explanation)]
    count = None
    if entry is not None:
        count = trained_parameters(method, decoder, features, entry["architecture"])
    if count is not None:
        parts.append(_("About {count} parameters.").format(count=round_number(count)))
    if METHODS[method].trains_backbone:
        parts.append(_("Takes longer: the model itself is trained, on crops of the images."))
    elif preset == "published":
        parts.append(_("Takes longer: the model runs on crops of the images in every step."))
    return " ".join(parts)


def round_number(count: int) -> str:
    """Two digits of a number: 480, 41 thousand, 4.6 million."""
    for size, name in ((1e6, _("{n} million")), (1e3, _("{n} thousand"))):
        if count >= size:
            return name.format(n=f"{float(f'{count / size:.2g}'):g}")
    return str(count)


def wrong_choice(
    method: str, decoder: str, preset: str, modality: str, entry: Mapping[str, Any]
) -> str:
    """Why a choice can't be trained and what to choose instead, one sentence or two; else empty.

    Args:
        entry: of the foundation model.
    """
    if method not in METHODS:
        return _unknown(method)
    chosen, title = METHODS[method], _(METHODS[method].title).split(":")[0]
    if not chosen.trains_backbone and decoder not in (AUTO, "frozen"):
        return _(
            "The method {method} leaves the whole model frozen: under Advanced, set Decoder to "
            "«{auto}», or choose a method that trains the model."
        ).format(method=title, auto=decoder_titles()[AUTO])
    if chosen.trains_backbone and decoder not in (AUTO, *chosen.decoders):
        only = _(" or ").join(chosen.decoders)
        return _(
            "With the method {method} the decoder is {only}: under Advanced, set Decoder to "
            "«{auto}», or choose another method."
        ).format(method=title, only=only, auto=decoder_titles()[AUTO])
    architecture = entry["architecture"]["name"]
    if not chosen.suits(architecture):
        kinds = {
            "transformer": _("a transformer"),
            "convolutional": _("a convolutional network"),
        }
        return _(
            "The method {method} is for {wanted}, and the foundation model's encoder is {found}: "
            "choose another method, such as LoRA or Affine, or another model."
        ).format(method=title, wanted=kinds[chosen.encoder], found=kinds[encoder_of(architecture)])
    if preset == "published" and chosen.published_rate is None:
        return _(
            "There are no published settings of the method {method}: choose FewShotSeg's own "
            "settings, or another method."
        ).format(method=title)
    ways = entry["preprocessing"]
    used = [ways[modality]] if modality in ways else list(ways.values())
    if preset == "published" and all(way["intensity"] == "identity" for way in used):
        return _(
            "The published settings shift intensities between 0 and 1, but this foundation model "
            "takes raw values: choose FewShotSeg's own settings, or another model."
        )
    return ""
