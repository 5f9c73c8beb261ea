"""Closing Slicer while a task runs asks first."""

from __future__ import annotations

import unittest
from unittest import mock

from panel_case import MockedPanel, PanelTestCase, settle

if True:  # after the world is there
    import qt
    import slicer
    from FewShotSegSlicer.panel import quit_guard


class QuitTest(PanelTestCase):
    """A main window with the panel."""

    def setUp(self) -> None:
        super().setUp()
        self.window = qt.QMainWindow()
        self.addCleanup(self.window.deleteLater)
        with mock.patch.object(slicer.util, "mainWindow", return_value=self.window):
            self.other = MockedPanel()
        self.addCleanup(self.other.close)

    def closes(self, answer: bool | None) -> bool:
        """Whether the window closes, where a person answers so; None: nobody is asked."""
        self.window.show()
        settle()
        with mock.patch.object(quit_guard, "agree", return_value=answer) as asked:
            closed = bool(self.window.close())
        self.assertEqual(asked.called, answer is not None)
        return closed

    def test_a_training_is_asked_about(self) -> None:
        self.other.logic.task = "train"
        self.assertFalse(self.closes(False))
        self.assertTrue(self.window.isVisible())
        self.assertTrue(self.closes(True))

    def test_nothing_else_is(self) -> None:
        for task in (None, "devices", "download"):
            with self.subTest(task):
                self.other.logic.task = task
                self.assertTrue(self.closes(None))

    def test_a_panel_that_is_gone_asks_nothing(self) -> None:
        self.other.logic.task = "segment"
        self.assertFalse(self.closes(False))
        self.other.cleanup()
        self.assertTrue(self.closes(None))


if __name__ == "__main__":
    unittest.main()
