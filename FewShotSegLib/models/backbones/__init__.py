"""Every architecture that a registry entry can name. A new one is a file here and a line below."""

from __future__ import annotations

from .base import Backbone
from .dynamic_unet import DynamicUNet
from .genesis_unet import GenesisUNet
from .obelisk_unet import ObeliskUNet
from .swin_unetr import SwinUNETRBackbone
from .vista3d import VISTA3DBackbone

ARCHITECTURES: dict[str, type[Backbone]] = {
    "DynamicUNet": DynamicUNet,
    "ObeliskUNet": ObeliskUNet,
    "SwinUNETR": SwinUNETRBackbone,
    "GenesisUNet": GenesisUNet,
    "VISTA3D": VISTA3DBackbone,
}
