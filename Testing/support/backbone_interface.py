"""What holds for every backbone, for the tests of each."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from FewShotSegLib.core.errors import ModelError
from FewShotSegLib.core.geometry import along_axes
from FewShotSegLib.models.backbones.base import Backbone


def random_weights(backbone: Backbone) -> Backbone:
    """The backbone ready for use, with batch statistics that aren't the trivial ones."""
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return backbone.eval().requires_grad_(False)


def apply_head(backbone: Backbone, finest: Tensor) -> Tensor:
    """Logits (B, K, I, J, K) by the weights that an adapter starts from."""
    weights, biases = backbone.head_weights()
    return F.conv3d(finest, weights[:, :, None, None, None], biases)


class Interface:
    """What holds for every backbone; ``make`` is the subclass's."""

    def setUp(self) -> None:
        torch.manual_seed(0)
        self.backbone = random_weights(self.make())

    def test_levels_are_as_declared(self) -> None:
        i, j, k = self.backbone.largest_stride
        size = (i, 2 * j, 3 * k)
        levels = self.backbone.features(torch.randn(2, 1, *size))
        self.assertEqual(len(levels), len(self.backbone.channels))
        self.assertEqual(self.backbone.strides[0], 1)
        for level, channels, stride in zip(
            levels, self.backbone.channels, self.backbone.strides, strict=True
        ):
            parts = (n // s for n, s in zip(size, along_axes(stride), strict=True))
            self.assertEqual(tuple(level.shape), (2, channels, *parts))

    def test_a_volume_does_not_depend_on_its_batch(self) -> None:
        images = torch.randn(2, 1, *self.backbone.largest_stride)
        together = self.backbone.features(images)
        alone = self.backbone.features(images[1:])
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a[1:], b, atol=1e-4, rtol=1e-4)

    def test_import_restores_every_weight(self) -> None:
        other = self.make()
        other.import_state_dict(self.backbone.state_dict())
        for key, value in self.backbone.state_dict().items():
            torch.testing.assert_close(other.state_dict()[key], value, msg=key)

    def test_import_names_every_fault(self) -> None:
        state = self.backbone.state_dict()
        key = next(k for k in state if k.endswith("bias") and "skip_layers" not in k)
        tensor = state[key]
        aliases = [k for k, v in state.items() if v.data_ptr() == tensor.data_ptr()]
        before = {k: v.clone() for k, v in state.items()}
        without = {k: v + 1 for k, v in state.items() if k not in aliases}
        for name, faulty, pattern in (
            ("missing", without, "missing: .*" + key.split(".")[-1]),
            ("unknown", {**state, "extra.weight": tensor}, "not part.*: extra.weight"),
            ("shape", {**state, key: torch.zeros(77)}, "another shape: " + key),
            ("nothing", {}, "missing: .* more"),
            ("no state dict", [tensor], "no state dict"),
        ):
            with self.subTest(name), self.assertRaisesRegex(ModelError, pattern):
                self.backbone.import_state_dict(faulty)
        for k, v in self.backbone.state_dict().items():
            torch.testing.assert_close(v, before[k], msg=f"{k} was changed by a refused file")

    def test_batch_counters_may_be_absent(self) -> None:
        state = self.backbone.state_dict()
        self.make().import_state_dict(
            {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
        )
