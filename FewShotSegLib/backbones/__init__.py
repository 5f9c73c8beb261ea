"""Every architecture that a registry entry can name. A new one is a file here and a line below."""

from __future__ import annotations

from .base import Backbone
from .dynamic_unet import DynamicUNet
from .obelisk_unet import ObeliskUNet
from .swin_unetr import SwinUNETRBackbone

ARCHITECTURES: dict[str, type[Backbone]] = {
    "DynamicUNet": DynamicUNet,
    "ObeliskUNet": ObeliskUNet,
    "SwinUNETR": SwinUNETRBackbone,
}
