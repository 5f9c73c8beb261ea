"""Models as MONAI's own code saves them: an Auto3DSeg ``model.pt`` and a bundle, tiny."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from backbone_interface import random_weights
from monai.bundle import ConfigParser
from torch import nn

from FewShotSegLib.core.geometry import Grid, Volume

AUTO3DSEG: dict[str, Any] = {
    "bundle_root": "/work_dir/segresnet_0",
    "modality": "ct",
    "input_channels": 1,
    "output_classes": 3,
    "class_names": ["background", "left kidney", "liver"],
    "roi_size": [32, 32, 32],
    "sigmoid": False,
    "orientation_ras": True,
    "crop_foreground": True,
    "resample": True,
    "resample_resolution": [1.5, 1.5, 2.0],
    "normalize_mode": "ct",
    "intensity_bounds": [-120.0, 240.0],
    "extra_modalities": {},
    "custom_transforms": {},
    "learning_rate": np.float64(0.0002),
    "network": {
        "_target_": "SegResNetDS",
        "init_filters": 8,
        "blocks_down": [1, 2, 2],
        "norm": "INSTANCE_NVFUSER",
        "in_channels": "@input_channels",
        "out_channels": "@output_classes",
        "dsdepth": 2,
    },
}
"""The fields that MONAI's template writes, as far as anybody reads them."""

INFERENCE: dict[str, Any] = {
    "imports": ["$import glob"],
    "image_key": "image",
    "highres": True,
    "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
    "network_def": {
        "_target_": "UNet",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 3,
        "channels": [4, 8, 16],
        "strides": [2, 2],
        "num_res_units": 2,
        "norm": "batch",
    },
    "network": "$@network_def.to(@device)",
    "pixdim": "$[1.5, 1.5, 2.0] if @highres else [3.0, 3.0, 3.0]",
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", "keys": "@image_key"},
            {"_target_": "EnsureChannelFirstd", "keys": "@image_key"},
            {"_target_": "Orientationd", "keys": "@image_key", "axcodes": "RAS"},
            {
                "_target_": "Spacingd",
                "keys": "@image_key",
                "pixdim": "@pixdim",
                "mode": "bilinear",
            },
            {
                "_target_": "ScaleIntensityRanged",
                "keys": "@image_key",
                "a_min": -57,
                "a_max": 164,
                "b_min": 0,
                "b_max": 1,
                "clip": True,
            },
            {"_target_": "EnsureTyped", "keys": "@image_key"},
        ],
    },
    "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [32, 32, 32], "overlap": 0.5},
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [{"_target_": "Activationsd", "keys": "pred", "softmax": True}],
    },
}
METADATA: dict[str, Any] = {
    "version": "0.5.3",
    "monai_version": "1.4.0",
    "name": "Spleen and liver",
    "description": "A tiny network.",
    "network_data_format": {
        "inputs": {"image": {"type": "image", "modality": "CT", "num_channels": 1}},
        "outputs": {"pred": {"channel_def": {"0": "background", "1": "spleen", "2": "liver"}}},
    },
}


def auto3dseg(folder: Path, changes: dict[str, Any] | None = None, **saved: Any) -> nn.Module:
    """Write ``model.pt`` as the template does, and give the network that it is of."""
    config = {**AUTO3DSEG, **(changes or {})}
    torch.manual_seed(5)
    network = random_weights(ConfigParser(config).get_parsed_content("network"))
    folder.mkdir(parents=True, exist_ok=True)
    data = {"state_dict": network.state_dict(), "config": config, "epoch": 3}
    torch.save({**data, "best_metric": np.float64(0.7), **saved}, folder / "model.pt")
    return network


def bundle(
    folder: Path, inference: dict[str, Any] | None = None, metadata: dict[str, Any] | None = None
) -> nn.Module:
    """Write a bundle's folder, and give the network that it is of."""
    config = {**INFERENCE, **(inference or {})}
    torch.manual_seed(6)
    network = random_weights(ConfigParser(config).get_parsed_content("network_def"))
    for name in ("configs", "models"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    write_json(folder / "configs" / "inference.json", config)
    write_json(folder / "configs" / "metadata.json", {**METADATA, **(metadata or {})})
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    return network


def write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data), encoding="utf-8")


def patient(spacing: tuple[float, float, float] = (1.13, 1.31, 1.6)) -> Volume:
    """A volume whose axes grow to the left and to the back, with a body in air."""
    shape = (40, 38, 30)
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[:3, 3] = (30, 20, -10)
    array = np.full(shape, -300, np.float32)
    inner = np.random.default_rng(8).normal(60, 80, (30, 28, 24))
    array[5:35, 4:32, 3:27] = inner
    return Volume(array, Grid.from_affine(shape, affine))
