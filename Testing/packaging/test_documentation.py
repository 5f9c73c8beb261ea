"""The pages for people: their links, pictures, length and commands."""

from __future__ import annotations

import ast
import re
import shlex
import unittest
from pathlib import Path

from FewShotSegLib.cli.commands import COMMANDS
from FewShotSegLib.cli.flags import build_parser

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    *ROOT.glob("*.md"),
    *(ROOT / "Documentation").rglob("*.md"),
    *(ROOT / "FewShotSegLib" / "Resources").rglob("*.md"),
)
LINK = re.compile(r"\]\((?![a-z]+:)([^)#\s]*)(?:#([^)\s]+))?\)")
CODE_PLACE = re.compile(r"`([\w./-]+(?:\.py|/))(?::[ \w]+)?`")
"""A file of Python or a folder, perhaps with what is in the file: ``pipeline/report.py: NAME``."""
MAX_PICTURE_BYTES = 300_000
MAX_README_LINES = 130


def anchor(heading: str) -> str:
    """The name that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def blocks(page: Path, language: str = "") -> list[str]:
    """The code blocks of a language in a page."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", text)


class PagesTest(unittest.TestCase):
    """Every page."""

    def test_links_lead_to_files_and_headings_that_are_there(self) -> None:
        found = 0
        for page in PAGES:
            for link, part in LINK.findall(page.read_text(encoding="utf-8")):
                found += 1
                target = page.parent / link if link else page
                with self.subTest(page.name, link=link, part=part):
                    self.assertTrue(target.exists())
                    if part:
                        headings = re.findall(r"(?m)^#+ (.+)$", target.read_text(encoding="utf-8"))
                        self.assertIn(part, {anchor(heading) for heading in headings})
        self.assertGreater(found, 50)

    def test_every_page_can_be_reached_from_the_index(self) -> None:
        index = ROOT / "Documentation" / "README.md"
        links = {link for link, _ in LINK.findall(index.read_text(encoding="utf-8"))}
        reached = {(index.parent / link).resolve() for link in links}
        for page in (ROOT / "Documentation").rglob("*.md"):
            if page != index:
                with self.subTest(page.name):
                    self.assertIn(page.resolve(), reached)

    def test_pictures_are_small_and_used(self) -> None:
        texts = " ".join(page.read_text(encoding="utf-8") for page in PAGES)
        pictures = list((ROOT / "Documentation").rglob("*.png"))
        self.assertTrue(pictures)
        for path in pictures:
            with self.subTest(path.name):
                self.assertLess(path.stat().st_size, MAX_PICTURE_BYTES)
                self.assertIn(path.name, texts)

    def test_commands_are_those_of_the_command_line(self) -> None:
        parser, found = build_parser(COMMANDS), 0
        for page in PAGES:
            for block in blocks(page):
                for line in block.replace("\\\n", " ").splitlines():
                    if not line.startswith("fewshotseg ") or "..." in line:
                        continue
                    words = shlex.split(line, comments=True)
                    found += 1
                    with self.subTest(page.name, line=line):
                        try:
                            parser.parse_args(words[1:])
                        except SystemExit:
                            self.fail(f"{page.name}: {line}")
        self.assertGreater(found, 20)

    def test_files_and_folders_of_the_code_are_there(self) -> None:
        known = [
            f"/{path.relative_to(ROOT).as_posix()}{'/' if path.is_dir() else ''}"
            for folder in ("FewShotSeg", "FewShotSegLib", "Testing", "Documentation", "tools")
            for path in (ROOT / folder, *(ROOT / folder).rglob("*"))
        ]
        for page in PAGES:
            for place in CODE_PLACE.findall(page.read_text(encoding="utf-8")):
                ours = place.endswith(".py") or page.name == "CONTRIBUTING.md"
                if ours and not place.startswith((".", "~")):
                    with self.subTest(page.name, place=place):
                        self.assertTrue(any(path.endswith(f"/{place}") for path in known))

    def test_examples_in_python_are_python(self) -> None:
        for page in PAGES:
            for block in blocks(page, "python"):
                with self.subTest(page.name):
                    ast.parse(block)


class ReadmeTest(unittest.TestCase):
    """The first page."""

    def test_it_is_short(self) -> None:
        text = (ROOT / "README.md").read_text(encoding="utf-8")
        self.assertLessEqual(len(text.splitlines()), MAX_README_LINES)


if __name__ == "__main__":
    unittest.main()
