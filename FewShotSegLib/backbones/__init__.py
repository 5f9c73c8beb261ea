"""Every architecture that a registry entry can name. A new one is a file here and a line below."""

from __future__ import annotations

from .dynamic_unet import DynamicUNet

