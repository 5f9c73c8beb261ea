"""``fewshotseg download``, ``import`` and ``remove``, and the module's way to the same."""

from __future__ import annotations

import contextlib
import io
import json
import unittest
from unittest import mock

import torch
from download_case import DownloadTestCase, Terminal, remove_model_weights
from tiny_model import make_network

from FewShotSegLib.cli.command_line import main
from FewShotSegLib.core.events import ignore
from FewShotSegLib.core.job_protocol import (
    DownloadJob,
    ImportJob,
    make_private,
    read_job,
    write_job,
)
from FewShotSegLib.models.registry import find_model
from FewShotSegLib.worker.jobs import run_job


class Command(DownloadTestCase):
    """``fewshotseg download``, ``import`` and ``remove``."""

    def run_command(self, *arguments: str, answer: str | None = None) -> tuple[int, str, str]:
        """Status and both outputs; with an answer, a user sits at the terminal."""
        out, err = io.StringIO(), io.StringIO()
        stdin = io.StringIO() if answer is None else Terminal(answer)
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            mock.patch("sys.stdin", stdin),
        ):
            status = main(arguments)
        return status, out.getvalue(), err.getvalue()

    def test_the_licence_is_shown_and_asked_for(self) -> None:
        for answer in ("n\n", "\n", ""):
            status, out, err = self.run_command("download", "tiny", answer=answer)
            self.assertEqual(status, 2)
            self.assertIn("Apache-2.0", out)
            self.assertIn("Nobody, Nowhere, 2020", out)
            self.assertIn("https://example.org/tiny", out)
            self.assertEqual(err, "fewshotseg: Nothing was downloaded.\n")
        self.assertEqual(self.server.asked, [])
        status, out, err = self.run_command("download", "tiny", answer="yes\n")
        self.assertEqual(status, 0, err)
        self.assertIn(str(self.weights), out)
        self.assert_installed()

    def size_shown(self) -> str:
        """What is said of the size to a user who then says no."""
        status, out, err = self.run_command("download", "tiny", answer="n\n")
        self.assertEqual((status, err), (2, "fewshotseg: Nothing was downloaded.\n"))
        before = out[: out.index("Do you accept")]
        return next(line for line in before.splitlines() if line.startswith("  size")).split(
            None, 1
        )[1]

    def test_the_size_is_shown_before_anybody_is_asked(self) -> None:
        self.server.content = self.content * 80
        reported = f"{len(self.server.content) / 1e6:.1f} MB"
        self.assertRegex(reported, r"[1-9]\.\d MB")
        self.assertEqual(self.size_shown(), reported)
        self.assertEqual((self.server.heads, self.server.asked), (1, []))
        for refused in (403, 405, 501):  # signed addresses answer GET alone
            self.server.head_status = refused
            self.assertEqual(self.size_shown(), reported)
        self.describe(size=5 * 10**6)  # an entry that says it is believed without a request
        heads = self.server.heads
        self.assertEqual(self.size_shown(), "5.0 MB")
        self.assertEqual(self.server.heads, heads)

    def test_a_size_that_nobody_tells_is_called_unknown(self) -> None:
        self.server.tells_size = False
        self.assertEqual(self.size_shown(), "unknown: the server does not tell")
        self.server.tells_size = True
        self.server.head_status = 404
        self.server.statuses = [404]
        self.assertEqual(self.size_shown(), "unknown: the server does not tell")
        self.describe(weights_url="http://127.0.0.1:1/none.safetensors")
        self.assertEqual(self.size_shown(), "unknown: the server does not tell")

    def test_a_program_is_not_kept_waiting_for_a_size(self) -> None:
        status, _, err = self.run_command("download", "tiny", "--accept-licence", "--events")
        self.assertEqual((status, self.server.heads), (0, 0), err)

    def test_where_nobody_can_be_asked_it_has_to_be_said(self) -> None:
        for more in ((), ("--events",)):
            status, _, err = self.run_command("download", "tiny", *more)
            self.assertEqual(status, 2)
            self.assertIn("add --accept-licence", err)
        self.assertEqual(self.server.asked, [])
        for flag in ("--accept-licence", "--accept-license"):
            status, _, err = self.run_command("download", "tiny", flag)
            self.assertEqual(status, 0, err)
            self.assert_installed()
            remove_model_weights(self.weights)

    def test_events(self) -> None:
        status, out, _ = self.run_command("download", "tiny", "--accept-licence", "--events")
        self.assertEqual(status, 0)
        events = [json.loads(line) for line in out.splitlines()]
        kinds = list(dict.fromkeys(event["event"] for event in events))
        self.assertEqual(kinds, ["started", "phase", "progress", "result", "finished"])
        result = next(event for event in events if event["event"] == "result")
        self.assertEqual((result["kind"], result["path"]), ("weights", str(self.weights)))

    def test_an_interruption_tells_how_to_go_on(self) -> None:
        with mock.patch("FewShotSegLib.models.download.fetch", side_effect=KeyboardInterrupt):
            status, _, err = self.run_command("download", "tiny", "--accept-licence")
        self.assertEqual(status, 2)
        self.assertIn("the same command goes on from what has come", err)

    def test_import_and_remove(self) -> None:
        status, out, err = self.run_command("import", "tiny", str(self.elsewhere))
        self.assertEqual(status, 0, err)
        self.assertIn("Apache-2.0", out)
        self.assert_installed()
        status, out, err = self.run_command("remove", "tiny")
        self.assertEqual(status, 0, err)
        self.assertFalse(self.weights.exists())
        status, _, err = self.run_command("remove", "embedded")
        self.assertEqual(status, 2)
        self.assertIn("ships with FewShotSeg", err)

    def test_fseft_is_reported_with_its_page(self) -> None:
        status, _, err = self.run_command("download", "fseft", "--accept-licence")
        self.assertEqual(status, 2)
        self.assertIn("https://drive.google.com/", err)
        self.assertIn("fewshotseg import fseft FILE", err)


class Job(DownloadTestCase):
    """The Slicer module's way to the same."""

    def test_a_download_job(self) -> None:
        folder = make_private(self.home / "job")
        write_job(folder, DownloadJob("tiny"))
        path = run_job(DownloadJob("tiny"), folder, ignore, lambda: False)
        self.assertEqual(json.loads(path.read_text())["path"], str(self.weights))
        self.assert_installed()
        torch.testing.assert_close(
            dict(find_model("tiny").backbone.state_dict()), dict(make_network().state_dict())
        )

    def test_an_import_job(self) -> None:
        folder = make_private(self.home / "job")
        write_job(folder, ImportJob("tiny", str(self.elsewhere)))
        job, _caller = read_job(folder)
        path = run_job(job, folder, ignore, lambda: False)
        self.assertEqual(json.loads(path.read_text())["path"], str(self.weights))
        self.assert_installed()


if __name__ == "__main__":
    unittest.main()
