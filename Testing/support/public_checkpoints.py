"""Synthetic state dicts of the published layouts, and what holds for loading each.

The layouts are those of jusiro/fewshot-finetuning, MrGiovanni/SuPreM, MONAI's Swin UNETR examples
and MONAI's VISTA3D; the real files are not at hand here.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from monai.networks.nets import SwinUNETR
from tiny import OneThread
from torch import Tensor, nn

from FewShotSegLib.core.errors import ModelError
from FewShotSegLib.models.backbones.base import Backbone
from FewShotSegLib.models.weights import read_state

State = dict[str, Tensor]
SMALL = 12
"""Feature size of the small Swin UNETR; the public ones have 48."""


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
            return read_state(path.read_bytes(), path)

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
