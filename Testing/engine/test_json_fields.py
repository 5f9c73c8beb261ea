"""JSON of anybody's: what is let in, and in which words the rest is refused."""

from __future__ import annotations

import ast
import json
import os
import tempfile
import unittest
from pathlib import Path

from FewShotSegLib.core.errors import InputError, ModelError
from FewShotSegLib.core.json_fields import MAX_BYTES, MAX_DEPTH, load_json, parse_json

NESTED = "[" * MAX_DEPTH + "]" * MAX_DEPTH
REFUSED = {
    "nothing": (b"", "is not JSON"),
    "no JSON": (b"{", "is not JSON"),
    "two values": (b"{} {}", "is not JSON"),
    "not UTF-8": (b'{"a": "\xff"}', "not text in UTF-8"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "not text in UTF-8"),
    "NaN": (b'{"a": NaN}', "NaN"),
    "infinity": (b'{"a": -Infinity}', "-Infinity"),
    "more than a float": (b'{"a": 1e999}', "1e999 is too large"),
    "2^64": (b'{"a": 18446744073709551616}', "too large"),
    "5,000 digits": (b'{"a": ' + b"9" * 5000 + b"}", "too large"),
    "a field twice": (b'{"b": 1, "a": 1, "a": 2}', "'a' comes twice"),
    "a field twice below": (b'[{"x": {"a": 1, "a": 1}}]', "'a' comes twice"),
    "half a character": (b'{"a": "\\ud800"}', "half a character"),
    "half a character in a name": (b'{"\\udfff": 1}', "half a character"),
    "too deep": (f"[{NESTED}]".encode(), "deep"),
    "objects too deep": (b'{"a":' * 41 + b"1" + b"}" * 41, "deep"),
    "deeper than the stack": (b"[" * 200_000 + b"]" * 200_000, "deep"),
    "too large": (b" " * MAX_BYTES + b"1", "larger than 16 MB"),
}


class LoadJsonTest(unittest.TestCase):
    """Documents in files."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="Größe ")
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "it.json"

    def test_each_fault_is_one_sentence_that_names_the_file(self) -> None:
        for name, (data, words) in REFUSED.items():
            with self.subTest(name):
                self.path.write_bytes(data)
                with self.assertRaises(InputError) as caught:
                    load_json(self.path, "plan")
                text = str(caught.exception)
                self.assertIn(words, text)
                self.assertIn(f"The plan {self.path} ", text)
                self.assertTrue(text.endswith(".") and "\n" not in text, text)
                self.assertLess(len(text), 300)

    def test_everything_that_is_plain_data_comes_back(self) -> None:
        for value in (
            {"a": [1, 2.5, None, True, "ü𝔊"], "": {}},
            2**64 - 1,
            -(2**64) + 1,
            1.7e308,
            "x" * 100_000,
            json.loads(NESTED),
            "\u202e\x00",
        ):
            self.path.write_text(json.dumps(value), encoding="utf-8")
            self.assertEqual(load_json(self.path, "plan"), value)
            self.path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8-sig")
            self.assertEqual(load_json(self.path, "plan"), value)

    def test_what_is_no_file_is_not_waited_for(self) -> None:
        for path, words in (
            (self.path, "There is no plan at"),
            (self.path.parent, "is not a file"),
            (Path("/dev/zero"), "is not a file" if os.path.exists("/dev/zero") else "no plan"),
            ("a\0b", "There is no plan at"),
        ):
            with self.subTest(path), self.assertRaisesRegex(ModelError, words):
                load_json(path, "plan", ModelError)
        if hasattr(os, "mkfifo"):
            os.mkfifo(self.path)
            with self.assertRaisesRegex(InputError, "is not a file"):
                load_json(self.path, "plan")

    def test_text_is_as_good_as_bytes(self) -> None:
        self.assertEqual(parse_json('{"a": 1}', "It"), {"a": 1})
        self.assertEqual(parse_json(b'{"a": 1}', "It"), {"a": 1})
        with self.assertRaisesRegex(InputError, "^It can't be used: the field 'a' comes twice.$"):
            parse_json('{"a": 1, "a": 1}', "It")


ROOT = Path(__file__).resolve().parents[2]
APART = {
    "json_fields.py": "the one way in",
    "image_process.py": "what a child process of ours says",
    "job_folders.py": "a marker of a few bytes, that is ours or is left alone",
}


class OneWayTest(unittest.TestCase):
    def test_nothing_else_reads_json(self) -> None:
        found = []
        for folder in ("FewShotSegLib", "FewShotSeg"):
            for path in sorted((ROOT / folder).rglob("*.py")):
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                    if not isinstance(node, ast.Call) or path.name in APART:
                        continue
                    name = ast.unparse(node.func)
                    given = ast.unparse(node.args[0]) if node.args else ""
                    # What was just made by ourselves, to have it as JSON has it.
                    ours = given.startswith("json.dumps(") or path.name == "checksums.py"
                    if name in ("json.load", "json.loads") and not ours:
                        found.append(f"{path.name}:{node.lineno}")
        self.assertEqual(found, [])


if __name__ == "__main__":
    unittest.main()
