"""Which folders are a job's, and that no other is ever removed."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import unittest
from pathlib import Path

from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.events import event_line
from FewShotSegLib.core.job_folders import (
    MARKER,
    PREFIX,
    make_job_folder,
    owner_of,
    remove_abandoned,
    remove_job_folder,
)
from FewShotSegLib.core.processes import is_the_process, process_exists, process_start
from FewShotSegLib.worker.event_writer import WAITING, EventWriter


def dead_pid() -> int:
    """Of a process that is no more."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


class ProcessesTest(unittest.TestCase):
    """A process is distinguished from the next with its number."""

    def test_this_one_and_one_that_is_gone(self) -> None:
        start = process_start(os.getpid())
        self.assertTrue(start)
        self.assertTrue(is_the_process(os.getpid(), start))
        self.assertTrue(is_the_process(os.getpid(), ""))
        self.assertFalse(is_the_process(os.getpid(), f"{start}0"))
        pid = dead_pid()
        self.assertEqual((process_exists(pid), process_start(pid)), (False, ""))
        for number in (0, -1, -os.getpid(), 2**40, 2**70):
            self.assertFalse(process_exists(number), number)

    @unittest.skipUnless(os.name == "posix", "zombies")
    def test_one_that_waits_for_its_parent_is_gone(self) -> None:
        child = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
        child.stdout.read()
        child.stdout.close()
        if sys.platform == "linux":
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
            self.assertFalse(process_exists(child.pid))
        child.wait()


class JobFoldersTest(unittest.TestCase):
    """Name, marker, owner."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.parent = Path(folder.name)

    def fill(self, folder: Path) -> Path:
        (folder / "results").mkdir()
        (folder / "query.npy").write_bytes(b"voxels")
        (folder / "results" / "segment0.npy").write_bytes(b"voxels")
        return folder

    def left(self) -> list[str]:
        return sorted(path.name for path in self.parent.iterdir())

    def test_made_known_and_removed(self) -> None:
        folder = self.fill(make_job_folder(self.parent))
        owner = owner_of(folder)
        self.assertEqual((owner.pid, owner.is_there()), (os.getpid(), True))
        if os.name == "posix":
            self.assertEqual(folder.stat().st_mode & 0o777, 0o700)
        self.assertEqual(remove_abandoned(self.parent), 0)
        self.assertTrue(remove_job_folder(folder))
        self.assertEqual(self.left(), [])
        self.assertTrue(remove_job_folder(folder), "it is gone already")

    def test_what_is_not_ours_stays(self) -> None:
        pid = dead_pid()
        plain = self.parent / "my data"
        plain.mkdir()
        (plain / MARKER).write_text(
            json.dumps({"purpose": "a job of FewShotSeg", "pid": pid, "start": ""})
        )
        markers = {
            "none": None,
            "other": '{"purpose": "something", "pid": 1, "start": ""}',
            "list": "[1]",
            "number": "7",
            "pid": '{"purpose": "a job of FewShotSeg", "pid": true, "start": ""}',
        }
        for name, text in markers.items():
            folder = self.parent / f"{PREFIX}{pid}-{name}"
            folder.mkdir()
            (folder / "other.txt").write_text("x")
            if text is not None:
                (folder / MARKER).write_text(text)
        before = self.left()
        self.assertEqual(remove_abandoned(self.parent), 0)
        for name in before:
            self.assertIsNone(owner_of(self.parent / name), name)
            self.assertFalse(remove_job_folder(self.parent / name), name)
        self.assertEqual(self.left(), before)
        self.assertTrue((plain / MARKER).exists())

    @unittest.skipUnless(os.name == "posix", "symbolic links")
    def test_links_are_never_followed(self) -> None:
        pid = dead_pid()
        target = self.fill(make_job_folder(self.parent, pid)).rename(self.parent / "kept")
        link = self.parent / f"{PREFIX}{pid}-link"
        link.symlink_to(target)
        self.assertIsNone(owner_of(link))
        self.assertFalse(remove_job_folder(link))
        folder = make_job_folder(self.parent, pid)
        (folder / "results").symlink_to(target)
        (folder / "query.npy").symlink_to(target / "query.npy")
        marked = make_job_folder(self.parent, pid)
        (marked / MARKER).rename(self.parent / "marker.json")
        (marked / MARKER).symlink_to(self.parent / "marker.json")
        self.assertEqual(remove_abandoned(self.parent), 1)
        self.assertEqual(self.left(), sorted(["kept", link.name, marked.name, "marker.json"]))
        self.assertEqual((target / "query.npy").read_bytes(), b"voxels")

    def test_a_number_that_another_process_got_keeps_nothing(self) -> None:
        folder = self.fill(make_job_folder(self.parent))
        marker = json.loads((folder / MARKER).read_text())
        (folder / MARKER).write_text(json.dumps({**marker, "start": "long ago"}))
        self.assertEqual(remove_abandoned(self.parent), 1)
        self.assertEqual(self.left(), [])

    def test_killed_while_it_was_made(self) -> None:
        pid = dead_pid()
        empty = self.parent / f"{PREFIX}{pid}-empty"
        empty.mkdir()
        for length in (0, 1, 30):
            cut = make_job_folder(self.parent, pid)
            text = (cut / MARKER).read_text()
            (cut / MARKER).write_text(text[:length])
        mine = self.parent / f"{PREFIX}{os.getpid()}-empty"
        mine.mkdir()
        strange = self.parent / f"{PREFIX}x-empty"
        strange.mkdir()
        self.assertEqual(remove_abandoned(self.parent), 4)
        self.assertEqual(self.left(), sorted([mine.name, strange.name]))

    def test_killed_while_it_was_removed(self) -> None:
        """Renamed already: the next one finds it, as does whoever removes the folder again."""
        for again in (lambda f: remove_job_folder(f), lambda f: remove_abandoned(self.parent)):
            folder = self.fill(make_job_folder(self.parent, dead_pid()))
            (folder / "query.npy").unlink()
            folder.rename(folder.with_name(f"{folder.name}-0123abcd"))
            again(folder)
            self.assertEqual(self.left(), [])


class EventWriterTest(unittest.TestCase):
    """Lines for a reader that may be slow, or gone."""

    def test_nothing_follows_the_end(self) -> None:
        """A heartbeat may be due just as the job ends."""
        for end in ("finished", "failed", "cancelled"):
            stream = io.BytesIO()
            events = EventWriter(stream, self.fail)
            for kind in ("heartbeat", end, "heartbeat", "cancelled"):
                events({"event": kind})
            self.assertTrue(events.drained(60))
            reported = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
            self.assertEqual(reported, ["heartbeat", end])

    def test_a_reader_that_stands_still_costs_heartbeats_alone(self) -> None:
        class Full(io.BytesIO):
            """Takes nothing until it may; then a few bytes at a time."""

            ready = threading.Event()

            def write(self, data: memoryview) -> int:
                self.ready.wait()
                return super().write(bytes(data[:7]))

        stream = Full()
        events = EventWriter(stream, self.fail)
        for number in range(3 * WAITING):
            events({"event": "heartbeat", "n": number})
            events({"event": "epoch", "n": number})
        events({"event": "finished"})
        self.assertFalse(events.drained(0))
        stream.ready.set()
        self.assertTrue(events.drained(60))
        reported = [json.loads(line) for line in stream.getvalue().splitlines()]
        epochs = [event["n"] for event in reported if event["event"] == "epoch"]
        self.assertEqual(epochs, list(range(3 * WAITING)))
        beats = sum(event["event"] == "heartbeat" for event in reported)
        self.assertLessEqual(beats, WAITING)
        self.assertGreater(beats, 0)
        self.assertEqual(reported[-1], {"event": "finished"})

    def test_a_reader_that_is_gone_is_reported(self) -> None:
        class Broken(io.BytesIO):
            def write(self, data: memoryview) -> int:
                raise BrokenPipeError

        gone = threading.Event()
        EventWriter(Broken(), gone.set)({"event": "heartbeat"})
        self.assertTrue(gone.wait(600))

    def test_numbers_without_a_json_form_are_named(self) -> None:
        nan, inf = float("nan"), float("inf")
        for event, where in (
            ({"event": "epoch", "loss": nan}, r"\(epoch: loss\)"),
            ({"event": "epoch", "sizes_ml": {"bean": inf}}, r"\(epoch: sizes_ml: bean\)"),
            ({"event": "cell", "of": [1.0, {"x": -inf}], "b": nan}, "cell: of: 1: x and cell: b"),
        ):
            with self.assertRaisesRegex(InputError, where):
                event_line(event)
            with self.assertRaises(InputError):
                EventWriter(io.BytesIO(), self.fail)(event)
        self.assertEqual(json.loads(event_line({"event": "epoch", "loss": 1.5}))["loss"], 1.5)


if __name__ == "__main__":
    unittest.main()
