"""nnU-Net's networks: as every backbone, and the names under which its files have them."""

from __future__ import annotations

import unittest
from typing import Any

import torch
from backbone_interface import Interface, apply_head
from tiny import OneThread
from torch import Tensor

from FewShotSegLib.core.architecture_catalog import network_arguments
from FewShotSegLib.core.errors import InputError, ModelError
from FewShotSegLib.models.backbones.nnunet import NNUNet

THICK: dict[str, Any] = {
    "levels": [
        {"channels": 4, "convolutions": 1, "kernel": [1, 3, 3], "stride": [1, 1, 1]},
        {"channels": 6, "stride": [1, 2, 2]},
        {"channels": 8, "convolutions": 1},
    ],
    "decoder": [2, 1],
    "out_channels": 3,
}


def as_published(state: dict[str, Tensor], heads: int) -> dict[str, Tensor]:
    """Under every name that nnU-Net's own files have, with the heads of deep supervision."""
    result: dict[str, Tensor] = {}
    for name, tensor in state.items():
        result[name] = tensor
        result[name.replace(".conv.", ".all_modules.0.").replace(".norm.", ".all_modules.1.")] = (
            tensor
        )
    for name, tensor in list(result.items()):
        if name.startswith("encoder."):
            result[f"decoder.{name}"] = tensor
    final = f"decoder.seg_layers.{heads - 1}."
    for number in range(heads - 1):
        for name in ("weight", "bias"):
            result[f"decoder.seg_layers.{number}.{name}"] = torch.zeros_like(state[final + name])
    return result


class PlainTest(Interface, unittest.TestCase):
    """With strides and kernels that differ by axis."""

    def make(self) -> NNUNet:
        return NNUNet("plain", **THICK)

    def test_declared(self) -> None:
        self.assertEqual(self.backbone.channels, (4, 6, 8))
        self.assertEqual(self.backbone.strides, (1, (1, 2, 2), (2, 4, 4)))
        self.assertEqual(self.backbone.largest_stride, (2, 4, 4))

    def test_the_head_is_linear_on_the_finest_level(self) -> None:
        finest = self.backbone.features(torch.randn(1, 1, 4, 8, 8))[0]
        torch.testing.assert_close(apply_head(self.backbone, finest), self.backbone.head(finest))

    def test_a_file_has_every_tensor_several_times(self) -> None:
        state = as_published(self.backbone.state_dict(), 2)
        self.assertGreater(len(state), 2 * len(self.backbone.state_dict()))
        other = self.make()
        other.import_state_dict(state)
        torch.testing.assert_close(dict(other.state_dict()), dict(self.backbone.state_dict()))

    def test_tensors_of_one_name_that_differ_are_refused(self) -> None:
        state = as_published(self.backbone.state_dict(), 2)
        for name in ("all_modules.0.weight", "decoder.encoder."):
            key = next(k for k in state if name in k)
            with self.assertRaisesRegex(ModelError, "two different tensors for encoder"):
                self.make().import_state_dict({**state, key: state[key] + 1})

    def test_parts_are_all_of_it(self) -> None:
        parts = [
            *self.backbone.encoder_parts(),
            *self.backbone.decoder_parts(),
            self.backbone.head,
        ]
        counted = sum(p.numel() for part in parts for p in part.parameters())
        self.assertEqual(counted, sum(p.numel() for p in self.backbone.parameters()))


class ResidualTest(PlainTest):
    """With a residual encoder."""

    def make(self) -> NNUNet:
        return NNUNet("residual", **THICK)


class BatchTest(PlainTest):
    """With batch normalisation and a ReLU, as ``nnUNetTrainerBN`` trains."""

    def make(self) -> NNUNet:
        return NNUNet("plain", **THICK, norm="batch", slope=0.0)


class ArgumentsTest(OneThread):
    """What an entry may say of such a network."""

    def test_sizes_that_do_not_fit_are_refused(self) -> None:
        good = {"name": "NNUNet", "encoder": "plain", **THICK}
        self.assertEqual(network_arguments(good).rows, 3)
        first, *others = THICK["levels"]
        for telling, change in (
            ("'decoder' has one for each of the 2", {"decoder": [1, 1, 1]}),
            ("a list of 2 to 9 levels", {"levels": [first]}),
            ("'stride' of the first level", {"levels": others, "decoder": [1]}),
            (
                "multiply to 4096",
                {
                    "levels": [first, *[{"channels": 1, "stride": [8, 1, 1]}] * 4],
                    "decoder": [1] * 4,
                },
            ),
            ("a stride from 1 to 8", {"levels": [first, {"channels": 1, "stride": [9, 1, 1]}]}),
            ("an odd number from 1 to 11", {"levels": [first, {"channels": 1, "kernel": [2] * 3}]}),
            ("lacks the field 'channels'", {"levels": [first, {}]}),
            ('"plain" or "residual"', {"encoder": "primus"}),
            (
                "billion parameters",
                {"levels": [first, {"channels": 2048, "convolutions": 16}], "decoder": [1]},
            ),
        ):
            with self.subTest(telling), self.assertRaisesRegex(InputError, telling):
                network_arguments({**good, **change})
