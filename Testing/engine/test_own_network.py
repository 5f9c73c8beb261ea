"""The class in the how-to page, which people copy, holds what every backbone holds."""

from __future__ import annotations

import re
import unittest
from pathlib import Path
from typing import Any

import torch
from backbone_interface import Interface, apply_head

PAGE = Path(__file__).resolve().parents[2] / "Documentation" / "how-to" / "use-a-monai-model.md"


class HowToTest(Interface, unittest.TestCase):
    """``MyNetwork`` of the page."""

    def make(self) -> Any:
        (code,) = re.findall(r"(?ms)^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"))
        names: dict[str, Any] = {}
        exec(compile(code, str(PAGE), "exec"), names)
        return names["MyNetwork"]()

    def test_head_is_exact(self) -> None:
        image = torch.randn(1, 1, 8, 8, 8)
        levels = self.backbone.features(image)
        torch.testing.assert_close(
            apply_head(self.backbone, levels[0]), self.backbone.head(levels[0])
        )

    def test_import_names_every_fault(self) -> None:
        with self.assertRaisesRegex(Exception, "missing: fine.weight"):
            self.backbone.import_state_dict({})


if __name__ == "__main__":
    unittest.main()
