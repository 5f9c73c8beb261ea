"""A tiny model in the layout that nnU-Net v2 leaves, for tests that change one thing of it.

That the layout is genuine, ``nnunet_proof.py`` shows on files that nnU-Net wrote.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from FewShotSegLib.models.backbones.nnunet import NNUNet

TRAINED = "nnUNetTrainer__nnUNetPlans__3d_fullres"
LEVELS = [
    {"channels": 4, "convolutions": 2, "kernel": [1, 3, 3], "stride": [1, 1, 1]},
    {"channels": 8, "convolutions": 1, "kernel": [3, 3, 3], "stride": [1, 2, 2]},
    {"channels": 16, "convolutions": 2, "kernel": [3, 3, 3], "stride": [2, 2, 2]},
]
RESAMPLING = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}


def network(rows: int = 3, kind: str = "plain", seed: int = 0) -> NNUNet:
    """The network of the plans, with random weights."""
    torch.manual_seed(seed)
    return NNUNet(kind, LEVELS, [2, 1], out_channels=rows).eval().requires_grad_(False)


def plans(name: str = "PlainConvUNet") -> dict[str, Any]:
    """As ``plans.json``, of one configuration."""
    counts = "n_conv_per_stage" if name == "PlainConvUNet" else "n_blocks_per_stage"
    arguments = {
        "n_stages": 3,
        "features_per_stage": [4, 8, 16],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [level["kernel"] for level in LEVELS],
        "strides": [level["stride"] for level in LEVELS],
        counts: [2, 1, 2],
        "n_conv_per_stage_decoder": [2, 1],
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    full = {
        "preprocessor_name": "DefaultPreprocessor",
        "patch_size": [8, 16, 16],
        "spacing": [3.0, 1.5, 1.5],
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": dict(RESAMPLING),
        "architecture": {
            "network_class_name": f"dynamic_network_architectures.architectures.unet.{name}",
            "arch_kwargs": arguments,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    return {
        "dataset_name": "Dataset007_Tiny",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "NibabelIOWithReorient",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": full},
        "foreground_intensity_properties_per_channel": {
            "0": {"mean": 90.5, "std": 20.25, "percentile_00_5": -60.0, "percentile_99_5": 240.0}
        },
    }


def old_plans(name: str = "PlainConvUNet") -> dict[str, Any]:
    """The same as nnU-Net before 2.5 wrote it."""
    data = plans(name)
    full = data["configurations"]["3d_fullres"]
    arguments = full.pop("architecture")["arch_kwargs"]
    full |= {
        "UNet_class_name": name,
        "UNet_base_num_features": 4,
        "unet_max_num_features": 16,
        "n_conv_per_stage_encoder": [2, 1, 2],
        "n_conv_per_stage_decoder": [2, 1],
        "num_pool_per_axis": [1, 2, 2],
        "pool_op_kernel_sizes": arguments["strides"],
        "conv_kernel_sizes": arguments["kernel_sizes"],
    }
    return data


def dataset(**changes: Any) -> dict[str, Any]:
    """As ``dataset.json``."""
    labels = {"background": 0, "liver": 1, "left kidney": 2}
    about = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": 3}
    return about | {"file_ending": ".nii.gz", **changes}


def published_names(state: Mapping[str, Tensor], heads: int = 2) -> OrderedDict[str, Tensor]:
    """Under every name that nnU-Net's own files have, with the heads of deep supervision."""
    result: OrderedDict[str, Tensor] = OrderedDict()
    for name, tensor in state.items():
        result[name] = tensor
        listed = name.replace(".conv.", ".all_modules.0.").replace(".norm.", ".all_modules.1.")
        result[listed] = tensor
    for name, tensor in list(result.items()):
        if name.startswith("encoder."):
            result[f"decoder.{name}"] = tensor
    for name in ("weight", "bias"):
        final = state[f"decoder.seg_layers.{heads - 1}.{name}"]
        for number in range(heads - 1):
            result[f"decoder.seg_layers.{number}.{name}"] = torch.zeros_like(final)
    return result


def checkpoint(state: Mapping[str, Tensor], **changes: Any) -> dict[str, Any]:
    """As ``checkpoint_final.pth``."""
    return {
        "network_weights": published_names(state),
        "optimizer_state": {"state": {}, "param_groups": [{"lr": 0.01, "params": [0, 1]}]},
        "grad_scaler_state": None,
        "logging": {"mean_fg_dice": [np.float32(0.5)], "lrs": [0.01]},
        "_best_ema": np.float64(0.5),
        "current_epoch": 1,
        "init_args": {"configuration": "3d_fullres", "fold": 0, "device": torch.device("cpu")},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1, 2),
        **changes,
    }


def write(
    folder: Path,
    plan: Any = None,
    data: Any = None,
    weights: Any = None,
    place: str = "fold_0/checkpoint_final.pth",
) -> Path:
    """The files; returns the trainer's folder."""
    trained = folder / "Dataset007_Tiny" / TRAINED
    file = trained / place
    file.parent.mkdir(parents=True, exist_ok=True)
    texts = {
        "plans.json": plans() if plan is None else plan,
        "dataset.json": dataset() if data is None else data,
    }
    for name, value in texts.items():
        (trained / name).write_text(value if isinstance(value, str) else json.dumps(value))
    torch.save(checkpoint(network().state_dict()) if weights is None else weights, file)
    return trained
