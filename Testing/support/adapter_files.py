"""An adapter as its file holds it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from tiny_model import QUICK
from torch import Tensor

from FewShotSegLib.core.adapter_header import KEY, read_header
from FewShotSegLib.core.annotation import Structure
from FewShotSegLib.core.checksums import write_sealed
from FewShotSegLib.core.size_prior import SizePrior
from FewShotSegLib.methods.adapters import ADAPTERS
from FewShotSegLib.models.preprocessing import Preprocessing
from FewShotSegLib.pipeline.adapter_file import (
    TrainedAdapter,
)

TERMINOLOGY = "Segmentation category and type~SCT^123^Organ~SCT^10200004^Liver~^^~^^~^^"


def make_adapter(method: str = "adapter", features: str = "multi") -> TrainedAdapter:
    """An adapter whose every field differs from its default."""
    torch.manual_seed(1)
    channels = (4, 6, 8)
    adapter = ADAPTERS[method](channels if features == "multi" else channels[:1], 2)
    for tensor in adapter.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape))
    return TrainedAdapter(
        adapter=adapter,
        method=method,
        features=features,
        channels=channels,
        structures=[
            Structure("Größe", 7, (0.25, 0.5, 0.1), TERMINOLOGY),
            Structure("left lobe", 300),
        ],
        priors={
            "Größe": SizePrior(1234.5, 17.25, 3, 0.2, True, True),
            "left lobe": SizePrior(1 / 3, enabled=False),
        },
        model_id="others",
        weights_sha256="ab" * 32,
        modality="MR",
        preprocessing=Preprocessing("LPS", (0.1, 2.0, 3.3), "percentiles", 1, 99),
        exclusive=False,
        model_title="Another model",
        training={"settings": QUICK.to_json(), "seed": 5, "final": {"loss": 0.1}, "seconds": {}},
        supports=[{"shape": [3, 4, 5], "content": "00ff"}],
        version="0.0.1",
    )


def rewrite(path: Path, change: Callable[[dict[str, Any], dict[str, Tensor]], None]) -> None:
    """An adapter's file with other metadata or tensors, sealed anew.

    Args:
        change: gets both, and changes them in place.
    """
    content = path.read_bytes()
    data, tensors = read_header(content, path.name), safetensors.torch.load(content)
    change(data, tensors)
    write_sealed(path, safetensors.torch.save(tensors), {KEY: json.dumps(data)})
