"""What a file says is shown on the panel as it stands there, and never taken for HTML."""

from __future__ import annotations

import unittest
from pathlib import Path
from unittest import mock

import slicer_world
from panel_case import PanelTestCase, settle, texts

if True:  # after the world is there
    import ctk
    import qt
    import slicer
    from FewShotSegSlicer.interface.rows import LogLine
    from FewShotSegSlicer.machine.requirements import outdated_advice
    from FewShotSegSlicer.messages import agree, tell, tell_error, tooltip
    from FewShotSegSlicer.panel import tools as widget_tools

from FewShotSegLib.core import requirements
from FewShotSegLib.core.errors import InputError

TAG = '<b>x</b><img src="file:///x">'
TURNED = "a\u202eb\x1b[2J"
SHOWN = r"a\u202eb\x1b[2J"


def looks_rich(text: str) -> bool:
    """Whether Qt would take a text for HTML where it is left to guess."""
    if slicer_world.REAL:
        return False
    from PySide6.QtGui import Qt

    return Qt.mightBeRichText(text)


class PanelTextTest(PanelTestCase):
    """Names that are HTML, or that do something to what stands around them."""

    def test_every_label_is_plain(self) -> None:
        labels = slicer.util.findChildren(self.panel.uiWidget, className="QLabel")
        self.assertGreater(len(labels), 40)
        for label in labels:
            self.assertEqual(label.textFormat, qt.Qt.PlainText, label.name)

    def test_no_label_lost_anything_by_it(self) -> None:
        form = Path(slicer_world.ROOT, "FewShotSeg/Resources/UI/FewShotSeg.ui")
        self.assertNotIn("&lt;", form.read_text(encoding="utf-8"))

    def test_a_hint(self) -> None:
        hint = self.panel.models.hint
        for text, shown in ((TAG, TAG), (TURNED, SHOWN), ("a\nb", "a\nb")):
            hint.show(text, "error")
            self.assertEqual(hint.text, shown)
            self.assertEqual(hint.label.textFormat, qt.Qt.PlainText)

    def test_tables_and_their_tooltips(self) -> None:
        for name, shown in ((TAG, TAG), (TURNED, SHOWN)):
            self.logic.support_rows = []
            volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
            self.logic.addSupport(volume)
            self.panel.refresh()
            settle()
            table = self.ui.supportsTable
            self.assertEqual(texts(table)[0][0], shown)
            self.assertEqual(table.item(0, 0).toolTip(), tooltip(f"{name}\nAnnotated in: new"))

    def test_the_model(self) -> None:
        from dataclasses import replace

        rows = [
            replace(row, title=TAG, licence=TAG, description=TAG) for row in self.logic.model_rows
        ]
        self.logic.model_rows = rows
        self.logic.changed("models")
        settle()
        self.assertEqual(self.ui.modelCombo.itemText(0), TAG)
        self.assertEqual(self.ui.modelLicence.text, TAG)
        tip = self.ui.modelCombo.toolTip
        self.assertTrue(tip.startswith("<qt>&lt;b&gt;x&lt;/b&gt;&lt;img src="), tip)

    def test_the_log(self) -> None:
        self.panel.onNotice(LogLine(f"{TAG} {TURNED}"))
        self.assertIn(f"{TAG} {SHOWN}", self.ui.logText.toPlainText())

    def test_what_is_too_old_is_reported(self) -> None:
        self.logic.outdated = ["torch 2.9.1 is installed, and FewShotSeg needs 2.10 or newer."]
        self.panel.models.refresh()
        self.assertIn("torch 2.9.1 is installed", self.panel.models.hint.text)
        self.logic.missing = ["einops>=0.7"]
        self.panel.models.refresh()
        self.assertIn("Press Install", self.panel.models.hint.text)


class TooltipTest(unittest.TestCase):
    """Qt has no plain tooltips."""

    def test_what_may_look_like_html_is_quoted(self) -> None:
        for text, shown in (
            ("liver", "liver"),
            ("Milz & Leber", "Milz & Leber"),
            ("line\nline", "line\nline"),
            ("<b>x</b>", "<qt>&lt;b&gt;x&lt;/b&gt;</qt>"),
            ("&lt;b>", "<qt>&amp;lt;b&gt;</qt>"),
            ("a < b\n& c", "<qt>a &lt; b<br>&amp; c</qt>"),
            (TURNED, SHOWN),
        ):
            with self.subTest(text):
                self.assertEqual(tooltip(text), shown)

    def test_what_is_not_quoted_is_plain_to_qt(self) -> None:
        for text in (
            "liver",
            "a & b",
            "x &gt; y",
            "5 > 3",
            "&amp;",
            "&#60;b&#62;",
            TAG,
            "<p>",
            "a<",
        ):
            with self.subTest(text):
                shown = tooltip(text)
                self.assertTrue(shown.startswith("<qt>") or not looks_rich(shown), shown)


class MessageBoxTest(unittest.TestCase):
    """Message boxes show plain text; ``slicer.util`` hands the box its format."""

    def test_each_kind(self) -> None:
        for name, show, more in (
            ("infoDisplay", tell, ()),
            ("errorDisplay", tell_error, ()),
            ("confirmOkCancelDisplay", agree, ("Title",)),
        ):
            with self.subTest(name), mock.patch.object(slicer.util, name) as display:
                show(f"{TAG}{TURNED}", *more)
                self.assertEqual(display.call_args.args, (f"{TAG}{SHOWN}", *more))
                self.assertEqual(display.call_args.kwargs["textFormat"], qt.Qt.PlainText)

    def test_the_box_itself(self) -> None:
        boxes = []

        def run(box: object) -> int:
            boxes.append((box.text, box.textFormat))
            return qt.QMessageBox.Ok

        with (
            mock.patch.object(slicer.app, "testingEnabled", return_value=False),
            mock.patch.object(slicer.util, "mainWindow", return_value=None),
            mock.patch.object(ctk.ctkMessageBox, "exec_", run, create=True),
        ):
            self.assertTrue(agree(TAG, "Title"))
        self.assertEqual(boxes, [(TAG, qt.Qt.PlainText)])

    def test_errors_of_the_panel(self) -> None:
        with mock.patch.object(slicer.util, "errorDisplay") as display:
            with widget_tools.reporting():
                raise InputError(f"The structure '{TURNED}' is empty.")
            with widget_tools.reporting():
                raise KeyError(TAG)
        (first, second) = display.call_args_list
        self.assertEqual(first.args, (f"The structure '{SHOWN}' is empty.",))
        self.assertIn("Traceback", second.kwargs["detailedText"])

    def test_no_message_goes_past_them(self) -> None:
        module = Path(slicer_world.ROOT, "FewShotSeg", "FewShotSegSlicer")
        for path in module.rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            if path.name != "messages.py":
                self.assertNotRegex(text, r"slicer\.util\.\w+Display\(|QMessageBox\(", path.name)
            for line in text.splitlines():
                if "setToolTip(" in line and "tooltip(" not in line:
                    self.assertIn(
                        path.name,
                        ("loss_plot.py", "method.py", "models.py"),
                        line,
                    )


class OutdatedTest(unittest.TestCase):
    """What the panel says of a package that is too old."""

    def test_the_advice(self) -> None:
        need = {need.name: need for need in requirements.read_requirements()}
        found = [
            requirements.Outdated(need["torch"], "2.9.1"),
            requirements.Outdated(need["monai"], "1.3.2"),
        ]
        with mock.patch(
            "FewShotSegSlicer.machine.requirements.outdated_packages", return_value=found
        ):
            torch, monai = outdated_advice()
        self.assertIn("torch 2.9.1 is installed, and FewShotSeg needs 2.10 or newer", torch)
        self.assertIn("«PyTorch Utils»", torch)
        self.assertIn('slicer.util.pip_install("monai>=1.4")', monai)


if __name__ == "__main__":
    unittest.main()
