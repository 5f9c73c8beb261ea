"""Draw the README's picture: one query of the CT benchmark, with its true Dice.

    python Testing/benchmarks/readme_picture.py DATA --out Documentation/images/head-and-neck.png

DATA holds ``openkbp/dev``, as for ``fewshotseg benchmark``. Supports, query and seed are those of a
draw of the plan.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

from matplotlib.colors import to_rgb

import FewShotSegLib as fss
from FewShotSegLib.io.annotations import read_annotation
from FewShotSegLib.io.pairs import find_pairs
from FewShotSegLib.io.volumes import read_image
from FewShotSegLib.overlay.picture import Legend, Panel, draw_overlay

PLAN = Path(__file__).parent / "plans" / "head-and-neck-ct.json"
COLORS = {
    "brainstem": "#b388ff",
    "spinal_cord": "#7ddf64",
    "mandible": "#ffe066",
    "parotid_right": "#2ec4b6",
    "parotid_left": "#ffa53d",
}


def main() -> None:
    """Adapt on the draw's first supports, segment one query, score it and draw it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--draw", type=int, default=0)
    parser.add_argument("--query", default="pt_48")
    parser.add_argument("--supports", type=int, default=5)
    args = parser.parse_args()
    plan = json.loads(PLAN.read_text(encoding="utf-8"))
    (task,) = plan["tasks"]
    draw = task["draws"][args.draw]
    cases = {pair.name: pair for pair in find_pairs(args.data / task["data"])}
    supports = [cases[name] for name in draw["supports"][: args.supports]]
    query = cases[args.query]
    with tempfile.TemporaryDirectory() as folder:
        adapter = fss.adapt(
            [(pair.image, pair.segmentation) for pair in supports],
            Path(folder) / "adapter.fseft",
            structures=task["structures"],
            model=plan["model"],
            seed=draw["seed"],
        )
        result = fss.segment(adapter, query.image, seed=draw["seed"])
        reference = read_annotation(query.segmentation, result.grid, result.structures).masks
        scores = fss.evaluate(reference, result.masks, result.grid)
        dice = {name: score.dice for name, score in scores.items()}
        priors = {name: found["prior"] for name, found in result.report["structures"].items()}
        expected = {
            name: (prior["lower_ml"] or 0.0, prior["upper_ml"])
            for name, prior in priors.items()
            if prior["enabled"] and prior["upper_ml"] is not None
        }
        structures = [replace(s, color=to_rgb(COLORS[s.name])) for s in result.structures]
        args.out.parent.mkdir(parents=True, exist_ok=True)
        draw_overlay(
            args.out,
            replace(read_image(query.image), modality="CT"),
            [Panel("Adapter + transduction", result.masks, dice)],
            Legend(structures, reference, expected),
            title=f"OpenKBP {query.name}",
            subtitle=f"Learned from {len(supports)} annotated CTs   ·   model {plan['model']}, "
            "which never saw a parotid gland annotated",
        )
    print({name: round(float(value), 3) for name, value in dice.items()})
    print(f"mean {sum(dice.values()) / len(dice):.3f}; {args.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
