"""Bars on a real terminal: one without columns shows lines, and nothing is written into a bar."""

from __future__ import annotations

import os
import struct
import sys
import unittest
import warnings
from typing import Any

from FewShotSegLib.cli.progress import Progress, has_space

if os.name == "posix":
    import fcntl
    import termios


@unittest.skipUnless(os.name == "posix", "pseudo-terminals")
class TerminalTest(unittest.TestCase):
    """A pseudo-terminal, and what it was sent."""

    def terminal(self, columns: int) -> Any:
        master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        # Nobody reads while it is written: all of it must fit the terminal's own buffer.
        self.addCleanup(os.close, master)
        stream = os.fdopen(slave, "w", encoding="utf-8")
        self.addCleanup(stream.close)
        self.master = master
        return stream

    def sent(self, stream: Any) -> str:
        stream.flush()
        os.set_blocking(self.master, False)
        text = b""
        while True:
            try:
                text += os.read(self.master, 65536)
            except BlockingIOError:
                return text.decode()

    def screen(self, text: str) -> list[str]:
        """What stands on the lines once all was written: a return goes to the line's begin."""
        lines: list[list[str]] = [[]]
        column = 0
        for char in text:
            if char == "\n":
                lines.append([])
                column = 0
            elif char == "\r":
                column = 0
            else:
                line = lines[-1]
                line.extend(" " * (column + 1 - len(line)))
                line[column] = char
                column += 1
        return ["".join(line).rstrip() for line in lines]

    def train(self, progress: Progress, epochs: int = 3) -> None:
        progress({"event": "phase", "phase": "train"})
        for epoch in range(1, epochs + 1):
            progress({"event": "epoch", "phase": "train", "epoch": epoch, "epochs": 9, "loss": 0.5})

    def test_no_columns_are_no_place_for_a_bar(self) -> None:
        for columns, bar in ((0, False), (5, False), (19, False), (20, True), (80, True)):
            stream = self.terminal(columns)
            self.assertEqual(has_space(stream), bar, columns)
            progress = Progress(stream)
            self.train(progress)
            progress({"event": "warning", "message": "odd"})
            reported = self.sent(stream)
            self.assertIn("training", reported)
            self.assertIn("Note: odd", reported)

    def test_the_bar_is_gone_before_anything_else_is_printed(self) -> None:
        stream = self.terminal(80)
        progress = Progress(stream)
        before = sys.stdout, sys.stderr
        sys.stdout = sys.stderr = stream
        try:
            with progress.apart():
                self.train(progress)
                print("query.nii.gz", 3, "ml")
                print("and another line")
                self.train(progress)
                # As the interpreter does it; the test runner keeps warnings for itself.
                sys.stderr.write(
                    warnings.formatwarning("a library says", UserWarning, "library.py", 1, "")
                )
                self.train(progress)
                sys.stderr.write("half a line, ")
                sys.stderr.write("and its rest\n")
                self.train(progress)
                progress({"event": "finished"})
                print("the end")
            self.assertIs(sys.stdout, stream)
        finally:
            sys.stdout, sys.stderr = before
        lines = self.screen(self.sent(stream))
        for text in (
            *("query.nii.gz 3 ml", "and another line", "half a line, and its rest", "the end"),
        ):
            self.assertIn(text, lines)
        self.assertTrue(any(line.endswith("UserWarning: a library says") for line in lines), lines)
        self.assertFalse([line for line in lines if "%|" in line], "a bar was left")


if __name__ == "__main__":
    unittest.main()
