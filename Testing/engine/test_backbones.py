"""Backbones: shapes, the exact published head, strict weights, and a liver on a real CT."""

from __future__ import annotations

import json
import unittest
from dataclasses import replace

import golden
import numpy as np
import SimpleITK as sitk
import torch
import torch.nn.functional as F
from backbone_interface import Interface, apply_head
from shared_data import data_folder, models_folder
from torch import Tensor

from FewShotSegLib.core.errors import ModelError
from FewShotSegLib.core.geometry import Grid, Volume
from FewShotSegLib.core.model_folders import EMBEDDED_FOLDER, file_sha256
from FewShotSegLib.evaluation.metrics import dice
from FewShotSegLib.models.backbones.dynamic_unet import DynamicUNet
from FewShotSegLib.models.backbones.highres3dnet import HighRes3DNet
from FewShotSegLib.models.backbones.obelisk_unet import ObeliskUNet
from FewShotSegLib.models.preprocessing import Preprocessing
from FewShotSegLib.models.registry import Model, ModelEntry


def published(backbone: ObeliskUNet) -> dict[str, Tensor]:
    """Its weights under the names of the published files, written before batch counters."""
    state = {}
    for key, value in backbone.state_dict().items():
        if key.endswith("num_batches_tracked"):
            continue
        if key.startswith("head."):
            state[key.replace("head", "conv77U")] = value
        else:
            _, name, layer, tensor = key.split(".")
            state[f"{'conv' if layer == '0' else 'batch'}{name}.{tensor}"] = value
    return state


class DynamicUNetTest(Interface, unittest.TestCase):
    """MONAI's network, whose own forward pass is the measure."""

    def make(self) -> DynamicUNet:
        return DynamicUNet(filters=(4, 6, 8), out_channels=3)

    def test_declared(self) -> None:
        self.assertEqual(self.backbone.channels, (4, 6, 8))
        self.assertEqual(self.backbone.strides, (1, 2, 4))

    def test_head_is_exact(self) -> None:
        image = torch.randn(1, 1, 16, 8, 12)
        logits = apply_head(self.backbone, self.backbone.features(image)[0])
        torch.testing.assert_close(logits, self.backbone.net(image), atol=1e-5, rtol=1e-5)

    def test_tensors_with_two_names_need_one(self) -> None:
        """A writer that keeps no shared tensors, such as safetensors, drops MONAI's aliases."""
        state = self.backbone.state_dict()
        other = self.make()
        other.import_state_dict({k: v for k, v in state.items() if "skip_layers" not in k})
        torch.testing.assert_close(dict(other.state_dict()), dict(state))


class ObeliskUNetTest(Interface, unittest.TestCase):
    """The published abdominal network, written out once more as its measure."""

    def make(self) -> ObeliskUNet:
        return ObeliskUNet()

    def test_declared(self) -> None:
        self.assertEqual(self.backbone.channels, (18, 14, 28, 42, 56, 70))
        self.assertEqual(self.backbone.strides, (1, 2, 4, 8, 16, 32))
        self.assertEqual(sum(p.numel() for p in self.backbone.parameters()), 883_740)

    def test_head_is_exact(self) -> None:
        image = 300 * torch.randn(1, 1, 32, 64, 32)
        state = published(self.backbone)

        def block(name: str, x: Tensor, stride: int = 1) -> Tensor:
            conv, norm = f"conv{name}.", f"batch{name}."
            x = F.conv3d(x, state[conv + "weight"], state[conv + "bias"], stride, padding=1)
            statistics = [state[norm + s] for s in ("running_mean", "running_var")]
            x = F.batch_norm(x, *statistics, state[norm + "weight"], state[norm + "bias"])
            return F.leaky_relu(x, 0.1)

        skips = [block("0", image)]
        for n in "12345":
            skips.append(block(n + n, block(n, skips[-1], stride=2)))
        x = skips.pop()
        for name in ("6dU", "6cU", "6bU", "6U", "7U"):
            skip = skips.pop()
            x = F.interpolate(x, skip.shape[2:], mode="trilinear", align_corners=False)
            x = block(name, torch.cat([x, skip], 1))
        expected = F.conv3d(x, state["conv77U.weight"], state["conv77U.bias"], padding=1)
        logits = apply_head(self.backbone, self.backbone.features(image)[0])
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)

    def test_published_names_are_taken(self) -> None:
        other = self.make()
        state = published(self.backbone)
        self.assertEqual(len(state), 98)
        other.import_state_dict(state)
        torch.testing.assert_close(dict(other.state_dict()), dict(self.backbone.state_dict()))
        del state["batch6dU.running_var"]
        with self.assertRaisesRegex(ModelError, "missing: blocks.6dU.1.running_var"):
            other.import_state_dict(state)
        with self.assertRaisesRegex(ModelError, "linear1a"):
            extra = {"linear1a.weight": state["conv0.bias"]}
            other.import_state_dict({**published(self.backbone), **extra})


def published_highres(backbone: HighRes3DNet) -> dict[str, Tensor]:
    """Its weights under the names of the published file."""
    units = {"first": ("0", 1, 2), "wide": ("4", 0, 1), "head": ("6", 0, 1)}
    state = {}
    for key, value in backbone.state_dict().items():
        part, *middle, kind, tensor = key.split(".")
        if part == "stages":
            stage, block, layer = middle
            place = f"{int(stage) + 1}.dilation_block.{block}.residual_block.{layer}"
            number = 0 if kind == "norm" else 3
        else:
            place, conv, norm = units[part]
            number = norm if kind == "norm" else conv
        state[f"block.{place}.convolutional_block.{number}.{tensor}"] = value
    return state


class HighRes3DNetTest(Interface, unittest.TestCase):
    """The published brain parcellation network, written out once more as its measure."""

    def make(self) -> HighRes3DNet:
        return HighRes3DNet(width=4, wide=10, out_channels=5)

    def test_declared(self) -> None:
        full = HighRes3DNet()
        self.assertEqual((full.channels, full.strides), ((80, 32, 64), (1, 2, 4)))
        floats = [v for v in full.state_dict().values() if v.is_floating_point()]
        counters = len(full.state_dict()) - len(floats)
        self.assertEqual(sum(v.numel() for v in floats) + counters, 823_685)  # as published
        self.assertEqual(len(full.state_dict()), 126)

    def test_head_and_levels_are_exact(self) -> None:
        state = {k: v.double() for k, v in published_highres(self.backbone).items()}
        image = torch.randn(1, 1, 12, 8, 16, dtype=torch.float64)

        def norm(name: str, x: Tensor) -> Tensor:
            values = [
                state[f"{name}.{n}"] for n in ("running_mean", "running_var", "weight", "bias")
            ]
            return F.batch_norm(x, *values)

        x = F.conv3d(image, state["block.0.convolutional_block.1.weight"], padding=1)
        x = norm("block.0.convolutional_block.2", x).relu()
        levels = []
        for stage in (1, 2, 3):
            for block in range(3):
                y = x
                for layer in range(2):
                    name = f"block.{stage}.dilation_block.{block}.residual_block.{layer}"
                    name += ".convolutional_block"
                    weight, d = state[f"{name}.3.weight"], 2 ** (stage - 1)
                    y = F.conv3d(norm(f"{name}.0", y).relu(), weight, padding=d, dilation=d)
                half = x.new_zeros(1, (y.shape[1] - x.shape[1]) // 2, *x.shape[2:])
                x = torch.cat([half, x, half], 1) + y
            levels.append(x)
        wide = F.conv3d(x, state["block.4.convolutional_block.0.weight"])
        wide = norm("block.4.convolutional_block.1", wide).relu()
        expected = F.conv3d(wide, state["block.6.convolutional_block.0.weight"])
        expected = norm("block.6.convolutional_block.1", expected)
        self.backbone.double()
        found = self.backbone.features(image)
        torch.testing.assert_close(apply_head(self.backbone, found[0]), expected)
        torch.testing.assert_close(found[1], F.avg_pool3d(levels[1], 2))
        torch.testing.assert_close(found[2], F.avg_pool3d(levels[2], 4))

    def test_published_names_are_taken(self) -> None:
        other, state = self.make(), published_highres(self.backbone)
        other.import_state_dict(state)
        torch.testing.assert_close(dict(other.state_dict()), dict(self.backbone.state_dict()))
        del state["block.2.dilation_block.1.residual_block.0.convolutional_block.3.weight"]
        with self.assertRaisesRegex(ModelError, "missing: stages.1.1.0.conv.weight"):
            other.import_state_dict(state)


class PublishedHighRes(unittest.TestCase):
    """The public file, whose numbers on a fixed image the authors' code gives too."""

    VALUES = (
        1.41677139,
        3.58438722,
        9.84558421,
        -2.6130689,
        3.44635879,
        0.590092597,
        -5.9029086,
        0.35320776,
    )

    def test_logits_of_the_public_weights(self) -> None:
        weights = models_folder() / "highresnet" / "highres3dnet_li_parameters-7d297872.pth"
        if not weights.is_file():
            self.skipTest(f"no {weights}")
        entry = ModelEntry.read(EMBEDDED_FOLDER / "highres3dnet.json")
        self.assertEqual(file_sha256(weights), entry.sha256)
        backbone = Model(replace(entry, weights=weights)).backbone.double()
        image = golden.uniform("highres3dnet", (1, 1, 12, 16, 8))
        with torch.inference_mode():
            logits = apply_head(backbone, backbone.features(image)[0])
        flat = logits.flatten()
        found = [float(flat.mean()), float(flat.std()), *map(float, flat[:: len(flat) // 6][:6])]
        np.testing.assert_allclose(found, self.VALUES, rtol=1e-6)
        self.assertEqual(len(entry.classes), 154)
        self.assertEqual(entry.classes["right hippocampus"], 23)


class ZeroShotLiver(unittest.TestCase):
    """The published weights on a CT of another hospital, without any adapter."""

    def test_liver(self) -> None:
        folder = data_folder() / "totalsegmentator"
        weights = models_folder() / "abdomen_unet" / "allconvunet_tcia_fold1.pth"
        if not folder.is_dir() or not weights.is_file():
            self.skipTest(f"no {folder} or no {weights}")
        backbone = ObeliskUNet().eval()
        backbone.import_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        image = sitk.ReadImage(str(folder / "ct.nii.gz"))
        labels = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "ct_seg.nii.gz"))).T
        names = json.loads((folder / "labels.json").read_text(encoding="utf-8"))["ct"]
        liver = next(int(value) for value, name in names.items() if name == "liver")
        grid = Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
        volume = Volume(sitk.GetArrayFromImage(image).T, grid)

        window, placement = Preprocessing("LAI", (2.3, 1.7, 1.2), "identity")(volume)
        size = window.shape[2:]
        window = F.pad(window, [n for s in reversed(size) for n in (0, -s % 32)], mode="replicate")
        with torch.inference_mode():
            logits = apply_head(backbone, backbone.features(window)[0])
            probabilities = logits[0, :, : size[0], : size[1], : size[2]].softmax(0)
        original = torch.stack([placement.to_original(p) for p in probabilities])
        predicted = np.asarray(original.argmax(0)) == 6
        self.assertGreaterEqual(dice(labels == liver, predicted), 0.85)


if __name__ == "__main__":
    unittest.main()
