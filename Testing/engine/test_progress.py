"""What long work says where its output is a file. Terminals are in test_benchmark.py."""

from __future__ import annotations

import io
import unittest
from typing import Any

from FewShotSegLib.cli.progress import Progress


class LinesInAFile(unittest.TestCase):
    """A log shows that the work lives, and is no page for every minute of it."""

    def setUp(self) -> None:
        self.stream, self.now = io.StringIO(), 0.0
        self.progress = Progress(self.stream, clock=lambda: self.now)

    def send(self, kind: str, **fields: Any) -> None:
        self.progress({"event": kind, **fields})

    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()

    def train(self, seconds_an_epoch: float, epochs: int = 60) -> None:
        self.send("phase", phase="train")
        for epoch in range(1, epochs + 1):
            self.now += seconds_an_epoch
            self.send("epoch", phase="train", epoch=epoch, epochs=epochs, loss=1 / epoch)

    def test_quick_training_is_one_line(self) -> None:
        self.train(0.3)
        self.assertEqual(self.lines(), ["training"])

    def test_minutes_of_training_are_a_line_every_twenty_seconds(self) -> None:
        self.train(2.5)  # 10 % takes 15 s, so that 8 epochs pass
        percents = [line.split("%")[0].split()[-1] for line in self.lines()[1:]]
        self.assertEqual(percents, ["13", "27", "40", "53", "67", "80", "93"])
        self.assertEqual(self.lines()[1], "training: 13%, loss 0.125, about 2 min to go")
        self.assertEqual(self.lines()[-1], "training: 93%, loss 0.018, about 10 s to go")

    def test_resumed_work_is_not_taken_for_fast(self) -> None:
        self.send("phase", phase="train")
        for epoch in range(50, 60):
            self.now += 30
            self.send("epoch", phase="train", epoch=epoch, epochs=100, loss=1.0)
        # The first epoch after the pause says where it began; it has no speed yet.
        self.assertEqual(self.lines()[1], "training: 50%, loss 1.000")
        self.assertEqual(len(self.lines()), 2)
        self.now += 30
        self.send("epoch", phase="train", epoch=60, epochs=100, loss=1.0)
        self.assertEqual(self.lines()[2], "training: 60%, loss 1.000, about 20 min to go")

    def test_hours_of_training_are_ten_lines(self) -> None:
        self.train(120)
        self.assertEqual(len(self.lines()), 1 + 10)

    def test_windows_have_their_volume_and_start_anew_with_the_next(self) -> None:
        for subject in ("a", "b"):
            self.send("phase", phase="features", subject=subject)
            for done in range(1, 4):
                self.now += 15
                self.send("progress", phase="features", done=done, total=4)
        line = "foundation model: {}"
        half = line + ": 50%, about 30 s to go"
        expected = [text.format(s) for s in "ab" for text in (line, half)]
        self.assertEqual(self.lines(), expected)

    def test_reading_is_never_shown_as_what_came_before_it(self) -> None:
        self.send("phase", phase="train")
        self.now += 100
        self.send("progress", phase="read", done=1, total=2)
        self.assertEqual(self.lines(), ["training"])


if __name__ == "__main__":
    unittest.main()
