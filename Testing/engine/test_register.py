"""Registers: what other packages add, what is refused of it, and that it hides nothing else."""

from __future__ import annotations

import sys
import tempfile
import unittest
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

from plugins import environment, run_command, write_package

from FewShotSegLib.core.architecture_catalog import ArchitectureRecord, NetworkCost
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.method_catalog import MethodRecord, Schedule
from FewShotSegLib.core.register import Implementations, Register

OWN = MethodRecord(name="own", title="Own", explanation="Ours.", implementation="a.b:C")


def record(name: str, **changes: Any) -> MethodRecord:
    given = {"name": name, "title": name, "explanation": "Another's.", "implementation": "m:C"}
    return MethodRecord(**{**given, **changes})


@dataclass
class EntryPoint:
    """What importlib.metadata gives, with what it loads."""

    name: str
    found: Any
    package: str = "others"
    value: str = "others.records:IT"
    version: str = "2.0"
    dist: Any = field(init=False)

    def __post_init__(self) -> None:
        self.dist = SimpleNamespace(name=self.package, version=self.version)

    def load(self) -> Any:
        if isinstance(self.found, BaseException):
            raise self.found
        return self.found() if callable(self.found) else self.found


def register(*entry_points: EntryPoint, own: tuple[MethodRecord, ...] = (OWN,)) -> Register[Any]:
    return Register("group", MethodRecord, "method", own, lambda group: entry_points)


class RegisterTest(unittest.TestCase):
    """Records of other packages."""

    def test_they_come_after_ours_and_are_read_once(self) -> None:
        loads = []

        def load() -> MethodRecord:
            loads.append(1)
            return record("theirs")

        found = register(EntryPoint("theirs", load))
        self.assertEqual(loads, [], "nothing is read before a user looks")
        self.assertEqual(list(found), ["own", "theirs"])
        self.assertEqual((len(found), found["theirs"].title), (2, "theirs"))
        self.assertEqual((loads, found.remarks), ([1], ()))
        self.assertEqual(list(found.own), ["own"])
        self.assertEqual(str(found.package_of("theirs")), "others 2.0")
        self.assertIsNone(found.package_of("own"))

    def test_what_is_broken_is_one_remark_and_hides_no_other(self) -> None:
        def imports_torch() -> MethodRecord:
            sys.modules["torch"] = ModuleType("torch")
            return record("heavy")

        cases = (
            (EntryPoint("gone", ModuleNotFoundError("No module named 'gone'")), "No module named"),
            (EntryPoint("ends", SystemExit(3)), r"can't be loaded \(SystemExit: 3\)"),
            (EntryPoint("odd", ValueError("a\n\x1b[2Jb")), r"ValueError: a \\x1b\[2Jb\)"),
            (EntryPoint("text", "adapter"), "no MethodRecord but of the type str"),
            (EntryPoint("other", record("another")), "called 'another'; entry point and record"),
            (EntryPoint("own", record("own")), "FewShotSeg itself has a method of that name"),
            (EntryPoint("heavy", imports_torch), "its record imports torch"),
        )
        there = {name: m for name, m in sys.modules.items() if name != "torch"}
        for entry_point, words in cases:
            with (
                self.subTest(entry_point.name),
                mock.patch.dict(sys.modules, there, clear=True),
            ):
                found = register(entry_point, EntryPoint("good", record("good"), "fine"))
                self.assertEqual(list(found), ["own", "good"])
                self.assertIs(found["own"], OWN)
                (remark,) = found.remarks
                self.assertRegex(remark, words)
                start = f"^The method '{entry_point.name}' of the package others 2.0 is left out: "
                self.assertRegex(remark, start)
                self.assertTrue(remark.endswith("Update or uninstall that package."), remark)
                self.assertNotIn("\n", remark)

    def test_of_two_packages_with_one_name_the_same_is_kept_everywhere(self) -> None:
        both = [
            EntryPoint("same", record("same", title=package), package) for package in ("b", "a")
        ]
        for order in (both, both[::-1]):
            found = register(*order)
            self.assertEqual(found["same"].title, "a")
            (remark,) = found.remarks
            self.assertIn("of the package b 2.0 is left out: the package a 2.0 has", remark)

    def test_damaged_lists_of_what_is_installed(self) -> None:
        def broken(group: str) -> list[Any]:
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

        found = Register("group", MethodRecord, "method", (OWN,), broken)
        self.assertEqual(list(found), ["own"])
        self.assertIn("can't be read (UnicodeDecodeError", found.remarks[0])

    def test_a_package_that_looks_at_the_register_while_it_is_read(self) -> None:
        seen: list[list[str]] = []

        def load() -> MethodRecord:
            seen.append(list(found))
            return record("theirs")

        found = register(EntryPoint("theirs", load))
        self.assertEqual(list(found), ["own", "theirs"])
        self.assertEqual(seen, [["own"]])


class ImplementationsTest(unittest.TestCase):
    """The classes behind records."""

    def classes(self, target: str) -> Implementations[list]:
        others = register(EntryPoint("theirs", record("theirs", implementation=target)))
        return Implementations(others, list)

    def test_a_class_that_can_not_be_used_is_one_sentence(self) -> None:
        for target, words in (
            ("nowhere.at_all:C", "can't be loaded .ModuleNotFoundError"),
            ("json:Nothing", "can't be loaded .AttributeError"),
            ("json:loads", "json:loads is no list"),
            ("json:JSONDecoder", "json:JSONDecoder is no list"),
        ):
            with self.subTest(target), self.assertRaisesRegex(InputError, words) as caught:
                self.classes(target)["theirs"]
            start = "The method 'theirs' of the package others 2.0 can't be used: "
            self.assertTrue(str(caught.exception).startswith(start))

    def test_it_is_imported_when_it_is_asked_for(self) -> None:
        classes = self.classes("nowhere.at_all:C")
        self.assertEqual(list(classes), ["own", "theirs"])
        self.assertIn("theirs", classes)
        self.assertNotIn("another", classes)
        with self.assertRaises(KeyError):
            classes["another"]

    def test_a_package_of_ours_that_is_missing_is_reported_by_its_caller(self) -> None:
        ours = record("ours", implementation="nowhere:C")
        with self.assertRaises(ModuleNotFoundError):
            Implementations(register(own=(ours,)), list)["ours"]

    def test_a_class_of_another_name(self) -> None:
        class Named(list):
            name = "another"

        module = ModuleType("named")
        module.Named = Named
        with (
            mock.patch.dict(sys.modules, {"named": module}),
            self.assertRaisesRegex(InputError, "its class is called 'another'"),
        ):
            self.classes("named:Named")["theirs"]


class RecordsTest(unittest.TestCase):
    """What a record may say."""

    def test_methods(self) -> None:
        for wrong in (
            {"name": "Big"},
            {"name": "a b"},
            {"name": ""},
            {"title": " "},
            {"explanation": ""},
            {"implementation": "no_colon"},
            {"implementation": "a.b:"},
            {"implementation": "a b:C"},
            {"decoders": ("frozen", "melted")},
            {"encoder": "recurrent"},
            {"cost": 0.0},
        ):
            with self.subTest(wrong), self.assertRaises(InputError):
                record(**{"name": "fine", **wrong})
        schedule = Schedule(3, 2, 1, 16)
        self.assertEqual(record("a", own_schedule=schedule).schedule("own"), schedule)
        with self.assertRaises(TypeError):
            record("a", unheard=1)

    def test_architectures(self) -> None:
        @dataclass(frozen=True)
        class Arguments:
            width: int = 4
            rows: int = 1

        fine = {
            **{"name": "Net", "explanation": "A net.", "implementation": "a.b:C"},
            **{"encoder": "convolutional", "arguments": Arguments, "sized_by": ("width",)},
            "cost": NetworkCost(1.0, 1, 1, 1),
        }
        ArchitectureRecord(**fine)
        for wrong in (
            {"name": "a-b"},
            {"implementation": "C"},
            {"encoder": ""},
            {"arguments": dict},
            {"arguments": Arguments()},
            {"sized_by": ("depth",)},
            {"revision": 0},
            {"models": "FewShotSegLib:nowhere"},
            {"models": "no_such_package:models"},
        ):
            with self.subTest(wrong), self.assertRaises(InputError):
                ArchitectureRecord(**{**fine, **wrong})


class CommandTest(unittest.TestCase):
    """An installed package that is broken, through the command."""

    def test_every_command_says_so_and_works(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            entry_points = (
                "[fewshotseg.methods]\ngone = nothing_here:RECORD\nlora = broken_records:TEXT\n"
                "[fewshotseg.backbones]\nDynamicUNet = broken_records:TEXT\n"
            )
            write_package(folder, "broken", entry_points, {"broken_records": "TEXT = 'a'\n"})
            environ = environment(folder, FEWSHOTSEG_HOME=str(folder / "home"))
            done = run_command(environ, "models")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("embedded", done.stdout)
            self.assertNotIn("Traceback", done.stderr)
            said = " ".join(done.stderr.split())
            for words in (
                "The method 'gone' of the package broken 1.0 is left out: its record "
                "nothing_here:RECORD can't be loaded (ModuleNotFoundError",
                "The method 'lora' of the package broken 1.0 is left out: FewShotSeg itself has a "
                "method of that name",
                "The architecture 'DynamicUNet' of the package broken 1.0 is left out: FewShotSeg",
            ):
                self.assertIn(words, said)


if __name__ == "__main__":
    unittest.main()
