"""Several volumes segmented with one press: in the real process, and on the panel."""

from __future__ import annotations

import slicer_world  # before qt, which it puts in place

# isort: split
import unittest
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import SimpleITK as sitk
import slicer
from dicom_series import Written
from FewShotSegSlicer.interface.rows import End, Progress, QueryRow, SeriesRow
from FewShotSegSlicer.panel import several as panel_several
from module_scenes import add_patient, add_volume, affine_of
from panel_case import PanelTestCase, settle, texts, tick
from process_case import ProcessTestCase
from tiny_model import make_grid, make_labels, make_values

from FewShotSegLib.core.errors import InputError


class SeveralTest(ProcessTestCase):
    """The real process on a small model."""

    def setUp(self) -> None:
        super().setUp()
        for seed in (8, 9):
            _volume, drawn = add_patient(seed, f"Query {seed}")
            slicer.mrmlScene.RemoveNode(drawn)

    def rows(self) -> dict[str, QueryRow]:
        return {row.name: row for row in self.logic.queries()}

    def ids(self) -> list[str]:
        return [row.id for row in self.logic.queries()]

    def states(self) -> dict[str, str]:
        return {name: row.state for name, row in self.rows().items()}

    def wait(self) -> None:
        slicer_world.process_events_until(
            lambda: not self.logic._pending and self.logic.running() is None, 600
        )

    def test_all_but_one_that_cannot_be(self) -> None:
        self.assertEqual(set(self.states().values()), {"open"})
        self.assertEqual(set(self.rows()), {"Query", "Query 8", "Query 9"}, "no support")
        with self.assertRaisesRegex(InputError, "Train or load"):
            self.logic.startSeveral(self.ids())
        self.logic.train(epochs=1)
        with self.assertRaisesRegex(InputError, "Tick the volumes"):
            self.logic.startSeveral([])
        gone = add_volume(np.zeros((8, 8, 8), np.int16), affine_of(), "Gone")
        sheared = add_volume(np.zeros((8, 8, 8), np.int16), affine_of(), "Sheared")
        ids = self.ids()
        matrix = np.eye(4)
        matrix[0, 1] = 0.5
        sheared.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix))
        slicer.mrmlScene.RemoveNode(gone)
        heard: list[dict[str, str]] = []
        self.logic.listen(lambda notice: heard.append(self.states()))
        self.logic.startSeveral(ids)
        with self.assertRaisesRegex(InputError, "running task"):
            self.logic.startSeveral(ids)
        self.assertEqual(self.rows()["Query"].state, "running")
        self.assertEqual(self.rows()["Query 9"].state, "waiting")
        self.wait()
        self.assertEqual({r.query.GetName() for r in self.logic.results()}, set(self.rows()))
        self.assertEqual(set(self.states().values()), {"done"})
        self.assertEqual(self.logic._outcomes[sheared.GetID()][0], "failed")
        self.assertIn("sheared", self.logic._outcomes[sheared.GetID()][1])
        self.assertTrue(all(list(s.values()).count("running") <= 1 for s in heard))
        self.assertEqual(self.folders(), [])

    def test_cancel_stops_those_that_wait_and_the_rest_can_be_done_later(self) -> None:
        self.logic.train(epochs=1)
        self.logic.startSeveral(self.ids())
        self.logic.cancel()
        self.wait()
        self.assertEqual(set(self.states().values()), {"stopped"})
        self.assertEqual(self.logic.results(), [])
        self.logic.startSeveral(self.ids()[:1])
        self.wait()
        self.assertEqual(sorted(self.states().values()), ["done", "open", "open"])

    def test_a_volume_that_makes_the_process_fail_does_not_stop_the_others(self) -> None:
        self.logic.train(epochs=1)
        volume = slicer.util.getNode("Query 8")
        array = np.full(volume.GetImageData().GetDimensions(), np.nan, np.float32)
        bad = add_volume(array, affine_of(), "Bad")
        self.logic.startSeveral([bad.GetID(), *self.ids()[:1]])
        self.wait()
        states = self.states()
        self.assertEqual((states["Bad"], states["Query"]), ("failed", "done"))
        self.assertTrue(self.rows()["Bad"].message.endswith("."))

    def test_another_scene_has_nothing_to_wait_for(self) -> None:
        self.logic.train(epochs=1)
        self.logic.startSeveral(self.ids())
        slicer_world.clear_scene()
        self.wait()
        self.assertEqual(self.logic.queries(), [])


def write_patient(path: Path, seed: int) -> None:
    """One of the engine's small patients as a file."""
    grid = make_grid()
    image = sitk.GetImageFromArray(
        np.ascontiguousarray(make_values(seed, make_labels(seed, grid)).T)
    )
    image.SetSpacing(grid.spacing)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


class Database:
    """The part of ctkDICOMDatabase that is used: one patient, a study, and these series."""

    isOpen = True

    def __init__(self, **series: tuple[str, list[Path]]) -> None:
        self._series = series

    def patients(self) -> list[str]:
        return ["1"]

    def studiesForPatient(self, patient: str) -> list[str]:
        return ["2"]

    def seriesForStudy(self, study: str) -> list[str]:
        return list(self._series)

    def filesForSeries(self, series: str) -> list[str]:
        return [str(file) for file in self._series[series][1]]

    def fileValue(self, file: str, tag: str) -> str:
        assert tag == "0008,0060"
        return next(m for m, files in self._series.values() if Path(file) in files)

    def nameForPatient(self, patient: str) -> str:
        return "Doe"

    def descriptionForStudy(self, study: str) -> str:
        return ""

    def descriptionForSeries(self, series: str) -> str:
        return f"of {series}"


class FolderTest(ProcessTestCase):
    """The real process on files, and on series of a DICOM database."""

    def setUp(self) -> None:
        super().setUp()
        self.volumes, self.out = self.folder / "volumes", self.folder / "results"
        for number in range(2):
            write_patient(self.volumes / f"case_{number}" / "ct.nii.gz", 7 + number)
        self.logic.train(epochs=1)
        self.scene = slicer.mrmlScene.GetNumberOfNodes()

    def run_to_end(self, *paths: Path, series: Sequence[str] = ()) -> End:
        self.notices.clear()
        self.logic.startFolder([str(p) for p in paths], str(self.out), series)
        slicer_world.process_events_until(lambda: self.logic.running() is None, 600)
        return self.logic.lastEnd()

    def test_a_folder_goes_on_after_a_failure_and_is_not_done_twice(self) -> None:
        (self.volumes / "case_1" / "ct.nii.gz").write_bytes(b"no volume")
        end = self.run_to_end(self.volumes)
        self.assertEqual((end.kind, end.state), ("folder", "finished"))
        self.assertIn("1 volume(s) segmented", end.message)
        self.assertIn("1 left out: case_1", end.message)
        self.assertEqual(self.logic.report(), str(self.out / "volumes.html"))
        self.assertIn("case_1", (self.out / "volumes.html").read_text(encoding="utf-8"))
        first = self.out / "case_0_seg.nii.gz"
        stamp = first.stat().st_mtime_ns
        fractions = [n.fraction for n in self.notices if isinstance(n, Progress)]
        self.assertIn(0.5, fractions)
        write_patient(self.volumes / "case_1" / "ct.nii.gz", 9)
        end = self.run_to_end(self.volumes)
        self.assertIn("2 volume(s) segmented", end.message)
        self.assertEqual(first.stat().st_mtime_ns, stamp, "it was done before")
        self.assertTrue((self.out / "case_1_seg.nii.gz").exists())
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), self.scene)
        self.assertEqual(self.folders(), [])

    def test_cancel_keeps_what_is_done(self) -> None:
        def stop_after_the_first(notice: Any) -> None:
            if isinstance(notice, Progress) and notice.fraction == 0.5:
                self.logic.cancel()

        self.logic.listen(stop_after_the_first)
        end = self.run_to_end(self.volumes)
        self.assertEqual(end.state, "cancelled")
        self.assertTrue((self.out / "case_0_seg.nii.gz").exists())
        self.assertTrue((self.out / "volumes.csv").exists())
        self.assertEqual(self.folders(), [])

    def test_series_of_the_database(self) -> None:
        uids, files = [], []
        for number in range(2):
            folder = self.folder / f"dicom{number}"
            folder.mkdir()
            uids.append(f"1.2.3.{number}")
            values = make_values(7, make_labels(7, make_grid())).astype(np.int16)
            Written(values, tags={"SeriesInstanceUID": uids[-1]}).write(folder)
            files.append(sorted(folder.iterdir()))
        database = Database(
            **{uids[0]: ("CT", files[0]), uids[1]: ("CT", [*files[1], files[0][0].parent / "x"])},
            other=("SR", [self.folder / "report.dcm"]),
        )
        with mock.patch.object(slicer, "dicomDatabase", database, create=True):
            rows = {row.id: row for row in self.logic.databaseSeries()}
            self.assertEqual(set(rows), set(uids), "a report is no image")
            self.assertEqual(rows[uids[0]].name, f"Doe, of {uids[0]}")
            self.assertIn("several folders", rows[uids[1]].problem)
            with self.assertRaisesRegex(InputError, "several folders"):
                self.logic.startFolder([], str(self.out), uids)
            with self.assertRaisesRegex(InputError, "any more"):
                self.logic.startFolder([], str(self.out), ["1.2.3"])
            end = self.run_to_end(series=uids[:1])
        self.assertIn("1 volume(s) segmented", end.message)
        self.assertEqual(len(list(self.out.glob("*_seg.nii.gz"))), 1)
        self.assertEqual(self.logic.databaseSeries(), [], "no database")

    def test_what_is_refused(self) -> None:
        with self.assertRaisesRegex(InputError, "another folder for the results"):
            self.logic.startFolder([str(self.volumes)], str(self.volumes))
        with self.assertRaisesRegex(InputError, "Choose a folder"):
            self.logic.startFolder([], str(self.out))
        self.logic.deleteAdapter(self.logic.adapters()[0].id)
        with self.assertRaisesRegex(InputError, "Train or load"):
            self.logic.startFolder([str(self.volumes)], str(self.out))


class PanelTest(PanelTestCase):
    """The list and its button."""

    def rows(self, *states: str) -> list[QueryRow]:
        return [QueryRow(f"v{n}", None, f"CT {n}", s) for n, s in enumerate(states)]

    def show(self, *states: str) -> Any:
        self.logic.query_rows = self.rows(*states)
        self.logic.changed("results")
        settle()
        return self.panel.several

    def test_what_has_no_result_is_ticked_and_segmented(self) -> None:
        view = self.show("open", "done", "failed")
        self.assertEqual(
            texts(view.table.widget), [["CT 0", "–"], ["CT 1", "done"], ["CT 2", "failed"]]
        )
        self.assertTrue(view.button.enabled)
        tick(view.table.widget, 2, 0, False)
        tick(view.table.widget, 1, 0, True)
        view.button.click()
        self.assertIn(("startSeveral", ["v0", "v1"]), self.logic.calls)

    def test_the_button_says_why_it_is_off(self) -> None:
        view = self.show("done")
        self.assert_gated(view.button, "Tick the volumes")
        self.logic.task = "train"
        view = self.show("open")
        self.assert_gated(view.button, "running task")
        self.assert_gated(view.folder_button, "running task")

    def test_a_folder_is_asked_for_and_one_for_the_results(self) -> None:
        view = self.show("open")
        self.ui.segmentSection.collapsed = False
        self.assert_gated(view.report_button, "No folder")
        with mock.patch.object(panel_several, "choose_folder", side_effect=["/in", ""]):
            view.folder_button.click()
        self.assertNotIn("startFolder", [call[0] for call in self.logic.calls])
        with mock.patch.object(panel_several, "choose_folder", side_effect=["/in", "/out"]):
            view.folder_button.click()
        self.assertIn(("startFolder", ["/in"], "/out", []), self.logic.calls)
        settle()
        self.assertFalse(self.ui.segmentProgress.isHidden())
        self.logic.report_path = "/out/volumes.html"
        self.logic.finish(message="2 volume(s) segmented into /out.")
        settle()
        self.assertIn("2 volume(s)", self.panel.segment.status.text)
        self.assertTrue(view.report_button.enabled)

    def test_series_are_ticked_by_hand_and_segmented_into_a_folder(self) -> None:
        self.logic.series_rows = [SeriesRow("1.1", "Doe, CT"), SeriesRow("1.2", "Doe, MR")]
        view = self.show("open")
        view.source.setCurrentIndex(1)
        view.on_source()
        self.assertEqual(texts(view.table.widget), [["Doe, CT", "–"], ["Doe, MR", "–"]])
        self.assert_gated(view.button, "Tick the series")
        tick(view.table.widget, 1, 0, True)
        with mock.patch.object(panel_several, "choose_folder", return_value="/out"):
            view.button.click()
        self.assertIn(("startFolder", [], "/out", ["1.2"]), self.logic.calls)
        view.source.setCurrentIndex(0)
        view.on_source()
        self.assertEqual(texts(view.table.widget), [["CT 0", "–"]])


if __name__ == "__main__":
    unittest.main()
