"""Every network gives the numbers that it always gave, with every supported torch and MONAI."""

from __future__ import annotations

import json
import unittest
from collections.abc import Callable

import golden
import torch
from tiny import OneThread
from torch import Tensor, nn

from FewShotSegLib.core.model_folders import EMBEDDED_FOLDER
from FewShotSegLib.models.backbones import BACKBONES
from FewShotSegLib.models.backbones.base import Backbone
from FewShotSegLib.models.backbones.patch_merging import ORDERS, PatchMerging

SINGLE = 2e-3
"""Deviations that single precision may be off: instance norms of a few voxels amplify rounding."""


class GoldenNumbers(OneThread):
    """Against the kept numbers, which the published code gives too where there is any."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.cases, cls.golden = golden.cases(), golden.read()

    def measured(self, name: str, dtype: torch.dtype = torch.float64) -> list[golden.Numbers]:
        entry, make = self.cases[name]
        return golden.measure(entry, make(), dtype)

    def test_every_network(self) -> None:
        found: dict[str, list[golden.Numbers]] = {}
        for name, (entry, _) in self.cases.items():
            with self.subTest(name):
                alike = json.dumps(entry.architecture)  # two models are of one network
                if alike not in found or entry.weights.is_file():
                    found[alike] = self.measured(name)
                reported = golden.differences(found[alike], self.golden[name], golden.TOLERANCE)
                self.assertEqual(reported, [])

    def test_in_single_precision_as_they_run(self) -> None:
        for name in (
            "abdomen-unet",
            "btcv",
            "embedded",
            "suprem_unet",
            "vista3d",
        ):
            with self.subTest(name):
                found = self.measured(name, torch.float32)
                self.assertEqual(golden.differences(found, self.golden[name], SINGLE), [])

    def test_the_weights_of_a_window(self) -> None:
        kept = self.golden["sliding window"]
        self.assertEqual(golden.differences(golden.measure_blending(), kept, 1e-5), [])

    def test_every_model_and_option_has_some(self) -> None:
        shipped = {path.stem for path in EMBEDDED_FOLDER.glob("*.json")}
        self.assertLessEqual(shipped, set(self.cases))
        self.assertEqual(set(self.cases) | {"sliding window"}, set(self.golden))
        entries = [entry for entry, _ in self.cases.values()]
        self.assertEqual({entry.architecture["name"] for entry in entries}, set(BACKBONES))
        options = {entry.architecture.get("downsample") for entry in entries}
        self.assertEqual(options - {None}, set(ORDERS))

    def test_they_are_of_the_published_merging(self) -> None:
        for name in ("fseft", "clipdriven", "suprem_swinunetr", "btcv", "selfsup"):
            self.assertEqual(self.cases[name][0].architecture["downsample"], "monai-0.9")
        for other in ("SwinUNETR monai-1.5", "SwinUNETR mergingv2"):
            reported = golden.differences(self.golden[other], self.golden["btcv"], 0.01)
            self.assertGreaterEqual(len(reported), 5, other)


def set_everywhere(kind: type[nn.Module], **values: object) -> Callable[[Backbone], None]:
    """A change of every module of a kind."""

    def change(backbone: Backbone) -> None:
        found = [module for module in backbone.modules() if isinstance(module, kind)]
        assert found
        for module in found:
            vars(module).update(values)

    return change


class Changes(OneThread):
    """What a library might change one day is reported."""

    CHANGES = (
        ("abdomen-unet", "slope", set_everywhere(nn.LeakyReLU, negative_slope=0.101)),
        ("abdomen-unet", "epsilon", set_everywhere(nn.BatchNorm3d, eps=1.1e-5)),
        ("suprem_unet", "epsilon", set_everywhere(nn.BatchNorm3d, eps=1.1e-5)),
        ("vista3d", "epsilon", set_everywhere(nn.InstanceNorm3d, eps=1.1e-5)),
        ("embedded", "epsilon", set_everywhere(nn.BatchNorm3d, eps=1.1e-5)),
        ("btcv", "epsilon", set_everywhere(nn.LayerNorm, eps=1.1e-5)),
        (
            "btcv",
            "merging",
            set_everywhere(PatchMerging, corners=PatchMerging(1, "monai-1.5").corners),
        ),
    )

    def test_a_change_shows(self) -> None:
        cases, kept = golden.cases(), golden.read()
        for name, what, change in self.CHANGES:
            with self.subTest(name, change=what):
                entry, make = cases[name]
                backbone = make()
                change(backbone)
                found = golden.measure(entry, backbone, torch.float64)
                self.assertTrue(golden.differences(found, kept[name], golden.TOLERANCE))

    def test_differences(self) -> None:
        values = golden.uniform("some", (3, 4, 5))
        kept = golden.numbers_of(values)

        def reported(changed: Tensor) -> list[str]:
            return golden.differences([golden.numbers_of(changed)], [kept], 1e-6)

        self.assertEqual(reported(values), [])
        self.assertEqual(reported(values + 1e-9), [])
        self.assertIn("deviations off", reported(values + 1e-5)[0])
        self.assertIn("deviations off", reported(values.flip(0))[0])
        self.assertIn("deviations off", reported(values * float("nan"))[0])
        self.assertIn("shape", reported(values.transpose(0, 1))[0])
        self.assertIn("0 levels", golden.differences([], [kept], 1e-6)[0])

    def test_seeded_numbers_hang_on_the_name_alone(self) -> None:
        expected = [0.972313, -0.684246, -0.52232]
        torch.manual_seed(1)
        found = golden.uniform("conv.weight", (3,))
        self.assertEqual([round(float(value), 6) for value in found], expected)


class Merging(unittest.TestCase):
    """Slices by hand."""

    def test_orders(self) -> None:
        # A voxel's one feature is its place as three digits.
        grid = torch.stack(torch.meshgrid(*[torch.arange(2.0)] * 3, indexing="ij"), -1)
        voxels = (grid * torch.tensor([100, 10, 1])).sum(-1)[None, ..., None]
        for name, corners in ORDERS.items():
            layer = PatchMerging(1, name)
            layer.norm = nn.Identity()
            layer.reduction = nn.Identity()
            with self.subTest(name):
                self.assertEqual(layer(voxels).flatten().tolist(), [float(c) for c in corners])
        self.assertEqual(
            ORDERS["monai-0.9"], ("000", "100", "010", "001", "101", "010", "001", "111")
        )


if __name__ == "__main__":
    unittest.main()
