"""In a notebook: names are offered, results show themselves, one function compares everything."""

from __future__ import annotations

import html.parser
import io
from dataclasses import replace

import matplotlib.image
import numpy as np
from pipeline_case import PipelineTestCase
from tiny_model import STRUCTURES

import FewShotSegLib as fss
from FewShotSegLib.core.annotation import parse_structures
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.evaluation import metrics
from FewShotSegLib.evaluation.metrics import evaluate_files, scores_json
from FewShotSegLib.pipeline import read_support


class Cells(html.parser.HTMLParser):
    """The text of each cell, and the tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.tags: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data


class Notebook(PipelineTestCase):
    def test_dir_shows_the_public_names(self) -> None:
        self.assertLessEqual(set(fss.__all__), set(dir(fss)))
        self.assertEqual([n for n in dir(fss) if n.startswith("_") and n[1] != "_"], [])
        for name in fss.__all__:
            self.assertTrue(getattr(fss, name), name)

    def test_an_adapter_shows_itself(self) -> None:
        self.assertEqual(repr(self.trained).count("\n"), 0)
        shown = Cells(self.trained._repr_html_())
        for name, found in self.trained.expected.structures.items():
            self.assertIn(name, shown.cells)
            self.assertIn(found.sentence(), shown.cells)
        evil = replace(
            self.trained,
            structures=[replace(s, name="<b>x") for s in self.trained.structures[:1]],
            priors={"<b>x": self.trained.priors["bean"]},
            expected=None,
        )
        self.assertNotIn("b", Cells(evil._repr_html_()).tags)

    def test_a_result_shows_itself(self) -> None:
        result = self.segment()
        self.assertEqual(repr(result).count("\n"), 0)
        shown = Cells(result._repr_html_())
        self.assertIn("img", shown.tags)
        for name, entry in result.report["structures"].items():
            self.assertIn(name, shown.cells)
            self.assertIn(entry["trust"]["verdict"], shown.cells)
        picture = matplotlib.image.imread(io.BytesIO(result._repr_png_()), "png")
        colours = np.ptp(picture[..., :3], axis=2)
        self.assertGreater(np.count_nonzero(colours > 0.3), 50, "no contour is drawn")
        alone = replace(result, image=None)
        self.assertIsNone(alone._repr_png_())
        self.assertNotIn("img", Cells(alone._repr_html_()).tags)

    def test_everything_is_compared_with_everything(self) -> None:
        out = self.folder / "out.nii.gz"
        result, truth = self.segment(out=out), self.query.segmentation
        wanted = scores_json(evaluate_files(truth, out, parse_structures(STRUCTURES)))
        annotation = read_support(self.query.image, truth, STRUCTURES).annotation
        masks = result.masks, annotation.masks
        for scores in (
            fss.evaluate(result, truth),
            fss.evaluate(truth, result),  # a result is the prediction, wherever it stands
            fss.evaluate(result, annotation),
            fss.evaluate(result, annotation.masks),
            fss.evaluate(out, truth, structures=STRUCTURES),
            fss.evaluate(prediction=str(out), reference=str(truth), structures=STRUCTURES),
            fss.evaluate(out, annotation, result.grid, structures=STRUCTURES),
            fss.evaluate(masks[1], masks[0], result.grid),
            fss.evaluate(masks[1], masks[0], result.grid, 2.0),
            fss.evaluate(prediction=masks[0], reference=masks[1], grid=result.grid),
        ):
            found = scores_json(scores)
            self.assertEqual(sorted(found["structures"]), sorted(wanted["structures"]))
            for name, values in wanted["structures"].items():
                self.assertEqual(found["structures"][name], values)
        one = scores["bean"]
        self.assertNotEqual(one.volume_ml, one.reference_ml)
        self.assertEqual(repr(scores), metrics.format_table(scores))
        self.assertIn(f"{one.dice:.3f}", Cells(scores._repr_html_()).cells)

    def test_what_can_not_be_compared(self) -> None:
        result = self.segment()
        for pair, error in (
            ((result,), TypeError), ((), TypeError), ((result, 5), InputError),
            ((result.masks, result.masks), InputError),
            ((self.query.segmentation, result.masks), InputError),
            ((result, self.folder / "none.nii.gz"), InputError),
        ):  # fmt: skip
            with self.subTest(len(pair)), self.assertRaises(error):
                fss.evaluate(*pair)
        with self.assertRaises(TypeError):
            fss.evaluate(result, result, reference=result)
