"""Networks of MONAI's: its own forward pass, and its own files, are the measure."""

from __future__ import annotations

import inspect
import io
import unittest
from dataclasses import MISSING, fields
from typing import Any

import torch
from backbone_interface import Interface, apply_head, random_weights
from monai.networks import nets

from FewShotSegLib.core.architecture_catalog import ARCHITECTURES, network_arguments
from FewShotSegLib.core.errors import ModelError
from FewShotSegLib.core.geometry import along_axes
from FewShotSegLib.models.backbones import BACKBONES
from FewShotSegLib.models.backbones.dynamic_unet import DynamicUNet

COMMON = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3}


class MonaiInterface(Interface):
    """What holds for each of them.

    Attributes:
        name: of the architecture. original: MONAI's class. arguments: of both.
    """

    name = ""
    original: Any = None
    arguments: dict[str, Any] = {}

    def make(self) -> Any:
        network_arguments({"name": self.name, **self.arguments})  # an entry may say them
        return BACKBONES[self.name](**self.arguments)

    def saved(self, prefix: str = "", **changes: Any) -> tuple[Any, Any]:
        """MONAI's network, and its state dict after a file."""
        torch.manual_seed(3)
        network = random_weights(self.original(**{**self.arguments, **changes}))
        file = io.BytesIO()
        torch.save({f"{prefix}{k}": v for k, v in network.state_dict().items()}, file)
        file.seek(0)
        return network, torch.load(file, weights_only=True)

    def test_files_as_monai_saves_them_give_its_logits(self) -> None:
        image = torch.randn(1, 1, 48, 48, 48)
        for prefix in ("", "module.", "_orig_mod.module."):
            with self.subTest(prefix):
                network, state = self.saved(prefix)
                backbone = self.make()
                backbone.import_state_dict(state)
                backbone.eval()
                with torch.inference_mode():
                    logits = apply_head(backbone, backbone.features(image)[0])
                    torch.testing.assert_close(logits, network(image), atol=1e-5, rtol=1e-5)

    def test_a_file_with_one_tensor_less_is_refused(self) -> None:
        _, state = self.saved()
        known = [n for n in state if n.endswith("weight") and "skip_layers" not in n]
        name = known[len(known) // 2]
        same = [n for n in state if state[n].data_ptr() == state[name].data_ptr()]
        with self.assertRaisesRegex(ModelError, "missing: net"):
            self.make().import_state_dict({k: v for k, v in state.items() if k not in same})

    def test_every_part_that_features_need_is_named_once(self) -> None:
        backbone = self.make()
        parts = [*backbone.encoder_parts(), *backbone.decoder_parts()]
        named = [id(p) for part in parts for p in part.parameters()]
        self.assertEqual(len(named), len(set(named)))
        levels = backbone.train().features(torch.randn(2, 1, 48, 48, 48))
        sum(level.sum() for level in levels).backward()
        used = {id(p) for p in backbone.parameters() if p.grad is not None}
        self.assertLessEqual(used, set(named))
        idle = [n for n, p in backbone.named_parameters() if id(p) in set(named) - used]
        # MONAI's transformers have layers that they never use.
        self.assertTrue(all("cross_attn" in name for name in idle), idle)
        last = {id(p) for part in backbone.last_parts() for p in part.parameters()}
        self.assertTrue(last and last < set(named))

    def test_arguments_and_defaults_are_monais(self) -> None:
        theirs = inspect.signature(self.original.__init__).parameters
        for field in fields(ARCHITECTURES[self.name].arguments):
            with self.subTest(field.name):
                self.assertIn(field.name, theirs)
                default = theirs[field.name].default
                if field.default is not MISSING and default is not inspect.Parameter.empty:
                    wanted = getattr(default, "value", default)
                    ours = {"in_channels": 1, "spatial_dims": 3}
                    self.assertEqual(field.default, ours.get(field.name, wanted))

    def test_several_channels_and_slices_are_no_network_of_ours(self) -> None:
        for telling, change in (
            ("several input channels", {"in_channels": 2}),
            ("2D slices", {"spatial_dims": 2}),
        ):
            with self.assertRaisesRegex(Exception, telling):
                network_arguments({"name": self.name, **self.arguments, **change})


def assert_anisotropic(case: Any, change: dict[str, Any], strides: tuple[Any, ...]) -> None:
    """Levels have the strides that are expected, and MONAI's logits are had from them."""
    arguments = {**case.arguments, "deep_supervision": False, **change}
    if case.name != "MonaiDynUNet":
        del arguments["deep_supervision"]
    torch.manual_seed(3)
    network = random_weights(case.original(**arguments))
    network_arguments({"name": case.name, **arguments})
    backbone = BACKBONES[case.name](**arguments).eval()
    backbone.import_state_dict(network.state_dict())
    case.assertEqual(backbone.strides, strides)
    image = torch.randn(1, 1, 16, 24, 32)
    levels = backbone.features(image)
    for level, stride in zip(levels, strides, strict=True):
        size = [n // s for n, s in zip(image.shape[2:], along_axes(stride), strict=True)]
        case.assertEqual(list(level.shape[2:]), size)
    logits = apply_head(backbone, levels[0])
    torch.testing.assert_close(logits, network(image), atol=1e-5, rtol=1e-5)


class UNetTest(MonaiInterface, unittest.TestCase):
    """With residual units, as most bundles have it."""

    name, original = "MonaiUNet", nets.UNet
    arguments = {
        **COMMON,
        "channels": [4, 8, 16],
        "strides": [2, 2],
        "num_res_units": 2,
        "norm": "batch",
    }

    def test_strides_by_axis(self) -> None:
        assert_anisotropic(self, {"strides": [[1, 2, 2], 2]}, (1, (1, 2, 2), (2, 4, 4)))

    def test_a_first_stride_of_one(self) -> None:
        arguments = {**self.arguments, "strides": [1, 2], "num_res_units": 0, "norm": "instance"}
        torch.manual_seed(3)
        network = self.original(**arguments).eval()
        backbone = BACKBONES[self.name](**arguments).eval()
        backbone.import_state_dict(network.state_dict())
        image = torch.randn(1, 1, 8, 12, 16)
        levels = backbone.features(image)
        self.assertEqual((backbone.channels, backbone.strides), ((3 + 8, 24), (1, 2)))
        self.assertEqual([level.shape[1] for level in levels], [11, 24])
        torch.testing.assert_close(apply_head(backbone, levels[0]), network(image))


class DynUNetTest(MonaiInterface, unittest.TestCase):
    """With deep supervision, whose heads files hold."""

    name, original = "MonaiDynUNet", nets.DynUNet
    arguments = {
        **COMMON,
        "kernel_size": [3, 3, 3],
        "strides": [1, 2, 2],
        "upsample_kernel_size": [2, 2],
        "filters": [4, 6, 8],
        "deep_supervision": True,
        "res_block": True,
    }

    def test_strides_by_axis(self) -> None:
        steps = {"strides": [1, [2, 1, 2], 2], "upsample_kernel_size": [[2, 1, 2], 2]}
        kernels = {"kernel_size": [[3, 1, 3], 3, 3]}
        assert_anisotropic(self, {**steps, **kernels}, (1, (2, 1, 2), (4, 2, 4)))

    def test_ours_with_fewer_options_takes_the_same_files(self) -> None:
        """They were refused: our names begin with ``net.``, MONAI's do not."""
        plain = {
            **self.arguments,
            "deep_supervision": False,
            "res_block": False,
            "norm_name": "batch",
            "act_name": ("relu", {"inplace": True}),
        }
        torch.manual_seed(4)
        network = random_weights(nets.DynUNet(**plain))
        backbone = DynamicUNet(filters=(4, 6, 8), out_channels=3).eval()
        backbone.import_state_dict({f"module.{k}": v for k, v in network.state_dict().items()})
        image = torch.randn(1, 1, 16, 8, 12)
        logits = apply_head(backbone, backbone.features(image)[0])
        torch.testing.assert_close(logits, network(image), atol=1e-5, rtol=1e-5)


class SegResNetTest(MonaiInterface, unittest.TestCase):
    """The plain one."""

    name, original = "MonaiSegResNet", nets.SegResNet
    arguments = {**COMMON, "init_filters": 8, "blocks_down": [1, 2, 2], "blocks_up": [1, 1]}


class SegResNetDSTest(MonaiInterface, unittest.TestCase):
    """With heads of deep supervision in its files."""

    name, original = "MonaiSegResNetDS", nets.SegResNetDS
    arguments = {
        **COMMON,
        "init_filters": 8,
        "blocks_down": [1, 2, 2],
        "dsdepth": 2,
        "norm": "instance",
    }

    def test_strides_by_axis(self) -> None:
        change = {"resolution": [1.0, 1.0, 4.0]}
        assert_anisotropic(self, change, (1, (2, 2, 1), (4, 4, 1)))


class UNETRTest(MonaiInterface, unittest.TestCase):
    """Of one size of window."""

    name, original = "MonaiUNETR", nets.UNETR
    arguments = {
        "in_channels": 1,
        "out_channels": 3,
        "img_size": [48, 48, 48],
        "feature_size": 4,
        "hidden_size": 24,
        "mlp_dim": 32,
        "num_heads": 4,
    }

    def test_a_larger_window_is_refused(self) -> None:
        with self.assertRaisesRegex(ModelError, "windows of .48, 48, 48. voxels and none"):
            self.make().features(torch.zeros(1, 1, 48, 48, 64))


class Arguments(unittest.TestCase):
    """What an entry may say of them is checked before a network is built."""

    def test_what_cannot_be_is_named(self) -> None:
        unet = {"name": "MonaiUNet", "out_channels": 2, "channels": [4, 8], "strides": [2]}
        dyn = {"name": "MonaiDynUNet", **DynUNetTest.arguments}
        seg = {"name": "MonaiSegResNetDS", "out_channels": 2}
        unetr = {"name": "MonaiUNETR", **UNETRTest.arguments}
        for telling, architecture in (
            ("'strides' has 1 items", {**unet, "strides": [2, 2]}),
            ("'norm' of .* is one of instance, batch", {**unet, "norm": "layer"}),
            ("'norm' of .* is one of", {**unet, "norm": ["batch", {"eps": "os.system"}]}),
            ("'act' of .* is one of relu", {**unet, "act": ["__import__", {}]}),
            ("'kernel_size' has one item for each", {**dyn, "kernel_size": [3, 3]}),
            ("begins with 1", {**dyn, "strides": [2, 2, 2]}),
            ("billion parameters", {**seg, "init_filters": 2048, "blocks_down": [1, 1, 1, 1]}),
            ("'blocks_up' has one number less", {**seg, "blocks_up": [1]}),
            ("'resolution' of .* is", {**seg, "resolution": [0, 1, 1]}),
            ("three multiples of 16", {**unetr, "img_size": [40, 48, 48]}),
            ("multiple of 'num_heads'", {**unetr, "num_heads": 7}),
            ("unknown|does not know|no field", {**unet, "surprise": 1}),
        ):
            with self.subTest(telling), self.assertRaisesRegex(Exception, telling):
                network_arguments(architecture)


if __name__ == "__main__":
    unittest.main()
