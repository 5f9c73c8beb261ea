"""Asking changes nothing: no getter and no refresh writes to the scene or reads a file twice."""

from __future__ import annotations

import slicer_world  # before qt, which it puts in place

# isort: split
import inspect
import json
import unittest
from typing import Any
from unittest import mock

import numpy as np
import qt
import slicer
from FewShotSegSlicer.interface.protocol import LogicProtocol
from FewShotSegSlicer.jobs import control, segment, train
from FewShotSegSlicer.scene.state import QUERY, REFINED
from FewShotSegSlicer.scene.structures import match
from module_logic import SHAPE, LogicTestCase
from module_scenes import adapter_bytes, add_segmentation, add_volume, affine_of
from panel_case import RealPanel, settle
from watching import opened_files, scene_changes, times_opened

from FewShotSegLib.core import requirements
from FewShotSegLib.core.model_folders import EMBEDDED_FOLDER, entry_paths

ACTIONS = {
    *("close", "refreshDevices", "addSceneSupports", "startTraining", "startSegmentation"),
    *("cancel", "startSuggesting"),
}
"""Methods without arguments that a person's click stands behind: all others only ask."""
ASKED_OF_A_KIND = ("blockers", "estimate")


def box(planes: int) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[1:6, 2:7, 1 : 1 + planes] = True
    return mask


class SessionTestCase(LogicTestCase):
    """With all that a scene of ours can hold."""

    def fill(self, logic: Any) -> None:
        """Supports (one drawn on since), an adapter, a query and its result."""
        volumes = [add_volume(np.zeros(SHAPE, np.int16), affine_of(), f"v{n}") for n in range(3)]
        for volume in volumes[:2]:
            masks = {"liver": box(3), "kidney left": box(2)}
            logic.addSupport(volume, add_segmentation(masks, affine_of(), volume))
        later = add_segmentation({"spleen": box(4)}, affine_of(), volumes[0], "other")
        drawn = logic.supports()[0].segmentation.GetSegmentation()
        copy_segment(later, "spleen", drawn)
        drawn.AddEmptySegment("empty", "empty")
        slicer.mrmlScene.RemoveNode(later)
        parameters = logic.getParameterNode()
        parameters.adapterId = logic.session.adapters.add(adapter_bytes(), "Glands")
        parameters.queryVolume = volumes[2]
        state = logic.session.state
        state.refer(QUERY, "r1", volumes[2])
        state.refer(REFINED, "r1", add_segmentation({"bean": box(2)}, affine_of(), volumes[2]))
        data = state.read()
        data["results"] = [result_row(parameters.adapterId)]
        state.write(data)

    def wait_for_sizes(self, logic: Any) -> None:
        logic.structures()
        slicer_world.process_events_until(lambda: logic.session.sizes._stepper is None)


def copy_segment(node: Any, name: str, target: Any) -> None:
    """As a person draws it, whom the logic does not hear."""
    source = node.GetSegmentation()
    segment = slicer.vtkSegment()
    segment.DeepCopy(source.GetSegment(source.GetSegmentIdBySegmentName(name)))
    target.AddSegment(segment, target.GenerateUniqueSegmentID("drawn"))


def result_row(adapter: str) -> dict[str, Any]:
    """A result of one structure, as the state keeps it."""
    prior = {
        **{"mean_ml": 1.0, "sd_ml": 0.1, "supports": 2, "gamma": 0.1, "enabled": True},
        **{"lower_ml": 0.9, "upper_ml": 1.1, "lower_bound_trusted": True},
    }
    line = {
        **{"name": "bean", "color": [0.2, 0.5, 0.8], "volume_ml": 1.0, "unrefined_ml": 1.2},
        **{"prior": prior, "within": True, "note": ""},
    }
    return {"id": "r1", "table": [line], "warnings": [], "seconds": 1.0, "adapter": adapter}


class QuietTest(SessionTestCase):
    """The scene is as it was after whatever was asked."""

    def ask_everything(self, logic: Any) -> list[str]:
        """Call every getter of the protocol; their names."""
        asked = []
        for name, member in vars(LogicProtocol).items():
            if name.startswith("_") or not callable(member) or name in ACTIONS:
                continue
            arguments = list(inspect.signature(member).parameters)[1:]
            if not arguments:
                getattr(logic, name)()
                asked.append(name)
            elif name in ASKED_OF_A_KIND:
                for kind in ("train", "segment", "download", "import", "phantoms", "devices"):
                    getattr(logic, name)(kind)
                asked.append(name)
        return asked

    def test_no_getter_writes_to_the_scene(self) -> None:
        self.fill(self.logic)
        for sizes in ("not counted yet", "counted"):
            with self.subTest(sizes), scene_changes() as changes:
                asked = self.ask_everything(self.logic)
            self.assertEqual(changes, [], sizes)
            self.wait_for_sizes(self.logic)
        for name in ("supports", "structures", "results", "blockers", "estimate", "methods"):
            self.assertIn(name, asked)
        self.assertEqual(
            [row.name for row in self.logic.structures()],
            ["liver", "kidney left", "spleen", "empty"],
        )

    def test_a_new_logic_has_made_its_node_before_it_is_asked(self) -> None:
        slicer_world.clear_scene()
        with scene_changes() as changes:
            self.ask_everything(self.logic)
        self.assertEqual(changes, [])

    def test_no_refresh_of_the_panel_writes_to_the_scene(self) -> None:
        panel = RealPanel()
        self.addCleanup(panel.close)
        slicer_world.process_events_until(lambda: panel.logic.running() is None)
        self.fill(panel.logic)
        self.wait_for_sizes(panel.logic)
        settle()
        drawn = panel.logic.supports()[1].segmentation.GetSegmentation()
        drawn.AddEmptySegment("new", "new")  # which the panel has not seen yet
        with scene_changes() as changes:
            panel.refresh()
        self.assertEqual(changes, [])
        self.assertEqual(panel.ui.structuresTable.rowCount, 5)
        self.assertEqual(panel.ui.resultsTable.rowCount, 1)

    def test_what_is_watched_is_seen(self) -> None:
        self.fill(self.logic)
        row = self.logic.supports()[0]
        segment_of = row.segmentation.GetSegmentation().GetNthSegment
        for change in (
            lambda: row.volume.SetName("another"),
            lambda: segment_of(0).SetColor(1.0, 0.0, 0.0),
            lambda: self.logic.tickSupport(row.id, False),
            lambda: slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode"),
        ):
            with scene_changes() as changes:
                change()
            self.assertNotEqual(changes, [])


class PureTest(SessionTestCase):
    """Blockers and estimates come of the session alone."""

    def settings(self) -> dict[str, Any]:
        return {key: qt.QSettings().value(key) for key in qt.QSettings().allKeys()}

    def test_the_same_session_gives_the_same_answer_and_stays(self) -> None:
        session = self.logic.session
        for state in ("empty", "full"):
            before = self.settings()
            with self.subTest(state), scene_changes() as changes, self.assert_nothing_starts():
                for work in (train, segment):
                    first = work.blockers(session), work.estimate(session)
                    self.assertEqual((work.blockers(session), work.estimate(session)), first)
            self.assertEqual(changes, [])
            self.assertEqual(self.settings(), before)
            self.fill(self.logic) if state == "empty" else None
        self.assertEqual(train.blockers(session), [])
        self.assertIsNotNone(train.estimate(session))
        self.assertEqual(self.logic.blockers("train"), [])

    def assert_nothing_starts(self) -> Any:
        """Nothing of a task is made by asking."""
        never = AssertionError("a task was made")
        return mock.patch.multiple(
            control, Task=mock.Mock(side_effect=never), PlainRun=mock.Mock(side_effect=never)
        )

    def test_what_is_in_the_way_is_said(self) -> None:
        session = self.logic.session
        self.assertIn("Add an annotated volume", " ".join(train.blockers(session)))
        self.assertEqual(len(segment.blockers(session)), 2)
        self.assertIsNone(train.estimate(session))
        self.assertIsNone(segment.estimate(session))
        self.fill(self.logic)
        for row in self.logic.structures():
            self.logic.tickStructure(row.id, False)
        self.assertEqual(
            train.blockers(session), ["Tick a structure that is drawn in a ticked volume."]
        )


class OneReadTest(SessionTestCase):
    """A refresh of the panel reads no file of the registry twice."""

    def setUp(self) -> None:
        super().setUp()
        models = self.folder / "home" / "models"
        models.mkdir(parents=True, mode=0o700)
        (models / "broken.json").write_text("{", encoding="utf-8")
        entry = json.loads((EMBEDDED_FOLDER / "embedded.json").read_text(encoding="utf-8"))
        entry |= {"id": "own", "title": "My own", "weights": "own.safetensors", "sha256": None}
        self.own = models / "own.json"
        self.own.write_text(json.dumps(entry), encoding="utf-8")
        self.paths = [*entry_paths(), requirements.FILE]
        self.panel = RealPanel()
        self.addCleanup(self.panel.close)
        slicer_world.process_events_until(lambda: self.panel.logic.running() is None)
        settle()

    def opens_of_a_refresh(self) -> dict[str, int]:
        with opened_files() as opened:
            self.panel.refresh()
        return times_opened(opened, self.paths)

    def test_each_file_once_and_again_once_it_changed(self) -> None:
        requirements._parsed.forget()
        self.panel.logic.session.models._read.forget()
        first = self.opens_of_a_refresh()
        self.assertEqual(first, dict.fromkeys(first, 1))
        self.assertGreater(len(first), 5)
        self.assertEqual(self.opens_of_a_refresh(), dict.fromkeys(first, 0))
        text = self.own.read_text(encoding="utf-8").replace("My own", "My newer own")
        self.own.write_text(text, encoding="utf-8")
        expected = dict.fromkeys(first, 0) | {"own.json": 1}
        self.assertEqual(self.opens_of_a_refresh(), expected)
        titles = {row.title for row in self.panel.logic.models()}
        self.assertIn("My newer own", titles)
        self.assertIn("broken.json", titles)
        self.own.unlink()
        self.assertNotIn("own", {row.id for row in self.panel.logic.models()})


class TaskTest(SessionTestCase):
    """A task is there while it runs, and at no other time."""

    def setUp(self) -> None:
        super().setUp()
        self.support(liver=3)

    def test_none_before_and_after(self) -> None:
        self.assertIsNone(self.logic._task)
        self.logic.blockers("train")
        self.logic.estimate("train")
        self.assertIsNone(self.logic._task)
        self.logic.startTraining()
        self.assertEqual((self.logic._task.kind, self.logic.running()), ("train", "train"))
        self.logic.cancel()
        slicer_world.process_events_until(lambda: self.logic.running() is None, 60)
        self.assertIsNone(self.logic._task)
        self.assertEqual(self.logic.lastEnd().state, "cancelled")

    def test_one_that_cannot_even_begin_is_over_immediately(self) -> None:
        full = OSError(28, "No space left on device")
        with mock.patch("FewShotSegSlicer.jobs.task.make_job_folder", side_effect=full):
            self.logic.startTraining()
        self.assertIsNone(self.logic._task)
        self.assertIsNone(self.logic.running())
        end = self.logic.lastEnd()
        self.assertEqual(end.state, "failed")
        self.assertIn("No space left", end.message)
        self.assertEqual(self.logic.blockers("train"), [])


class IdentityTest(SessionTestCase):
    """Classes that nobody has edited are distinguished without a word in the scene."""

    def test_a_class_drawn_later_keeps_its_identity(self) -> None:
        self.fill(self.logic)
        kept = [row["name"] for row in self.logic.session.state.read()["structures"]]
        self.assertEqual(kept, ["liver", "kidney left"])
        rows = {row.name: row.id for row in self.logic.structures()}
        self.assertEqual(len(set(rows.values())), 4)
        self.assertEqual({row.name: row.id for row in self.logic.structures()}, rows)
        self.logic.setPrior(rows["spleen"], mean_ml=2.0)
        again = {row.name: row for row in self.logic.structures()}
        self.assertEqual({name: row.id for name, row in again.items()}, rows)
        self.assertEqual(again["spleen"].prior.mean_ml, 2.0)
        self.assertEqual(list(again), list(rows), "no row moves when one of them is edited")

    def test_two_classes_never_share_one(self) -> None:
        self.support(liver=3)
        (row,) = self.logic.structures()
        self.logic.renameStructure(row.id, "Leber")
        (split,) = self.logic.splitStructure(row.id)
        rows = self.logic.structures()
        self.assertEqual({r.name for r in rows}, {"Leber", "liver"})
        self.assertEqual({r.id for r in rows}, {row.id, split})
        self.assertNotEqual(row.id, split)

    def test_a_removed_support_leaves_shared_classes_as_they_were(self) -> None:
        self.fill(self.logic)
        first, second = self.logic.supports()
        shared = second.segmentation.GetSegmentation()
        copy_segment(first.segmentation, "spleen", shared)
        rows = {row.name: row.id for row in self.logic.structures()}
        self.logic.removeSupport(first.id)
        left = {row.name: row.id for row in self.logic.structures()}
        rows.pop("empty")
        self.assertEqual(left, rows)
        _data, members = match(self.logic.session.state)
        self.assertEqual([len(found) for found in members.values()], [1, 1, 1])


if __name__ == "__main__":
    unittest.main()
