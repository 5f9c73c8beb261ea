"""A small pack and its recipe as files, and numbers that are none."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from pathlib import Path

from pack_case import make_pack, make_recipe
from tiny import OneThread

from FewShotSegLib.pretraining.packed import __main__ as packed
from FewShotSegLib.pretraining.packed.pack import write_pack

NAN, INF = float("nan"), float("inf")
IDS = (
    "checkpoint",
    "Pretraining",
    "a" * 101,
    "a" * 250,
    "",
    ".a",
    "-a",
    "a/b",
    "a b",
    "con",
    "a.json",
)


class PackedCase(OneThread):
    """A small pack and its recipe in a folder."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        pack = make_pack()
        self.pack = self.folder / "pack.npz"
        write_pack(self.pack, list(pack.groups), list(pack.volumes))
        self.recipe = self.folder / "recipe.json"
        self.recipe.write_text(json.dumps(make_recipe().to_json()), encoding="utf-8")

    def command(self, *arguments: str | Path) -> tuple[int, str]:
        """Exit status and standard error of the kit's command."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = packed.main([str(argument) for argument in arguments])
            except SystemExit as end:
                status = int(end.code or 0)
        return status, err.getvalue()

    def train(self, *more: str | Path, out: str = "run") -> tuple[int, str]:
        pack = () if "--pack" in more else ("--pack", self.pack)
        return self.command("train", self.recipe, *pack, "--out", self.folder / out, *more)
