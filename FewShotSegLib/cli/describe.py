"""Adapters and results as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..core.expected import expected_sentences
from ..core.rounds import changes_text, dice_by_supports, rounds_text
from ..core.size_prior import SizePrior
from ..core.tables import text_table
from ..core.trust import worst


def adapter_text(data: Mapping[str, Any]) -> str:
    """What an adapter's metadata say, for a person."""
    training, settings = data["training"], data["training"].get("settings", {})
    levels = len(data["channels"]) if data["features"] == "multi" else 1
    decoder = f", decoder {data['decoder']}" if "decoder" in data else ""
    lines = [
        f"Method            {data['method']}{decoder} over {levels} feature level(s), "
        f"{data['trained_parameters']:,} trained parameters",
        f"Foundation model  {data['model']['title'] or data['model']['id']} "
        f"[{data['model']['id']}], weights {data['model']['weights_sha256'][:12]}",
        f"Images            {data['modality']}, {_preprocessing_text(data['preprocessing'])}",
        f"Trained           {training.get('epochs', 0)} of {settings.get('epochs', 0)} epochs"
        f"{' (stopped early)' if training.get('stopped_early') else ''}, seed "
        f"{training.get('seed')}, on {len(data['supports'])} support(s)"
        f"{_in_part(data['supports'])}, "
        f"{training.get('seconds', {}).get('total', 0):.0f} s on {training.get('device', '?')}",
        *_companion_lines(data.get("companion")),
        f"Written by        FewShotSeg {data['version']}, format {data['format']}",
        "",
    ]
    rows = []
    for structure in data["structures"]:
        prior = data["priors"][structure["name"]]
        rows.append([structure["name"], str(structure["value"]), *_prior_cells(prior)])
    header = ["structure", "label", "supports", "mean ml", "sd ml", "expected ml", "note"]
    lines += [text_table(header, rows, " >>>>>"), "", "What to expect on a new volume:"]
    lines += [f"  {k}: {v}" if k else f"  {v}" for k, v in expected_sentences(data).items()]
    if data.get("companion") is not None:
        lines += [
            "  (Measured for the adapter alone; with the second network it was not measured.)"
        ]
    rounds = rounds_text(data)
    if rounds:
        lines += ["", "Rounds, with the Dice to expect after each:", rounds]
        lines += changes_text(dice_by_supports([data])).splitlines()
    return "\n".join(lines)


def _in_part(supports: Sequence[Mapping[str, Any]]) -> str:
    """How many of the supports were annotated in part; empty where none was."""
    count = sum("known" in support for support in supports)
    return f" ({count} of them annotated in part)" if count else ""


def _companion_lines(data: Mapping[str, Any] | None) -> list[str]:
    """What is said of an adapter's second network."""
    if data is None:
        return []
    return [
        f"Averaged with     {data['method']}, {data['trained_parameters']:,} trained parameters, "
        f"{data['training'].get('epochs', 0)} epochs"
    ]


def result_text(structures: Mapping[str, Mapping[str, Any]]) -> str:
    """The structures of one ``report.json`` entry: the verdict and the expected Dice, size and its
    expectation, what transduction did, and what of it is not as expected; below, the reasons."""
    rows, reasons = [], []
    for name, found in structures.items():
        prior = found["prior"]
        expected = range_text(prior["lower_ml"], prior["upper_ml"])
        change = found["transduction"]
        before = f"{change['volume_before_ml']:.2f}" if change else "-"
        notes = [] if found["within_prior"] else ["outside the expected range"]
        notes += found.get("remarks", [])
        if prior["enabled"] and prior["gamma"] >= 1:
            notes.append(too_wide(prior["gamma"]))
        trust = found["trust"]
        dice = trust["dice"]
        if trust["reasons"]:
            reasons.append(f"{name}: {trust['verdict']}: {'; '.join(trust['reasons'])}.")
        rows.append(
            [
                name,
                str(found["label"]),
                trust["verdict"],
                "-" if dice is None else f"{dice:.2f}",
                f"{found['volume_ml']:.2f}",
                before,
                expected,
                ", ".join(notes),
            ]
        )
    header = [
        "structure",
        "label",
        "verdict",
        "expected Dice",
        "ml",
        "unrefined ml",
        "expected ml",
        "note",
    ]
    return "\n".join([text_table(header, rows, " > >>>>"), *reasons])


def ranking_text(results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Many results, worst first: a line a volume, with what is worst in it.

    Args:
        results: by the volume's name, the structures of its ``report.json`` entry.
    """
    rows = []
    order = sorted(results, key=lambda name: worst([e["trust"] for e in results[name].values()]))
    for name in order:
        structure, entry = min(results[name].items(), key=lambda pair: worst([pair[1]["trust"]]))
        trust = entry["trust"]
        dice = "-" if trust["dice"] is None else f"{trust['dice']:.2f}"
        reason = trust["reasons"][0] if trust["reasons"] else ""
        rows.append([name, trust["verdict"], structure, dice, reason])
    header = ["volume", "verdict", "by", "expected Dice", "reason"]
    return text_table(header, rows, "   >")


def range_text(lower_ml: float | None, upper_ml: float | None) -> str:
    """The sizes that are expected, ml, in ASCII; a bound of 0 can't act, so that it isn't one."""
    if upper_ml is None:
        return "-"
    digits = 2 if upper_ml < 10 else 1
    upper = f"{upper_ml:.{digits}f}"
    return f"{lower_ml:.{digits}f} to {upper}" if lower_ml else f"up to {upper}"


def too_wide(gamma: float) -> str:
    """Why a prior has no lower bound although nothing was cut off."""
    return f"no lower bound: the tolerance is {gamma:.0%} of the mean".replace("%", " %")


def _prior_cells(prior: Mapping[str, Any]) -> list[str]:
    """Supports, mean, deviation, expected range and a remark."""
    low, high = (bound / 1000 for bound in SizePrior(**prior).bounds())
    if not prior["enabled"]:
        expected, remark = "prior off", ""
    elif prior.get("basis") == "part":
        expected, remark = "-", "not known: no annotation shows all of it; mean: what was drawn"
    elif not prior["upper_trusted"]:
        expected, remark = "-", "not known: cut off in every support"
    elif prior["cut_off"]:
        expected, remark = range_text(0, high), "may be less: cut off in a support"
    else:
        expected, remark = range_text(low, high), "" if low else too_wide(prior["gamma"])
    if prior.get("basis") == "slices":
        uncertain = prior["uncertainty"] / 1000
        estimated = f"estimated from drawn slices, to {uncertain:.2f} ml"
        remark = f"{remark}; {estimated}" if remark else estimated
    return [
        str(prior["count"]) if prior["count"] else "given",
        f"{prior['mean'] / 1000:.2f}",
        f"{prior['deviation'] / 1000:.2f}" if prior["count"] > 1 else "-",
        expected,
        remark,
    ]


def _preprocessing_text(data: Mapping[str, Any]) -> str:
    spacing = " x ".join(f"{s:g}" for s in data["spacing"])
    text = f"{data['orientation']} at {spacing} mm"
    if data["intensity"] == "window":
        return f"{text}, window {data['low']:g} to {data['high']:g}"
    if data["intensity"] == "percentiles":
        return f"{text}, percentiles {data['low']:g} to {data['high']:g}"
    if data["intensity"] != "identity":
        return f"{text}, intensities by '{data['intensity']}'"
    return f"{text}, intensities as they are"
