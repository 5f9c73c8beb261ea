"""What killed processes leave half written goes; a living writer's file and a person's stay."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

from FewShotSegLib.core import atomic, temporary_files
from FewShotSegLib.core.errors import StorageError
from FewShotSegLib.core.temporary_files import PREFIX, sweep

ROOT = Path(__file__).resolve().parents[2]
WRITER = """
import sys, time
from FewShotSegLib.core.atomic import replacing
with replacing(sys.argv[1]) as temporary:
    temporary.write_bytes(b"half")
    print(temporary, flush=True)
    sys.stdin.readline()
    temporary.write_bytes(b"whole")
"""


class InFolder(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.path = self.folder / "result.nii.gz"

    def left(self) -> list[str]:
        return sorted(name for name in os.listdir(self.folder) if name.startswith("."))

    def start(self, path: Path | None = None, program: str = WRITER) -> subprocess.Popen:
        """Another process that is in the middle of writing a file."""
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(path or self.path)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(self.end, process)
        process.temporary = Path(process.stdout.readline().rstrip("\n"))
        self.assertTrue(process.temporary.exists())
        return process

    @staticmethod
    def end(process: subprocess.Popen) -> None:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            try:
                stream.close()
            except OSError:
                pass


class Sweeping(InFolder):
    def test_what_a_killed_process_left_goes_with_the_next_file(self) -> None:
        for number in range(5):
            process = self.start()
            process.kill()
            process.wait()
            self.assertEqual(self.left(), [process.temporary.name])
            name = "result.nii.gz" if number % 2 else "another.json"
            atomic.write_json(self.folder / name, {"n": number})
            self.assertEqual(self.left(), [])

    def test_a_check_whether_one_can_write_is_enough(self) -> None:
        process = self.start()
        process.kill()
        process.wait()
        atomic.require_writable(self.path)
        self.assertEqual(os.listdir(self.folder), [])

    def test_a_living_writers_file_stays(self) -> None:
        """With a killed one's beside it, and many others writing meanwhile."""
        dead, living = self.start(), self.start(self.folder / "living")
        dead.kill()
        dead.wait()
        for number in range(20):
            atomic.write_json(self.folder / "other.json", {"n": number})
        self.assertEqual(self.left(), [living.temporary.name])
        living.communicate("go on\n", timeout=60)
        self.assertEqual(living.returncode, 0)
        self.assertEqual((self.folder / "living").read_bytes(), b"whole")
        self.assertEqual(self.left(), [])

    def test_one_that_was_stopped_lives(self) -> None:
        if not hasattr(os, "kill") or os.name == "nt":
            self.skipTest("no signals here")
        import signal

        process = self.start()
        os.kill(process.pid, signal.SIGSTOP)
        self.assertEqual(sweep(self.folder), [])
        os.kill(process.pid, signal.SIGCONT)
        process.communicate("go on\n", timeout=60)
        self.assertEqual(self.path.read_bytes(), b"whole")

    def test_our_own_files_stay(self) -> None:
        """A thread that writes sweeps nothing of another thread of the same process."""
        with atomic.replacing(self.path) as first:
            first.write_text("first")
            with atomic.replacing(self.folder / "second") as second:
                second.write_text("second")
                self.assertEqual(sweep(self.folder), [])
        self.assertEqual(self.path.read_text(), "first")
        self.assertEqual((self.folder / "second").read_text(), "second")

    @unittest.skipIf(temporary_files.fcntl is None, "the system removes no open file anyway")
    def test_a_lock_alone_protects(self) -> None:
        """A process in another container can't be seen, and may have our computer's name."""
        living = self.start()
        with mock.patch.object(temporary_files, "process_exists", return_value=False):
            self.assertEqual(sweep(self.folder), [])
        living.kill()
        living.wait()
        with mock.patch.object(temporary_files, "process_exists", return_value=True):
            with mock.patch.object(temporary_files, "_start", return_value="0" * 8):
                self.assertEqual(sweep(self.folder), [])  # it may live
        self.assertEqual(sweep(self.folder), [living.temporary.name])

    def test_a_process_with_the_number_of_a_dead_one(self) -> None:
        process = self.start()
        process.kill()
        process.wait()
        name = process.temporary.name.replace(f"-{process.pid}-", f"-{os.getpid()}-")
        process.temporary.rename(self.folder / name)
        if temporary_files._start(os.getpid()) == temporary_files.UNKNOWN:
            self.skipTest("the system doesn't tell when a process began")
        self.assertEqual(sweep(self.folder), [name])

    def test_what_another_computer_left_goes_after_a_day(self) -> None:
        process = self.start()
        process.kill()
        process.wait()
        computer = temporary_files._computer()
        other = self.folder / process.temporary.name.replace(computer, "0123abcd")
        process.temporary.rename(other)
        self.assertEqual(sweep(self.folder), [])
        day = time.time() - temporary_files.FOREIGN_SECONDS
        os.utime(other, (day + 600, day + 600))
        self.assertEqual(sweep(self.folder), [])
        os.utime(other, (day - 600, day - 600))
        self.assertEqual(sweep(self.folder), [other.name])
        self.assertEqual(self.left(), [])

    def test_what_a_person_could_have_made_stays(self) -> None:
        process = self.start()
        process.kill()
        process.wait()
        ours = process.temporary.name
        process.temporary.unlink()
        names = [
            ".1a2b3c4d-result.nii.gz",  # as before: nothing says whose it is
            ".hidden",
            "result.nii.gz",
            f"{PREFIX}notes.txt",
            ours.replace(PREFIX, "fewshotseg-"),
            ours + "/inside",
            ours.replace("-result.nii.gz", ""),
            ours.replace(str(process.pid), "x"),
            ours.upper(),
        ]
        for name in names:
            path = self.folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text("mine")
        if os.name == "posix":
            (self.folder / "elsewhere").write_text("mine")
            link = ours.replace("-result", "-link")
            (self.folder / link).symlink_to(self.folder / "elsewhere")
            hard = ours.replace("-result", "-hard")
            os.link(self.folder / "elsewhere", self.folder / hard)
        before = sorted(os.listdir(self.folder))
        atomic.write_json(self.path, {})
        self.assertEqual(sorted(os.listdir(self.folder)), before)

    @unittest.skipUnless(hasattr(os, "geteuid"), "files have no owner of this kind")
    def test_what_another_user_left_stays(self) -> None:
        process = self.start()
        process.kill()
        process.wait()
        with mock.patch.object(os, "geteuid", return_value=os.geteuid() + 1):
            self.assertEqual(sweep(self.folder), [])
        self.assertEqual(sweep(self.folder), [process.temporary.name])

    def test_names_of_any_length(self) -> None:
        for name in ("x" * 200 + ".nii.gz", "ß" * 120 + ".nii.gz", "語" * 80 + ".seg.nrrd"):
            with self.subTest(name), atomic.replacing(self.folder / name) as temporary:
                self.assertLessEqual(len(os.fsencode(temporary.name)), 255)
                self.assertTrue(temporary.name.endswith(name[-9:]))
                temporary.write_text("")
            self.assertTrue((self.folder / name).exists())


class OnTheDisk(InFolder):
    """What was written outlives a power cut."""

    def test_content_first_then_the_name(self) -> None:
        done = []
        replace = os.replace

        def renaming(*names: object) -> None:
            done.append("rename")
            replace(*names)

        with (
            mock.patch.object(atomic, "sync_file", lambda path: done.append("file")),
            mock.patch.object(atomic, "sync_folder", lambda path: done.append(path)),
            mock.patch.object(os, "replace", renaming),
        ):
            atomic.write_json(self.path, {})
        self.assertEqual(done, ["file", "rename", self.folder])

    @unittest.skipIf(os.name == "nt", "folders can't be synced")
    def test_a_folder_that_cannot_be_synced_is_no_failure(self) -> None:
        refused = OSError(errno.EINVAL, "Invalid argument")
        fsync = os.fsync

        def only_files(file: int) -> None:
            if os.path.isdir(f"/proc/self/fd/{file}") or os.fstat(file).st_mode & 0o040000:
                raise refused
            fsync(file)

        with mock.patch.object(os, "fsync", only_files):
            atomic.write_json(self.path, {"a": 1})
        self.assertEqual(json.loads(self.path.read_text()), {"a": 1})


class Limits(InFolder):
    """Files that are larger than allowed, and quotas."""

    @unittest.skipUnless(sys.platform == "linux", "the limit is a Unix one")
    def test_a_real_limit_on_the_size_of_files(self) -> None:
        program = (
            "import resource, sys\n"
            "import numpy as np, torch, safetensors.torch\n"
            "from FewShotSegLib.core import atomic, checksums\n"
            "from FewShotSegLib.core.errors import StorageError\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
            "def text(p): p.write_text('x' * 50000)\n"
            "def array(p): np.save(open(p, 'wb'), np.zeros(9000))\n"
            "def tensors(p): checksums.write_sealed(\n"
            "    p, safetensors.torch.save({'a': torch.zeros(9000)}), {})\n"
            "for write in (text, array, tensors):\n"
            "    try:\n"
            "        with atomic.replacing(sys.argv[1]) as temporary:\n"
            "            write(temporary)\n"
            "    except StorageError as error:\n"
            "        print(error)\n"
        )
        self.path.write_text("old")
        done = subprocess.run(
            [sys.executable, "-c", program, str(self.path)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        lines = done.stdout.splitlines()
        self.assertEqual(len(lines), 3, lines)
        for line in lines:
            self.assertRegex(line, r"^Cannot write .*result.nii.gz: .*(ulimit -f|is full)")
        self.assertEqual(os.listdir(self.folder), ["result.nii.gz"])
        self.assertEqual(self.path.read_text(), "old")

    def test_sentences(self) -> None:
        for error, telling in (
            (OSError(errno.EFBIG, "File too large"), "larger than this disk.*ulimit -f"),
            (RuntimeError("I/O error: File too large (os error 27)"), "ulimit -f"),
            (OSError(errno.EDQUOT, "Disk quota exceeded"), "your quota"),
            (PermissionError(errno.EACCES, "Permission denied"), "no permission"),
            (OSError(errno.EIO, "Input/output error"), "Input/output error"),
        ):
            with self.subTest(error), self.assertRaisesRegex(StorageError, telling):
                with atomic.replacing(self.path) as temporary:
                    temporary.write_text("half")
                    raise error
            self.assertEqual(os.listdir(self.folder), [])


if __name__ == "__main__":
    unittest.main()
