"""What tests of the panel share: a panel over a mock or the real logic, and hands to use it."""

from __future__ import annotations

from typing import Any

import slicer_world

if True:  # after the world is there
    import qt
    import slicer
    from FewShotSegSlicer.panel.widget import PanelWidget
    from mock_logic import MockLogic


class RealPanel(PanelWidget):
    """The panel over the real logic, in a window of its own."""

    def __init__(self) -> None:
        parent = slicer.qMRMLWidget()
        parent.setLayout(qt.QVBoxLayout())
        parent.setMRMLScene(slicer.mrmlScene)
        super().__init__(parent)
        self.moduleName = "FewShotSeg"
        self.setup()
        parent.show()

    def close(self) -> None:
        """Take it away, and whatever it started."""
        self.cleanup()
        self.parent.hide()
        self.parent.deleteLater()
        settle()


class MockedPanel(RealPanel):
    """The panel without an engine."""

    def makeLogic(self) -> MockLogic:
        return MockLogic()


class PanelTestCase(slicer_world.SceneTestCase):
    """A panel over a mock, and an empty scene."""

    def setUp(self) -> None:
        super().setUp()
        self.panel = MockedPanel()
        self.ui, self.logic = self.panel.ui, self.panel.logic
        settle()

    def tearDown(self) -> None:
        self.panel.close()
        super().tearDown()

    def add_volumes(self, count: int) -> list[Any]:
        """Volumes without voxels, to be listed."""
        add = slicer.mrmlScene.AddNewNodeByClass
        volumes = [add("vtkMRMLScalarVolumeNode", f"CT {i + 1}") for i in range(count)]
        settle()
        return volumes

    def names_called(self) -> list[str]:
        """Methods of the logic that were called."""
        return [call[0] for call in self.logic.calls]

    def assert_gated(self, button: Any, words: str) -> None:
        """A button is off, and its tooltip says why."""
        self.assertFalse(button.enabled, button.name)
        self.assertIn(words, button.toolTip)


def settle() -> None:
    """Let everything that is due happen."""
    for _ in range(3):
        slicer.app.processEvents()


def texts(table: Any) -> list[list[str]]:
    """What a table shows, by row."""
    return [
        [table.item(row, column).text() for column in range(table.columnCount)]
        for row in range(table.rowCount)
    ]


def tick(table: Any, row: int, column: int, checked: bool) -> None:
    """Press a check box of a table."""
    table.item(row, column).setCheckState(qt.Qt.Checked if checked else qt.Qt.Unchecked)
    settle()


def type_into(table: Any, row: int, column: int, text: str) -> None:
    """Edit a cell of a table."""
    table.item(row, column).setText(text)
    settle()


def choose_row(table: Any, *rows: int) -> None:
    """Select rows of a table and no others."""
    for row in range(table.rowCount):
        for column in range(table.columnCount):
            table.item(row, column).setSelected(row in rows)
    settle()


def choose(combo: Any, entry_id: str) -> None:
    """Choose an entry of a combo box, as a person does."""
    index = combo.findData(entry_id)
    combo.setCurrentIndex(index)
    combo.activated.emit(index)
    settle()
