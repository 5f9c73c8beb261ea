"""Public checkpoints of SuPreM's U-Net and of VISTA3D: every name accounted for."""

from __future__ import annotations

import unittest

import torch
from backbone_interface import Interface, apply_head
from monai.networks.nets import SegResNetDS2
from monai.networks.nets.vista3d import ClassMappingClassify
from public_checkpoints import Loading, universal
from tiny import OneThread
from torch import Tensor, nn

from FewShotSegLib.models.backbones.genesis_unet import CropNorm, GenesisUNet
from FewShotSegLib.models.backbones.vista3d import VISTA3DBackbone


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


if __name__ == "__main__":
    unittest.main()
