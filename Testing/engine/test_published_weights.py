"""Public checkpoints of Swin UNETR: synthetic state dicts, every name accounted for."""

from __future__ import annotations

import unittest
from dataclasses import replace

import monai
import torch
from backbone_interface import Interface, apply_head
from monai.utils import version_leq
from public_checkpoints import (
    SMALL,
    Loading,
    ReferenceMerging,
    btcv,
    fseft,
    selfsup,
    swin,
    universal,
)
from tiny import OneThread

from FewShotSegLib.core.errors import ModelError
from FewShotSegLib.models.backbones.patch_merging import ORDERS
from FewShotSegLib.models.backbones.swin_unetr import SwinUNETRBackbone
from FewShotSegLib.models.registry import list_entries

FIRST = 0.03425243
"""A number of the decoder that self-supervised files lack."""


class SwinLayouts(Loading):
    """Five public files, one network."""

    def backbone(
        self, classes: int = 3, layout: str = "plain", downsample: str = "monai-0.9"
    ) -> SwinUNETRBackbone:
        return SwinUNETRBackbone(SMALL, classes, layout, downsample).eval()

    def test_fseft_and_btcv(self) -> None:
        net = swin()
        for name, file in (("fseft", fseft(net)), ("btcv", btcv(net)), ("bare", net.state_dict())):
            with self.subTest(name):
                backbone = self.assert_strict(file, self.backbone, lambda key: True)
                self.assert_same(backbone.net, net)

    def test_features_are_those_of_the_network_that_was_trained(self) -> None:
        """Whatever MONAI is here; its own merging is of another order since 1.5."""
        own = "monai-0.9" if version_leq(monai.__version__, "1.4.99") else "monai-1.5"
        image = torch.randn(1, 1, 32, 64, 32)
        for downsample, merging in (
            ("monai-0.9", ReferenceMerging),
            (own, "merging"),
            ("mergingv2", "mergingv2"),
        ):
            net = swin(downsample=merging)
            with torch.no_grad():
                hidden, expected = net.swinViT(image, True), net(image)
            for name in ORDERS:
                backbone = self.backbone(downsample=name)
                backbone.import_state_dict(net.state_dict())
                with torch.no_grad(), self.subTest(name, trained=downsample):
                    mine = backbone.net.swinViT(image, True)
                    logits = apply_head(backbone, backbone.features(image)[0])
                    apart = max(
                        float((a - b).abs().max()) for a, b in zip(hidden, mine, strict=True)
                    )
                    if name == downsample:
                        self.assertLess(apart, 1e-5)
                        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
                    else:
                        self.assertGreater(apart, 0.5)
                        self.assertGreater(float((logits - expected).abs().max()), 0.1)

    def test_the_merging_must_be_said(self) -> None:
        for wrong in (None, "", "merging", "monai-1.4", 9):
            with self.subTest(wrong):
                with self.assertRaisesRegex(ValueError, "'downsample'.*monai-0.9, monai-1.5"):
                    SwinUNETRBackbone(SMALL, 3, "plain", wrong)

    def test_clip_driven_and_suprem(self) -> None:
        net = swin()
        backbone = self.assert_strict(
            universal(net, 16 * SMALL, SMALL),
            lambda: self.backbone(1, "universal"),
            lambda key: "backbone" in key,
        )
        self.assert_same(backbone.net, net, left_out="out.")

    def test_the_universal_models_parts_are_known_to_that_layout_alone(self) -> None:
        state = self.read(universal(swin(), 16 * SMALL, SMALL))
        with self.assertRaisesRegex(ModelError, "not part of this architecture: .*precls_conv"):
            self.backbone(1).import_state_dict(state)

    def test_self_supervised(self) -> None:
        net = swin()
        for prefix in ("", "swin_vit.", "swinViT."):
            with self.subTest(prefix):
                file = selfsup(net, prefix)
                backbone = self.assert_strict(
                    file,
                    lambda: self.backbone(1, "selfsup"),
                    lambda key: "layers" in key or "patch" in key,
                )
                self.assert_same(backbone.net.swinViT, net.swinViT)

    def test_what_a_file_lacks_is_always_the_same(self) -> None:
        state = self.read(selfsup(swin()))
        torch.manual_seed(1)
        one = self.backbone(1, "selfsup")
        one.import_state_dict(state)
        torch.manual_seed(2)
        two = self.backbone(1, "selfsup")
        two.import_state_dict(state)
        torch.testing.assert_close(dict(one.state_dict()), dict(two.state_dict()), atol=0, rtol=0)
        # And with any torch: nothing of it is drawn from a generator of torch's.
        weights = one.net.decoder1.conv_block.conv1.conv.weight.detach()
        bound = (2 * SMALL * 27) ** -0.5
        self.assertAlmostEqual(float(weights[0, 0, 0, 0, 0]), FIRST, places=7)
        self.assertLess(float(weights.abs().max()), bound)
        self.assertAlmostEqual(float(weights.std()) / bound, 3**-0.5, places=1)
        self.assertLess(abs(float(weights.mean())), 0.05 * bound)
        self.assertEqual(float(one.head.bias.detach().abs().max()), 0)

    def test_half_a_decoder_is_no_decoder(self) -> None:
        state = self.read(btcv(swin(1)))
        self.backbone(1, "selfsup").import_state_dict(state)
        state.pop("decoder1.conv_block.conv1.conv.weight")
        with self.assertRaisesRegex(ModelError, "missing: net.decoder1.conv_block.conv1"):
            self.backbone(1, "selfsup").import_state_dict(state)

    def test_the_smallest_window(self) -> None:
        backbone = self.backbone()
        with torch.no_grad():
            levels = backbone.features(torch.randn(1, 1, 32, 32, 32))
        for level, channels, stride in zip(
            levels, backbone.channels, backbone.strides, strict=True
        ):
            self.assertEqual(tuple(level.shape), (1, channels, *([32 // stride] * 3)))


class SwinInterface(Interface, OneThread):
    """Swin UNETR as a backbone like the others."""

    def make(self) -> SwinUNETRBackbone:
        return SwinUNETRBackbone(SMALL, 2, downsample="monai-0.9")


class Entries(unittest.TestCase):
    """What ships in the registry fits the networks."""

    def test_every_architecture_is_the_public_size(self) -> None:
        entries = {entry.id: entry for entry in list_entries()}
        swins = {"fseft", "clipdriven", "suprem_swinunetr", "btcv", "selfsup"}
        self.assertLessEqual(swins | {"suprem_unet", "vista3d"}, set(entries))
        for name, millions in (("btcv", 62.19), ("suprem_unet", 19.07)):
            count = sum(p.numel() for p in entries[name].build().parameters())
            self.assertAlmostEqual(count / 1e6, millions, places=2)
        for name, entry in entries.items():
            with self.subTest(name):
                if name in swins:
                    self.assertEqual(entry.architecture["feature_size"], 48)
                    small = {**entry.architecture, "feature_size": SMALL}
                    entry = replace(entry, architecture=small)
                elif name == "vista3d":
                    self.assertEqual(set(entry.architecture), {"name"})
                    entry = replace(entry, architecture={"name": "VISTA3D", "width": 8})
                rows = len(entry.build().head_weights()[0])
                self.assertLess(max([*entry.classes.values(), 0]), rows)
                self.assertEqual(len(set(entry.classes.values())), len(entry.classes))


if __name__ == "__main__":
    unittest.main()
