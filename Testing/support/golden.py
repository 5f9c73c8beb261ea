"""Golden numbers of every network: what seeded weights make of a fixed image, level by level.

``golden.json`` holds them. ``python Testing/support/golden.py`` compares; ``--write`` replaces the
file, which is right only where features were meant to change: then the architecture's ``revision``
is raised as well, so that stored features and adapters of before are not used.

Nothing here is drawn from torch's or numpy's generators of distributions: weights and image come
from the raw stream of a bit generator, which numpy promises to keep. Sums are in double precision,
so that the numbers are those of any processor, and a changed epsilon shows.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.data.utils import compute_importance_map
from torch import Tensor

from FewShotSegLib.core.model_folders import EMBEDDED_FOLDER
from FewShotSegLib.features.sliding_window import SIGMA
from FewShotSegLib.models.backbones.base import Backbone
from FewShotSegLib.models.registry import Model, ModelEntry

FILE = Path(__file__).resolve().parents[1] / "golden.json"
TOLERANCE = 1e-7
"""Of a level's standard deviation. On one machine MONAI 1.4 with torch 2.10 and 1.6 with 2.13 agree
to the last bit; other processors round otherwise, some 1e-12. The least change that was tried, an
epsilon of 1.1e-5 in place of 1e-5, is 2e-6 off."""
VALUES = 12
"""Single values of each level, beside its mean and deviation."""
SMALL: dict[str, dict[str, Any]] = {
    "SwinUNETR": {"feature_size": 12},
    "VISTA3D": {"width": 8, "blocks": [1, 2, 2], "classes": 133},
    "HighRes3DNet": {"width": 4, "wide": 10},
}
"""What is made smaller of a published architecture, so that a laptop runs it in a second."""
NETWORKS: dict[str, dict[str, Any]] = {
    "MonaiUNet": {"channels": [4, 8, 16], "strides": [2, 2], "num_res_units": 2, "norm": "batch"},
    "MonaiDynUNet": {
        "kernel_size": [3, 3, 3],
        "strides": [1, 2, 2],
        "upsample_kernel_size": [2, 2],
        "filters": [4, 6, 8],
        "res_block": True,
    },
    "MonaiSegResNet": {"init_filters": 8, "blocks_down": [1, 2, 2], "blocks_up": [1, 1]},
    "MonaiSegResNetDS": {"init_filters": 8, "blocks_down": [1, 2, 2], "norm": "instance"},
    "MonaiUNETR": {
        "img_size": [64, 32, 32],
        "feature_size": 4,
        "hidden_size": 24,
        "mlp_dim": 32,
        "num_heads": 4,
    },
    "NNUNet": {
        "encoder": "residual",
        "levels": [
            {"channels": 4, "kernel": [1, 3, 3], "stride": [1, 1, 1]},
            {"channels": 6, "kernel": [3, 3, 3], "stride": [1, 2, 2]},
            {"channels": 8, "kernel": [3, 3, 3], "stride": [2, 2, 2]},
        ],
        "decoder": [1, 2],
    },
}
"""Arguments of small networks that no model of the registry has."""
SHAPES = {
    "SwinUNETR": (64, 32, 32),
    "GenesisUNet": (16, 24, 8),
    "VISTA3D": (24, 16, 12),
    "HighRes3DNet": (16, 24, 20),
}
"""Of the image; a Swin transformer of the first has windows, shifted ones, padding and masks."""
OTHERS = (64, 32, 32)
LACKS = {"universal": "net.out.", "selfsup": "net."}
"""What files of a layout do not hold beside ``net.swinViT``: the loader adds it."""

Numbers = dict[str, Any]


def uniform(name: str, shape: Sequence[int]) -> Tensor:
    """Numbers in [-1, 1) of double precision that depend on the name alone."""
    seed = int.from_bytes(hashlib.sha256(f"golden {name}".encode()).digest()[:8], "little")
    raw = np.random.PCG64(seed).random_raw(int(np.prod(shape, dtype=np.int64)))
    return torch.from_numpy((raw >> np.uint64(11)) * 2.0**-52 - 1).reshape(*shape)


def seeded_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights for a network with this state: like trained ones in scale, none of them trivial.

    Tables of indices and counters stay as they are.
    """
    values: dict[int, Tensor] = {}
    for name, tensor in sorted(state.items()):
        if not tensor.is_floating_point():
            values[id(tensor)] = tensor
        elif id(tensor) not in values:  # a tensor with two names goes by the first
            values[id(tensor)] = _seeded(name, tensor)
    return {name: values[id(tensor)] for name, tensor in state.items()}


def _seeded(name: str, tensor: Tensor) -> Tensor:
    numbers = uniform(name, tensor.shape)
    kind = name.rsplit(".", 1)[-1]
    if kind == "running_var":
        return 1.25 + 0.75 * numbers
    if tensor.ndim == 1:
        return 1 + 0.3 * numbers if kind == "weight" else 0.3 * numbers
    if kind == "relative_position_bias_table":
        return numbers
    return numbers * (4.0 / tensor[0].numel()) ** 0.5


def image_for(entry: ModelEntry) -> Tensor:
    """(1, 1, I, J, K), another along each axis; raw Hounsfield units where the model wants them."""
    shape = SHAPES.get(entry.architecture["name"], OTHERS)
    image = 0.5 + 0.3 * uniform("image", (1, 1, *shape))
    for axis, slope in enumerate((0.1, 0.2, -0.15)):
        ramp = torch.linspace(-1, 1, shape[axis], dtype=torch.float64)
        image = image + slope * ramp.reshape([-1 if n == axis else 1 for n in range(3)])
    raw = any(part.intensity == "identity" for part in entry.preprocessing.values())
    return 2000 * image - 1000 if raw else image


def small(entry: ModelEntry, **changes: Any) -> ModelEntry:
    """An entry with a smaller network."""
    reduced = SMALL.get(entry.architecture["name"], {})
    return replace(entry, architecture={**entry.architecture, **reduced, **changes})


def seeded_backbone(entry: ModelEntry) -> Backbone:
    """The entry's network with seeded weights, as its own loader takes and completes them."""
    backbone = entry.build().double()
    state = seeded_state(backbone.state_dict(keep_vars=True))
    lacks = LACKS.get(entry.architecture.get("layout", ""))
    if lacks:
        state = {k: v for k, v in state.items() if "swinViT" in k or not k.startswith(lacks)}
    backbone.import_state_dict(state)
    return backbone.eval().requires_grad_(False)


def cases() -> dict[str, tuple[ModelEntry, Callable[[], Backbone]]]:
    """Every model of the registry, and every option that no model uses yet, by name."""
    entries = {path.stem: ModelEntry.read(path) for path in EMBEDDED_FOLDER.glob("*.json")}
    found: dict[str, tuple[ModelEntry, Callable[[], Backbone]]] = {}
    for name, entry in sorted(entries.items()):
        if entry.weights.parent == EMBEDDED_FOLDER:
            found[name] = (entry, lambda entry=entry: Model(entry).backbone.double())
        else:
            entry = small(entry)
            found[name] = (entry, lambda entry=entry: seeded_backbone(entry))
    for name, base, changes in (
        ("SwinUNETR monai-1.5", "btcv", {"downsample": "monai-1.5"}),
        ("SwinUNETR mergingv2", "btcv", {"downsample": "mergingv2"}),
        ("GenesisUNet running statistics", "suprem_unet", {"batch_statistics": False}),
    ):
        entry = small(entries[base], **changes)
        found[name] = (entry, lambda entry=entry: seeded_backbone(entry))
    for name, arguments in NETWORKS.items():
        entry = replace(
            entries["btcv"], architecture={"name": name, "out_channels": 3, **arguments}
        )
        found[name] = (entry, lambda entry=entry: seeded_backbone(entry))
    return found


def numbers_of(values: Tensor) -> Numbers:
    """Shape, mean, deviation and some single values of a tensor."""
    flat = values.double().flatten()
    places = [(number * 2654435761 + 40503) % len(flat) for number in range(VALUES)]
    return {
        "shape": list(values.shape),
        "mean": float(flat.mean()),
        "deviation": float(flat.std()),
        "values": [float(flat[place]) for place in places],
    }


def measure(entry: ModelEntry, backbone: Backbone, dtype: torch.dtype) -> list[Numbers]:
    """The numbers of every feature level, finest first, and of the head's logits."""
    with torch.inference_mode():
        levels = backbone.to(dtype).features(image_for(entry).to(dtype))
        weights, biases = backbone.head_weights()
        weights = weights.to(dtype)[:, :, None, None, None]
        logits = F.conv3d(levels[0], weights, biases.to(dtype))
        return [numbers_of(values) for values in (*levels, logits)]


def measure_blending() -> list[Numbers]:
    """The weights of a sliding window."""
    weights = compute_importance_map((12, 8, 10), "gaussian", SIGMA, "cpu", torch.float32)
    return [numbers_of(weights)]


def differences(found: Sequence[Numbers], golden: Sequence[Numbers], tolerance: float) -> list[str]:
    """What is not as it was, one line each; empty where all is.

    Args:
        tolerance: of the level's deviation.
    """
    if len(found) != len(golden):
        return [f"{len(found)} levels instead of {len(golden)}"]
    faulty = []
    for number, (new, old) in enumerate(zip(found, golden, strict=True)):
        if new["shape"] != old["shape"]:
            faulty.append(f"level {number}: shape {new['shape']} instead of {old['shape']}")
            continue
        pairs = [(new[key], old[key]) for key in ("mean", "deviation")]
        pairs += zip(new["values"], old["values"], strict=True)
        furthest = max(abs(a - b) for a, b in pairs) / old["deviation"]
        if not furthest <= tolerance:  # nor where it is no number
            faulty.append(f"level {number}: {furthest:.2g} deviations off (at most {tolerance:g})")
    return faulty


def read() -> dict[str, list[Numbers]]:
    """The kept numbers, by case."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def main() -> int:
    """Compare all cases, or write them anew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"replace {FILE.name}")
    write = parser.parse_args().write
    found = {"sliding window": measure_blending()}
    for name, (entry, make) in cases().items():
        found[name] = measure(entry, make(), torch.float64)
    if write:
        lines = ",\n".join(
            f"{json.dumps(name)}: [\n"
            + ",\n".join(f"  {json.dumps(level)}" for level in levels)
            + "\n]"
            for name, levels in found.items()
        )
        FILE.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
        return 0
    golden, faults = read(), 0
    for name in sorted(found.keys() | golden.keys()):
        faulty = differences(found.get(name, []), golden.get(name, []), TOLERANCE)
        print(name, "; ".join(faulty) or "as ever", sep=": ")
        faults += bool(faulty)
    return min(faults, 1)


if __name__ == "__main__":
    raise SystemExit(main())
