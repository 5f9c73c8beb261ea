"""Text from files stays text: on a terminal and on a page nothing of it does anything."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import unicodedata
import unittest
from pathlib import Path

from hypothesis import given, strategies
from soak_profile import examples

from FewShotSegLib.cli.progress import Progress
from FewShotSegLib.core.events import json_lines, make_event
from FewShotSegLib.core.plain_text import indented, markdown, printable

ROOT = Path(__file__).resolve().parents[2]
ODD = (
    ("\x1b[2J\x1b[31mred", r"\x1b[2J\x1b[31mred"),  # clears a screen
    ("\x9b31m", r"\x9b31m"),  # the same in one byte
    ("a\rb\bc\x00d\x7f", r"a\rb\x08c\x00d\x7f"),
    ("left\u202etfel", r"left\u202etfel"),  # reads backwards from here
    ("\u2066x\u2069\u200e\u200f\u061c", r"\u2066x\u2069\u200e\u200f\u061c"),
    ("li\u200bver\u200c\u200d\u2060\ufeff", r"li\u200bver\u200c\u200d\u2060\ufeff"),
    ("one\u2028two\u2029three\x85", r"one\u2028two\u2029three\x85"),
    ("\ud800 half", r"\ud800 half"),
    ("tag\U000e0041", r"tag\U000e0041"),
    ("tab\tbed", r"tab\tbed"),
)
SEEN = (
    "liver",
    "Oberkörper, Milz (links)",
    "肝臓　左",  # with an ideographic space
    "печень",
    "الكبد",
    "e\u0301 \u00a0½ µl ≤ 5 mm³ «x» – … 🫀",
    "<b>x</b><img src=x> & $x^{$ \\ %s {}",
)


class PrintableTest(unittest.TestCase):
    """What may be seen, and what is written as its escape."""

    def test_what_does_something_is_escaped(self) -> None:
        for text, shown in ODD:
            with self.subTest(shown):
                self.assertEqual(printable(text), shown)

    def test_what_is_seen_stays(self) -> None:
        for text in SEEN:
            with self.subTest(text):
                self.assertEqual(printable(text), text)

    def test_lines(self) -> None:
        self.assertEqual(printable("a\nb"), "a\nb")
        self.assertEqual(printable("a\nb", lines=False), r"a\nb")
        self.assertEqual(indented("name\nfewshotseg: done"), "name\n  fewshotseg: done")

    @examples(200)
    @given(strategies.text(strategies.characters(exclude_categories=())))
    def test_nothing_odd_comes_out(self, text: str) -> None:
        shown = printable(text, lines=False)
        kinds = {unicodedata.category(char) for char in shown}
        self.assertFalse(kinds & {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}, (text, shown))
        self.assertEqual(printable(shown), shown, "once is enough")
        shown.encode("utf-8")

    def test_markdown_shows_it_literally(self) -> None:
        for text, shown in (
            ("parotid_left", "parotid_left"),
            ("a|b", r"a\|b"),
            ("<b>x</b><img src=x>", "&lt;b&gt;x&lt;/b&gt;&lt;img src=x&gt;"),
            ("[x](javascript:y)", r"\[x\](javascript:y)"),
            ("**x** `y`", r"\*\*x\*\* \`y\`"),
            ("a\nb & c", r"a\\nb &amp; c"),
        ):
            with self.subTest(text):
                self.assertEqual(markdown(text), shown)


class OutputTest(unittest.TestCase):
    """Where text leaves the program."""

    def test_progress(self) -> None:
        stream = io.StringIO()
        progress = Progress(stream)
        progress(make_event("phase", phase="features", total=3, subject="a\x1b[2J\nb"))
        progress(make_event("warning", message="The structure '\u202ex\nfewshotseg: y' is empty."))
        self.assertEqual(
            stream.getvalue(),
            "foundation model: a\\x1b[2J\\nb\n"
            "Note: The structure '\\u202ex\n  fewshotseg: y' is empty.\n",
        )

    def test_events_are_ascii(self) -> None:
        stream = io.StringIO()
        for text, _ in ODD:
            json_lines(stream)(make_event("warning", message=text))
        for line, (text, _) in zip(stream.getvalue().splitlines(), ODD, strict=True):
            self.assertTrue(line.isascii() and line.isprintable(), line)
            self.assertEqual(json.loads(line)["message"], text)

    def command(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "FewShotSegLib", *arguments],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            check=False,
        )

    @unittest.skipUnless(os.name == "posix", "such names are not for this system")
    def test_the_command_line(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "a\x1b[31m\u202eb\nfewshotseg: all is well.fseft"
            path.write_bytes(b"no adapter")
            done = self.command("inspect", str(path), PYTHONUTF8="1")
            said = done.stderr.decode("utf-8")
            self.assertEqual(done.returncode, 2, said)
            self.assertEqual(printable(said), said)
            self.assertIn(r"a\x1b[31m\u202eb", said)
            self.assertFalse(
                [line for line in said.splitlines() if line.startswith("fewshotseg: all is well")]
            )

    def test_a_terminal_that_knows_few_characters(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            models = Path(folder) / "models"
            models.mkdir()
            entry = json.loads(
                (ROOT / "FewShotSegLib/Resources/Models/fseft.json").read_text(encoding="utf-8")
            )
            entry = {**entry, "id": "mine", "title": "肝臓 <b>\u202e"}
            (models / "mine.json").write_text(json.dumps(entry), encoding="utf-8")
            done = self.command("models", "mine", FEWSHOTSEG_HOME=folder, PYTHONIOENCODING="ascii")
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        self.assertIn(rb"\u809d\u81d3 <b>\u202e", done.stdout)


if __name__ == "__main__":
    unittest.main()
