"""What is told of methods before torch is loaded is what they are."""

from __future__ import annotations

import copy
import unittest

from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.method_catalog import DECODERS, METHODS, PRESETS, PUBLISHED, WHITE_BOX
from FewShotSegLib.core.method_sizes import SIZES, trained_numbers
from FewShotSegLib.methods.adapters import ADAPTERS, DEFAULT_METHOD
from FewShotSegLib.methods.tunings import TUNINGS
from FewShotSegLib.models.backbones import ARCHITECTURES
from FewShotSegLib.models.registry import list_entries
from FewShotSegLib.training.recipes import METHODS as KNOWN
from FewShotSegLib.training.recipes import choose_tuning, default_settings

COUNTED = {
    "DynamicUNet": ("embedded-ct", "embedded-mr"),
    "ObeliskUNet": ("abdomen-unet",),
    "SwinUNETR": ("fseft",),
    "GenesisUNet": ("suprem_unet",),
    "VISTA3D": ("vista3d",),
}
SLOW_TO_BUILD = ("VISTA3D",)
"""200 million numbers: what is said of it was counted once, as for the others."""


class NamesTest(unittest.TestCase):
    """Names, choices and schedules."""

    def test_it_lists_the_engines_methods_and_no_other(self) -> None:
        self.assertEqual(sorted(METHODS), sorted(KNOWN))
        self.assertEqual(next(iter(METHODS)), DEFAULT_METHOD)
        self.assertEqual(WHITE_BOX, tuple(TUNINGS))
        self.assertEqual({n for n, m in METHODS.items() if not m.trains_backbone}, set(ADAPTERS))

    def test_the_choices_of_decoder(self) -> None:
        for name, method in METHODS.items():
            with self.subTest(name):
                if name in TUNINGS:
                    self.assertEqual(method.decoders, TUNINGS[name].decoders)
                for decoder in DECODERS:
                    # A frozen decoder is what an adapter has in any case.
                    allowed = decoder in (method.decoders or ("frozen",))
                    if allowed:
                        choose_tuning(name, decoder)
                    else:
                        with self.assertRaises(InputError):
                            choose_tuning(name, decoder)

    def test_how_much_is_trained(self) -> None:
        for name, method in METHODS.items():
            for preset in PRESETS:
                with self.subTest(name, preset=preset):
                    told, real = method.schedule(preset), default_settings(name, preset)
                    for field in ("epochs", "steps_per_epoch", "crops", "crop_size"):
                        self.assertEqual(getattr(told, field), getattr(real, field))
                    on_images = choose_tuning(name, None, preset) is not None
                    self.assertEqual(method.runs_on_images(preset), on_images)

    def test_voxels_of_an_epoch(self) -> None:
        self.assertEqual(METHODS["lora"].schedule("own").epoch_voxels(3, "own"), 5 * 2 * 64**3)
        self.assertEqual(PUBLISHED.epoch_voxels(3, "published"), 3 * 6 * 96**3)


class NetworksTest(unittest.TestCase):
    """On every architecture of the registry."""

    def test_every_architecture_is_counted(self) -> None:
        self.assertEqual(set(SIZES), set(ARCHITECTURES))
        self.assertEqual(
            {k: len(v) for k, v in SIZES.items()}, {k: len(v) for k, v in COUNTED.items()}
        )

    def test_where_a_method_has_a_meaning_and_how_many_numbers_it_trains(self) -> None:
        entries = {entry.id: entry for entry in list_entries()}
        for entry in (entries[model_id] for ids in COUNTED.values() for model_id in ids):
            name = entry.architecture["name"]
            if name in SLOW_TO_BUILD:
                continue
            plain = entry.build()
            for method, facts in METHODS.items():
                with self.subTest(entry.id, method=method):
                    self.compare(plain, entry.architecture, method, facts.suits(name))

    def compare(self, plain: object, architecture: dict, method: str, suits: bool) -> None:
        """One method on one network, with its own choice of decoder."""
        for features, channels in (("multi", plain.channels), ("last", plain.channels[:1])):
            head = ADAPTERS.get(method, ADAPTERS["linear-probe"])(channels, 1)
            count = sum(p.numel() for p in head.parameters() if p.requires_grad)
            if method in TUNINGS:
                backbone = copy.deepcopy(plain)
                try:
                    TUNINGS[method]().apply(backbone, lambda: copy.deepcopy(plain))
                except InputError:
                    self.assertFalse(suits)
                    self.assertIsNone(trained_numbers(method, "auto", features, architecture))
                    return
                count += sum(p.numel() for p in backbone.parameters() if p.requires_grad)
            self.assertTrue(suits)
            self.assertEqual(trained_numbers(method, "auto", features, architecture), count)

    def test_with_the_decoder(self) -> None:
        entry = next(e for e in list_entries() if e.id == "embedded-ct")
        for method in ("ft", "lora", "cnn-adapter"):
            for decoder in METHODS[method].decoders:
                backbone = entry.build()
                TUNINGS[method](decoder).apply(backbone, entry.build)
                count = sum(p.numel() for p in backbone.parameters() if p.requires_grad)
                told = trained_numbers(method, decoder, "multi", entry.architecture)
                head = ADAPTERS["linear-probe"](backbone.channels, 1)
                count += sum(p.numel() for p in head.parameters() if p.requires_grad)
                self.assertEqual(told, count, (method, decoder))

    def test_a_network_of_another_size_is_not_counted(self) -> None:
        other = {"name": "DynamicUNet", "filters": [8, 16], "out_channels": 3}
        self.assertIsNone(trained_numbers("adapter", "auto", "multi", other))
        self.assertIsNone(trained_numbers("adapter", "auto", "multi", {"name": "Unheard"}))


if __name__ == "__main__":
    unittest.main()
