"""The choice of a method: in words for the panel, what comes of it, and why it can't be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slicer.i18n import tr as _

from FewShotSegLib.core.method_catalog import METHODS, encoder_of
from FewShotSegLib.core.method_sizes import trained_numbers

from ..interface.rows import MethodRow

AUTO = "auto"
"""The decoder's choice is the method's own."""


def method_titles() -> dict[str, str]:
    """Name on the panel by name of the method, the recommended one first."""
    return {
        "adapter": _("Adapter 3x3x3 (recommended)"),
        "linear-probe": _("Linear probe"),
        "adapter-1x1": _("Adapter 1x1x1"),
        "ft": _("FT: full fine-tuning"),
        "scratch": _("Scratch"),
        "ft-last": _("FT-last"),
        "bias": _("Bias"),
        "affine": _("Affine"),
        "lora": _("LoRA"),
        "adaptformer": _("AdaptFormer"),
        "compacter": _("Compacter"),
        "cnn-adapter": _("CNN adapter"),
    }


def trained_parts() -> dict[str, str]:
    """What each method trains, as one sentence."""
    return {
        "adapter": _("Small convolutions and a classifier on the model's features."),
        "linear-probe": _("A linear classifier on the model's features; fastest, and weaker."),
        "adapter-1x1": _("As the adapter, without a look at neighbouring voxels."),
        "ft": _("The whole model, from its pre-trained numbers, and a new classifier."),
        "scratch": _("The whole network from random numbers: what your volumes alone teach."),
        "ft-last": _("The last block of the decoder, and a new classifier."),
        "bias": _("The encoder's additive numbers, and a new classifier."),
        "affine": _("Scales and shifts of the encoder's normalisations, and a new classifier."),
        "lora": _("A low-rank change of the encoder's weights, and a new classifier."),
        "adaptformer": _("Bottlenecks beside the encoder's MLPs, and a new classifier."),
        "compacter": _("Small layers after the encoder's sub-layers, and a new classifier."),
        "cnn-adapter": _("1x1x1 convolutions beside the encoder's own, and a new classifier."),
    }


def decoder_titles() -> dict[str, str]:
    """What happens to the model's decoder."""
    return {
        AUTO: _("As the method does"),
        "frozen": _("Frozen: stays as it is"),
        "tuned": _("Tuned: trained on from its own numbers"),
        "new": _("New: trained from random numbers"),
    }


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
    return rows


def features_of(parameters: Any) -> str:
    """The feature levels that are adapted: the published settings know the finest alone."""
    return "last" if parameters.preset == "published" else parameters.features


def explanation(
    method: str, decoder: str, preset: str, features: str, entry: Mapping[str, Any] | None
) -> str:
    """What a choice trains, of how many numbers, and that it takes long where it does.

    Args:
        entry: of the foundation model, where there is one.
    """
    parts = [trained_parts()[method]]
    count = None
    if entry is not None:
        count = trained_numbers(method, decoder, features, entry["architecture"])
    if count is not None:
        parts.append(_("About {count} numbers.").format(count=round_number(count)))
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
    chosen, title = METHODS[method], method_titles()[method].split(" (")[0].split(":")[0]
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
    ways = entry["preprocessing"]
    used = [ways[modality]] if modality in ways else list(ways.values())
    if preset == "published" and all(way["intensity"] == "identity" for way in used):
        return _(
            "The published settings shift intensities between 0 and 1, but this foundation model "
            "takes raw values: choose FewShotSeg's own settings, or another model."
        )
    return ""
