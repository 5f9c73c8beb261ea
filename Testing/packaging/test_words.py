"""The field's words everywhere: a list of words that no tracked text file has."""

from __future__ import annotations

import re
import subprocess
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INSTEAD = {
    "house": "layout, structure or tree",
    "houses": "layouts",
    "room": "space, package or module",
    "rooms": "spaces, packages or modules",
    "trained numbers": "trained parameters",
    "made up": "synthetic, or generated",
    "somebody": "a user, another process, ...",
    "somebodys": "another user's",
    "told": "reported, known, distinguished, ...",
    "at once": "immediately, in parallel, or together",
}
"""Words to avoid, and what to write. They are found in identifiers too: ``trained_numbers``."""
WORDS = re.compile(
    r"(?<![a-z])(?<!look[\s_])(?<!looked[\s_])("
    + "|".join(word.replace(" ", r"[\s_-]+") for word in INSTEAD)
    + r")(?![a-z])",
    re.IGNORECASE,
)
OTHERS = (
    "LICENSE.txt",  # not ours
    "Testing/packaging/test_words.py",
)


def texts() -> dict[str, str]:
    """Every tracked file that is text, by its path; all files where there is no git."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        raise unittest.SkipTest("this is not a checkout")
    found = {}
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.is_file() and name not in OTHERS:
            try:
                found[name] = path.read_bytes().decode("utf-8")
            except UnicodeDecodeError:
                continue  # an image, or weights
    return found


class WordsTest(unittest.TestCase):
    """Code, documentation and interface."""

    def test_no_file_has_them(self) -> None:
        files = texts()
        self.assertGreater(len(files), 300)
        for name, text in files.items():
            for match in WORDS.finditer(text):
                word = " ".join(re.split(r"[\s_-]+", match[0].lower()))
                line = text.count("\n", 0, match.start()) + 1
                with self.subTest(f"{name}:{line}", word=match[0]):
                    self.fail(f"{name}:{line}: write {INSTEAD[word]} instead of '{match[0]}'")

    def test_they_would_be_found(self) -> None:
        for text in ("the rooms above", "trained_numbers(", "made-up\nx", "TOLD = 1", "at\nonce"):
            self.assertTrue(WORDS.search(text), text)
        for text in ("mushroom", "stoldid", "household", "looked at once"):
            self.assertFalse(WORDS.search(text), text)


if __name__ == "__main__":
    unittest.main()
