"""What is said of methods and networks before torch is loaded is what they are."""

from __future__ import annotations

import unittest
from dataclasses import replace

from FewShotSegLib.compute.meta import without_values
from FewShotSegLib.core.architecture_catalog import ARCHITECTURES
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.method_catalog import (
    DECODERS,
    DEFAULT_METHOD,
    METHODS,
    PRESETS,
    PUBLISHED,
    white_box_methods,
)
from FewShotSegLib.core.method_sizes import counted_sizes, network_parameters, trained_parameters
from FewShotSegLib.methods import counting
from FewShotSegLib.methods.adapters import ADAPTERS
from FewShotSegLib.methods.adapters.base import Adapter
from FewShotSegLib.methods.tunings import TUNINGS
from FewShotSegLib.methods.tunings.base import Tuning
from FewShotSegLib.models.backbones import BACKBONES
from FewShotSegLib.models.backbones.base import Backbone
from FewShotSegLib.models.registry import list_entries
from FewShotSegLib.training.recipes import choose_tuning, default_settings

OTHER_HEADS = {
    "DynamicUNet": {"out_channels": 7, "norm": "instance"},
    "SwinUNETR": {"out_channels": 3, "layout": "universal", "downsample": "monai-1.5"},
    "GenesisUNet": {"out_channels": 5, "batch_statistics": False},
    "VISTA3D": {"classes": 9},
}
"""Arguments that no counted size hangs on."""


class NamesTest(unittest.TestCase):
    """Names, choices and schedules."""

    def test_every_record_leads_to_its_class(self) -> None:
        self.assertEqual({*ADAPTERS, *TUNINGS}, set(METHODS))
        self.assertEqual(next(iter(METHODS)), DEFAULT_METHOD)
        self.assertEqual(white_box_methods(), tuple(TUNINGS))
        for classes, base in ((ADAPTERS, Adapter), (TUNINGS, Tuning), (BACKBONES, Backbone)):
            self.assertGreater(len(classes), 2)
            for name, found in classes.items():
                with self.subTest(name):
                    self.assertTrue(issubclass(found, base))
        self.assertEqual(set(BACKBONES), set(ARCHITECTURES))
        self.assertEqual({name: cls.name for name, cls in TUNINGS.items()}, {n: n for n in TUNINGS})
        self.assertNotIn("ft", ADAPTERS)
        with self.assertRaises(KeyError):
            ADAPTERS["ft"]

    def test_the_choices_of_decoder(self) -> None:
        for name, method in METHODS.items():
            with self.subTest(name):
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
                    if preset == "published" and method.published_rate is None:
                        for refused in (choose_tuning, default_settings):
                            with self.assertRaisesRegex(InputError, "no published settings"):
                                refused(name, preset=preset, decoder=None)
                        continue
                    said, real = method.schedule(preset), default_settings(name, preset)
                    for field in ("epochs", "steps_per_epoch", "crops", "crop_size"):
                        self.assertEqual(getattr(said, field), getattr(real, field))
                    on_images = choose_tuning(name, None, preset) is not None
                    self.assertEqual(method.runs_on_images(preset), on_images)

    def test_voxels_of_an_epoch(self) -> None:
        self.assertEqual(METHODS["lora"].schedule("own").epoch_voxels(3, "own"), 5 * 2 * 64**3)
        self.assertEqual(PUBLISHED.epoch_voxels(3, "published"), 3 * 6 * 96**3)


class SizesTest(unittest.TestCase):
    """On every network that ships."""

    def test_the_file_is_what_is_counted(self) -> None:
        again = "count again with: python -m FewShotSegLib.methods.counting"
        counted = counting.count_all()
        shipped = {entry.architecture["name"] for entry in list_entries()}
        self.assertEqual(set(counted), shipped & set(ARCHITECTURES.own))
        self.assertGreater(len(counted), 4)
        self.assertEqual(counted_sizes(), counted, again)

    def test_networks_without_values_have_the_sizes_of_real_ones(self) -> None:
        entry = next(e for e in list_entries() if e.id == "embedded")
        with without_values():
            empty = entry.build().state_dict()
        real = entry.build().state_dict()
        self.assertEqual(
            {k: v.shape for k, v in empty.items()}, {k: v.shape for k, v in real.items()}
        )
        self.assertTrue(all(tensor.is_meta for tensor in empty.values()))

    def test_sizes_hang_on_what_the_records_say_alone(self) -> None:
        entries = {entry.architecture["name"]: entry for entry in list_entries()}
        for name, other in OTHER_HEADS.items():
            entry = entries[name]
            changed = replace(entry, architecture={**entry.architecture, **other})
            with self.subTest(name):
                self.assertFalse(set(other) & set(ARCHITECTURES[name].sized_by))
                self.assertEqual(counting.count(changed), counting.count(entry))
                self.assertIsNotNone(network_parameters(changed.architecture))

    def test_where_a_method_has_a_meaning(self) -> None:
        for entry in list_entries():
            for name, method in METHODS.items():
                with self.subTest(entry.id, method=name):
                    count = trained_parameters(name, "auto", "multi", entry.architecture)
                    suits = method.suits(entry.architecture["name"])
                    self.assertEqual(count is not None, suits)

    def test_some_sizes(self) -> None:
        """By hand: 8 filters, and a 1x1x1 classifier with a bias on each of five levels."""
        network = {"name": "DynamicUNet", "filters": [8, 32, 64, 128, 256], "out_channels": 3}
        levels = (8, 32, 64, 128, 256)
        self.assertEqual(
            trained_parameters("linear-probe", "auto", "multi", network), sum(levels) + 5
        )
        self.assertEqual(trained_parameters("linear-probe", "auto", "last", network), 9)
        frozen, tuned = (
            trained_parameters("bias", choice, "last", network) for choice in ("frozen", "tuned")
        )
        self.assertEqual(frozen, trained_parameters("bias", "auto", "last", network))
        whole = trained_parameters("ft", "auto", "last", network)
        encoder = trained_parameters("ft", "frozen", "last", network)
        self.assertEqual(tuned - frozen, whole - encoder)
        self.assertEqual(whole, network_parameters(network) + 9)

    def test_a_network_of_another_size_is_not_counted(self) -> None:
        other = {"name": "DynamicUNet", "filters": [8, 16, 32], "out_channels": 3}
        self.assertIsNone(trained_parameters("adapter", "auto", "multi", other))
        self.assertIsNone(trained_parameters("adapter", "auto", "multi", {"name": "Unheard"}))
        self.assertIsNone(network_parameters(other))


if __name__ == "__main__":
    unittest.main()
