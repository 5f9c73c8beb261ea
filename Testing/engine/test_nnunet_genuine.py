"""What nnU-Net itself trained, added: our scores are its predictor's on the same image."""

from __future__ import annotations

import json
import tempfile
import unittest
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nnunet_adapting
import nnunet_files
import nnunet_proof
import numpy as np
import pytest
import torch
from shared_data import data_folder
from soak_profile import soak_only

from FewShotSegLib.models.backbones.nnunet import NNUNet

ALIKE, LABELS = 1e-3, 0.999
"""The largest difference of a score, and the least part of voxels with the same label."""


class Numbers(unittest.TestCase):
    """Of a run of ``nnunet_proof.py``."""

    def assert_alike(self, name: str, numbers: dict[str, Any]) -> None:
        precise = numbers["in single precision"]
        self.assertLess(precise["largest difference"], ALIKE, name)
        self.assertGreaterEqual(precise["labels alike"], LABELS, name)
        self.assertLess(numbers["largest difference of the image"], ALIKE, name)
        # Its own sums are in half precision, which moves scores, and hardly a label.
        self.assertGreaterEqual(numbers["as they round"]["labels alike"], LABELS, name)
        # Nothing of it is trivial: scores differ, and so do labels.
        self.assertGreater(precise["largest score"], 0.5, name)
        self.assertGreater(min(numbers["labels"]), 0, name)

    def test_the_kept_numbers(self) -> None:
        kept = json.loads(nnunet_proof.FILE.read_text(encoding="utf-8"))
        self.assertEqual(set(kept), set(nnunet_proof.CASES))
        for name, numbers in kept.items():
            with self.subTest(name):
                self.assert_alike(name, numbers)
        thick = kept["mr, residual, thick, transposed"]
        self.assertEqual(thick["strides"][1], [1, 2, 2])
        self.assertNotEqual(thick["orientation"], "SAR")
        several = kept["ct, plain, several windows"]
        self.assertTrue(
            all(n > w for n, w in zip(several["inner"], several["window"], strict=True))
        )

    def test_adapters_on_it_beat_those_on_the_network_untrained(self) -> None:
        """The kept numbers of ``nnunet_adapting.py``: mean Dice of two parts of the hippocampus."""
        kept = json.loads(nnunet_adapting.FILE.read_text(encoding="utf-8"))
        self.assertGreaterEqual(set(kept), {"linear-probe", "adapter"})
        self.assertLessEqual(set(kept), set(nnunet_adapting.METHODS))
        for name, numbers in kept.items():
            with self.subTest(name):
                trained, untrained = (np.mean(numbers[k]) for k in ("trained", "untrained"))
                self.assertGreater(trained, untrained + 0.05)

    @soak_only
    def test_again(self) -> None:
        data_folder()
        require_nnunet()
        for name in nnunet_proof.CASES:
            with self.subTest(name), tempfile.TemporaryDirectory() as folder:
                self.assert_alike(name, nnunet_proof.run_alone(name, Path(folder)))


class Networks(unittest.TestCase):
    """Built by the library that nnU-Net builds its own with."""

    def test_its_forward_pass_is_ours(self) -> None:
        unet = pytest.importorskip("dynamic_network_architectures.architectures.unet")
        for kind, name in (("plain", "PlainConvUNet"), ("residual", "ResidualEncoderUNet")):
            plans = nnunet_files.plans(name)["configurations"]["3d_fullres"]["architecture"]
            arguments = plans["arch_kwargs"] | {
                "conv_op": torch.nn.Conv3d,
                "norm_op": torch.nn.InstanceNorm3d,
                "nonlin": torch.nn.LeakyReLU,
            }
            for dropout in (None, torch.nn.Dropout3d):
                torch.manual_seed(0)
                arguments |= {"dropout_op": dropout, "dropout_op_kwargs": {}}
                theirs = getattr(unet, name)(
                    input_channels=1, num_classes=3, deep_supervision=True, **arguments
                ).eval()
                for parameter in theirs.parameters():
                    torch.nn.init.normal_(parameter, std=0.3)
                ours = NNUNet(kind, nnunet_files.LEVELS, [2, 1], out_channels=3).eval()
                ours.import_state_dict(theirs.state_dict())
                image = torch.randn(1, 1, 8, 16, 16)
                with self.subTest(kind, dropout=dropout), torch.inference_mode():
                    torch.testing.assert_close(ours.head(ours.features(image)[0]), theirs(image)[0])


def require_nnunet() -> None:
    """Raises: unittest.SkipTest: nnU-Net is not installed."""
    if find_spec("nnunetv2") is None:
        raise unittest.SkipTest("needs nnU-Net itself: pip install nnunetv2, in an environment")
