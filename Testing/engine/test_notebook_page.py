"""The page on notebooks, cell by cell, as it stands; and what the cells lean on."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
from pipeline_case import PipelineTestCase
from tiny_model import QUICK, TinyWorld, write_model

import FewShotSegLib as fss
from FewShotSegLib.cli.progress import Progress, notebook_bar
from FewShotSegLib.core import options
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.model_folders import DEFAULT_MODELS
from FewShotSegLib.io.volumes import read_image
from FewShotSegLib.phantoms import patients

PAGE = Path(__file__).resolve().parents[2] / "Documentation" / "how-to" / "notebook.md"


def run_cell(code: str, names: dict[str, Any]) -> str:
    """What a notebook would show of a cell: its last expression, if it ends with one."""
    body = ast.parse(code).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), str(PAGE), "exec"), names)
    if not isinstance(last, ast.Expr):
        return ""
    shown = eval(compile(ast.Expression(last.value), str(PAGE), "eval"), names)
    return shown._repr_html_() if hasattr(shown, "_repr_html_") else repr(shown)


class Page(TinyWorld):
    """With coarse phantoms and the small model of the tests in place of the default one."""

    def setUp(self) -> None:
        super().setUp()
        intensities = {"intensity": "window", "low": -200, "high": 300}
        box = {"orientation": "RAS", "spacing": [9.0, 9.0, 9.0], **intensities}
        models = Path(os.environ["FEWSHOTSEG_HOME"]) / "models"
        write_model(models, "coarse", preprocessing={"CT": box}, modality=["CT"])
        coarse = partial(patients.make_phantom, spacing=(9.0, 9.0, 9.0))
        self.enterContext(mock.patch.dict(DEFAULT_MODELS, {"CT": "coarse"}))
        self.enterContext(mock.patch.object(patients, "make_phantom", coarse))
        quick = mock.Mock(return_value=QUICK)
        self.enterContext(mock.patch.object(options, "default_settings", quick))
        before = os.getcwd()
        os.chdir(self.folder)
        self.addCleanup(os.chdir, before)

    def test_every_cell_runs(self) -> None:
        text = PAGE.read_text(encoding="utf-8")
        cells = re.findall(r"(?ms)^```python\n(.*?)^```$", text)
        names: dict[str, Any] = {}
        printed, progress = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(progress):
            shown = [run_cell(cell, names) for cell in cells]
        self.assertEqual(len(shown), 10)
        structures = [organ.name for organ in patients.ORGANS]
        for name in structures:
            self.assertIn(name, shown[1])
            self.assertIn(name, shown[2])
        self.assertIn("<img", shown[2])
        ml = names["result"].to_pandas()["ml"]
        self.assertEqual(list(ml.index), structures)
        self.assertAlmostEqual(eval(shown[3].partition("(")[2].rstrip(")")), ml["gland_left"])
        self.assertIn("dice", shown[5])
        self.assertIn("missing.nii.gz", shown[6])
        outcomes = names["outcomes"]
        self.assertEqual([o.error is None for o in outcomes], [True, False])
        self.assertEqual(len(names["table"]), 4)
        self.assertEqual(names["table"]["error"].notna().sum(), 1)
        written = read_image(self.folder / "results" / "phantom_04_ct_seg.nii.gz")
        np.testing.assert_array_equal(written.array, names["result"].labels)
        self.assertEqual(printed.getvalue().count("archive"), 4)
        self.assertEqual(len(names["better"].rounds), 2)
        self.assertIn("training", progress.getvalue())


class Lists(PipelineTestCase):
    """Several queries, without files."""

    def test_paths_and_volumes_in_memory(self) -> None:
        volume, missing = read_image(self.query.image), self.folder / "missing.nii.gz"
        queries = [volume, missing, self.query.image]
        how = {"model": str(self.model), "runtime": self.runtime}
        found = fss.segment(self.trained, queries, **how)
        self.assertIsInstance(found, fss.Outcomes)
        self.assertEqual([o.name for o in found], ["volume 1", "missing", "query"])
        alone = self.segment()
        for number in (0, 2):
            np.testing.assert_array_equal(found[number].result.labels, alone.labels)
        self.assertIn("missing.nii.gz", str(found[1].error))
        self.assertEqual(repr(found).splitlines()[0], "<3 volumes, 1 failed>")
        self.assertEqual(len(found.to_pandas()), 5)
        self.assertIn(found[1].name, found._repr_html_())
        self.assertEqual(fss.segment(self.trained, [], **how), [])

    def test_what_is_wrong_for_all_is_said_before_the_first(self) -> None:
        volume = read_image(self.query.image)
        with self.assertRaisesRegex(InputError, "Volumes in memory have no names"):
            fss.segment(self.trained, [volume], out=self.folder / "x", model=str(self.model))
        with self.assertRaisesRegex(InputError, "needs a folder"):
            fss.segment(self.trained, [self.query.image], out=self.folder / "x.NII.gz")
        self.assertFalse((self.folder / "x.NII.gz").exists())
        with self.assertRaises(fss.FewShotSegError):
            fss.segment(self.trained, [volume], model="nobody")
        with self.assertRaises(TypeError):
            fss.segment(self.trained, [volume], model=str(self.model), transduktive=False)

    def test_a_table_without_pandas(self) -> None:
        result = self.segment()
        with mock.patch.dict(sys.modules, {"pandas": None}):
            with self.assertRaisesRegex(InputError, "pip install pandas"):
                result.to_pandas()

    def test_an_outcome_is_scored_and_a_list_is_not(self) -> None:
        volume, missing = read_image(self.query.image), self.folder / "missing.nii.gz"
        how = {"model": str(self.model), "runtime": self.runtime}
        found = fss.segment(self.trained, [volume, missing], **how)
        scores = fss.evaluate(found[0], self.query.segmentation)
        self.assertEqual(scores, fss.evaluate(found[0].result, self.query.segmentation))
        with self.assertRaisesRegex(InputError, "missing.nii.gz"):
            fss.evaluate(found[1], self.query.segmentation)
        for wrong in (found, [self.query.image]):
            with self.assertRaisesRegex(InputError, "call it for each of a list"):
                fss.evaluate(wrong, self.query.segmentation)

    def test_scores_as_a_table(self) -> None:
        scores = fss.evaluate(self.segment(), self.query.segmentation)
        frame = scores.to_pandas()
        for name, one in scores.items():
            self.assertEqual(frame.loc[name, "dice"], round(one.dice, 4))


class Bars(PipelineTestCase):
    """Progress in a notebook: a bar of widgets, which goes when the work is over."""

    def kernel(self) -> None:
        """As if this were the process of a notebook."""
        shell = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object()))
        self.enterContext(mock.patch.dict(sys.modules, {"IPython": shell}))

    def test_only_in_a_notebook(self) -> None:
        self.assertIsNone(notebook_bar())
        self.kernel()
        from tqdm import notebook

        self.assertIs(notebook_bar(), notebook.tqdm)
        with mock.patch.object(notebook, "IProgress", None):  # ipywidgets is not installed
            self.assertIsNone(notebook_bar())

    def test_a_bar_that_ends(self) -> None:
        from tqdm import notebook

        self.kernel()
        made: list[Any] = []
        real = notebook.tqdm

        def make(**how: Any) -> Any:
            made.append(real(**how, display=False))
            return made[-1]

        stream = io.StringIO()
        with mock.patch("FewShotSegLib.cli.progress.notebook_bar", return_value=make):
            progress = Progress(stream)
            self.segment(runtime=fss.Runtime("cpu", self.world / "cache", events=progress))
        self.assertGreater(len(made), 1)
        self.assertTrue(all(bar.disable for bar in made), "a bar was left open")
        long = [bar for bar in made if bar.total]
        self.assertGreater(len(long), 0)
        for bar in long:
            self.assertEqual(bar.container.children[1].max, bar.total)

    def test_lines_elsewhere(self) -> None:
        stream = io.StringIO()
        runtime = fss.Runtime("cpu", self.world / "cache", events=fss.Progress(stream))
        self.segment(runtime=runtime)
        self.assertIn("segmenting: query.nii.gz\n", stream.getvalue())
