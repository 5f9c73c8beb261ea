"""Public checkpoints: made-up state dicts of the published layouts, every name accounted for.

The layouts are those of jusiro/fewshot-finetuning, MrGiovanni/SuPreM, MONAI's Swin UNETR examples
and MONAI's VISTA3D; the real files are not at hand here.
"""

from __future__ import annotations

import inspect
import tempfile
import unittest
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import monai
import torch
from monai.networks.nets import SegResNetDS2, SwinUNETR
from monai.networks.nets.vista3d import ClassMappingClassify
from monai.utils import version_leq
from test_backbones import Interface, apply_head
from tiny import OneThread
from torch import Tensor, nn

from FewShotSegLib.core.errors import ModelError
from FewShotSegLib.models.backbones.base import Backbone
from FewShotSegLib.models.backbones.genesis_unet import CropNorm, GenesisUNet
from FewShotSegLib.models.backbones.patch_merging import ORDERS
from FewShotSegLib.models.backbones.swin_unetr import SwinUNETRBackbone
from FewShotSegLib.models.backbones.vista3d import VISTA3DBackbone
from FewShotSegLib.models.registry import _read_state, list_entries

State = dict[str, Tensor]
SMALL = 12
"""Feature size of the small Swin UNETR; the public ones have 48."""
FIRST = 0.03425243
"""A number of the decoder that self-supervised files lack."""


class ReferenceMerging(nn.Module):
    """Patch merging of MONAI 0.9 and of the authors' copies, written out once more as the measure.

    Args:
        dim, norm_layer, spatial_dims: what MONAI's transformer gives its merging.
    """

    def __init__(
        self, dim: int, norm_layer: type[nn.Module] = nn.LayerNorm, spatial_dims: int = 3
    ) -> None:
        super().__init__()
        assert spatial_dims == 3
        self.reduction = nn.Linear(8 * dim, 2 * dim, bias=False)
        self.norm = norm_layer(8 * dim)

    def forward(self, x: Tensor) -> Tensor:
        even, odd = slice(0, None, 2), slice(1, None, 2)
        first = [x[:, even, even, even], x[:, odd, even, even]]
        middle = [x[:, even, odd, even], x[:, even, even, odd]]
        parts = [*first, *middle, x[:, odd, even, odd], *middle, x[:, odd, odd, odd]]
        return self.reduction(self.norm(torch.cat(parts, -1)))


def swin(classes: int = 3, downsample: Any = ReferenceMerging) -> SwinUNETR:
    """MONAI's own network; ``downsample`` is its patch merging."""
    torch.manual_seed(5)
    # Asked for up to 1.4, where it meant nothing any more.
    size = {"img_size": 64} if "img_size" in inspect.signature(SwinUNETR).parameters else {}
    return SwinUNETR(
        in_channels=1, out_channels=classes, feature_size=SMALL, downsample=downsample, **size
    ).eval()


def universal_parts(width: int, deepest: int) -> State:
    """The tensors of the Universal Model beside its backbone."""
    torch.manual_seed(6)
    parts = nn.ModuleDict(
        {
            "precls_conv": nn.Sequential(nn.GroupNorm(4, width), nn.ReLU(), nn.Conv3d(width, 8, 1)),
            "GAP": nn.Sequential(nn.GroupNorm(4, deepest), nn.ReLU(), nn.Conv3d(deepest, 256, 1)),
            "controller": nn.Conv3d(512, 153, 1),
            "text_to_vision": nn.Linear(512, 256),
        }
    )
    return {"organ_embedding": torch.randn(25, 512), **parts.state_dict()}


def fseft(net: SwinUNETR) -> Any:
    return {
        "module." + key.replace("out.conv.conv", "classifier"): value
        for key, value in net.state_dict().items()
    }


def btcv(net: SwinUNETR) -> Any:
    return {"state_dict": net.state_dict()}


def universal(net: nn.Module, deepest: int, width: int) -> Any:
    own = {f"backbone.{k}": v for k, v in net.state_dict().items() if not k.startswith("out.")}
    state = {**universal_parts(width, deepest), **own}
    return {
        "net": {f"module.{key}": value for key, value in state.items()},
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-4}]},
        "scheduler": {"last_epoch": 2100},
        "epoch": 2100,
    }


def selfsup(net: SwinUNETR, prefix: str = "") -> Any:
    state = {
        f"module.{prefix}{key.removeprefix('swinViT.').replace('mlp.linear', 'mlp.fc')}": value
        for key, value in net.state_dict().items()
        if key.startswith("swinViT.")
    }
    for name in ("rotation_head", "contrastive_head", "conv"):
        state[f"module.{name}.weight"] = torch.randn(4, 4)
        state[f"module.{name}.bias"] = torch.randn(4)
    return {"epoch": 500, "state_dict": state, "optimizer": {}}


class Loading(OneThread):
    """What holds for every layout."""

    def read(self, file: Any) -> Any:
        """Through a file, as the registry reads it."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "published.pth"
            torch.save(file, path)
            return _read_state(path.read_bytes(), path)

    def assert_strict(
        self, file: Any, make: Callable[[], Backbone], own: Callable[[str], bool]
    ) -> Backbone:
        """It loads; and does not with any one tensor missing, of another shape or too many.

        Args:
            own: whether a published name is of the backbone itself.
        """
        state = self.read(file)
        backbone = make()
        backbone.import_state_dict(state)
        wanted = [n for n in state if own(n) and not n.endswith("num_batches_tracked")]
        self.assertTrue(wanted)
        for name in (wanted[0], wanted[len(wanted) // 2], wanted[-1]):
            without = {key: value for key, value in state.items() if key != name}
            short = name.rsplit(".", 3)[-3:]
            with self.subTest(missing=name):
                with self.assertRaisesRegex(ModelError, "missing: .*" + short[-1]):
                    make().import_state_dict(without)
            with self.subTest(reshaped=name):
                with self.assertRaisesRegex(ModelError, "another shape: "):
                    make().import_state_dict({**state, name: torch.zeros(77)})
        with self.assertRaisesRegex(ModelError, "not part of this architecture: .*surprise"):
            make().import_state_dict({**state, "module.backbone.surprise.weight": torch.zeros(1)})
        return backbone

    def assert_same(self, backbone: nn.Module, net: nn.Module, left_out: str = "none") -> None:
        """Every tensor of the published network is where it belongs."""
        mine = backbone.state_dict()
        for name, value in net.state_dict().items():
            if not name.startswith(left_out):
                torch.testing.assert_close(mine[name], value, msg=name)


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


class ReferenceUNet(nn.Module):
    """The published U-Net, written out once more as its measure: names, and the pass itself."""

    def __init__(self) -> None:
        super().__init__()

        def two(i: int, a: int, b: int) -> nn.Sequential:
            layers = []
            for x, y in ((i, a), (a, b)):
                layer = nn.Module()
                layer.conv1, layer.bn1 = nn.Conv3d(x, y, 3, padding=1), nn.BatchNorm3d(y)
                layers.append(layer)
            return nn.Sequential(*layers)

        for name, (i, a, b) in {
            "down_tr64": (1, 32, 64),
            "down_tr128": (64, 64, 128),
            "down_tr256": (128, 128, 256),
            "down_tr512": (256, 256, 512),
        }.items():
            self.add_module(name, nn.Module())
            self.get_submodule(name).ops = two(i, a, b)
        for name, i, b in (("up_tr256", 512, 256), ("up_tr128", 256, 128), ("up_tr64", 128, 64)):
            self.add_module(name, nn.Module())
            self.get_submodule(name).up_conv = nn.ConvTranspose3d(i, i, 2, stride=2)
            self.get_submodule(name).ops = two(i + b, b, b)

    def forward(self, x: Tensor) -> Tensor:
        def run(name: str, x: Tensor) -> Tensor:
            for layer in self.get_submodule(name).ops:
                y = layer.conv1(x)
                mean = y.mean((0, 2, 3, 4), keepdim=True)
                deviation = (y.var((0, 2, 3, 4), keepdim=True, unbiased=False) + 1e-5).sqrt()
                shape = (1, -1, 1, 1, 1)
                scale, shift = layer.bn1.weight.view(shape), layer.bn1.bias.view(shape)
                x = ((y - mean) / deviation * scale + shift).relu()
            return x

        skips = []
        for name in ("down_tr64", "down_tr128", "down_tr256"):
            x = run(name, x)
            skips.append(x)
            x = nn.functional.max_pool3d(x, 2)
        x = run("down_tr512", x)
        for name in ("up_tr256", "up_tr128", "up_tr64"):
            up = self.get_submodule(name).up_conv(x)
            x = run(name, torch.cat([up, skips.pop()], 1))
        return x


class GenesisLayout(Loading):
    """SuPreM's U-Net."""

    def setUp(self) -> None:
        super().setUp()
        torch.manual_seed(7)
        self.net = ReferenceUNet().eval()

    def test_suprem(self) -> None:
        backbone = self.assert_strict(
            universal(self.net, 512, 64), GenesisUNet, lambda key: "backbone" in key
        )
        self.assert_same(backbone, self.net)

    def test_batch_statistics_are_used_in_evaluation_and_never_moved(self) -> None:
        image = torch.randn(1, 1, 16, 8, 16)
        for value, same in ((True, True), (False, False)):
            backbone = GenesisUNet(batch_statistics=value).eval()
            backbone.import_state_dict(self.net.state_dict())
            before = {k: v.clone() for k, v in backbone.named_buffers()}
            with torch.no_grad():
                finest, expected = backbone.features(image)[0], self.net(image)
            self.assertEqual(torch.allclose(finest, expected, atol=1e-4, rtol=1e-3), same)
            torch.testing.assert_close(dict(backbone.named_buffers()), before)


class GenesisInterface(Interface, OneThread):
    """With running statistics it is a backbone like the others."""

    def make(self) -> GenesisUNet:
        return GenesisUNet(out_channels=2, batch_statistics=False)

    def test_the_published_norm_depends_on_the_batch(self) -> None:
        for module in self.backbone.modules():
            if isinstance(module, CropNorm):
                module.batch_statistics = True
        images = torch.randn(2, 1, 8, 16, 8)
        together, alone = self.backbone.features(images), self.backbone.features(images[1:])
        self.assertFalse(torch.allclose(together[0][1:], alone[0], atol=1e-3))


class SwinInterface(Interface, OneThread):
    """Swin UNETR as a backbone like the others."""

    def make(self) -> SwinUNETRBackbone:
        return SwinUNETRBackbone(SMALL, 2, downsample="monai-0.9")


class VISTALayout(Loading):
    """VISTA3D, against MONAI's own modules."""

    WIDTH, BLOCKS, CLASSES = 8, (1, 1, 1), 20

    def make(self) -> VISTA3DBackbone:
        return VISTA3DBackbone(self.WIDTH, self.BLOCKS, self.CLASSES).eval()

    def test_published(self) -> None:
        torch.manual_seed(8)
        net = SegResNetDS2(
            in_channels=1,
            blocks_down=self.BLOCKS,
            norm="instance",
            out_channels=self.WIDTH,
            init_filters=self.WIDTH,
            dsdepth=1,
        ).eval()
        head = ClassMappingClassify(self.CLASSES, self.WIDTH, use_mlp=True).eval()
        state = {f"image_encoder.{k}": v for k, v in net.state_dict().items()}
        state |= {f"class_head.{k}": v for k, v in head.state_dict().items()}
        state["point_head.transformer.layers.0.mlp.linear1.weight"] = torch.randn(3, 3)
        self.assertIn("image_encoder.up_layers.0.upsample.deconv.weight", state)
        backbone = self.assert_strict(
            state,
            self.make,
            lambda key: not key.startswith(("image_encoder.up_layers.", "point_head")),
        )
        image = torch.randn(1, 1, 16, 8, 12)
        with torch.no_grad():
            embedded = net(image, with_point=False)[1]
            masks, _ = head(embedded, torch.arange(self.CLASSES)[:, None])
            logits = apply_head(backbone, backbone.features(image)[0])
            torch.testing.assert_close(logits[0], masks[:, 0], atol=1e-5, rtol=1e-5)


class VISTAInterface(Interface, OneThread):
    """VISTA3D's encoder as a backbone like the others."""

    def make(self) -> VISTA3DBackbone:
        return VISTA3DBackbone(8, (1, 1, 1), 6)


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
