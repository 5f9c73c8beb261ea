"""The colours of structures whose file says none."""

from __future__ import annotations

import colorsys

_PALETTE = (
    0xE6194B, 0x3CB44B, 0xFFE119, 0x4363D8, 0xF58231, 0x911EB4, 0x42D4F4, 0xF032E6, 0xBFEF45,
    0xFABED4, 0x469990, 0xDCBEFF, 0x9A6324, 0xFFFAC8, 0x800000, 0xAAFFC3, 0x808000, 0xFFD8B1,
    0x000075, 0xA9A9A9,
)  # fmt: skip
_GOLDEN_RATIO = 0.6180339887498949


def default_color(value: int) -> tuple[float, float, float]:
    """Red, green, blue in 0..1 for a label value: distinct for neighbours, always the same."""
    if 1 <= value <= len(_PALETTE):
        code = _PALETTE[value - 1]
        return (code >> 16) / 255, (code >> 8 & 255) / 255, (code & 255) / 255
    # Steps of the golden ratio keep hues apart however many there are.
    hue = value * _GOLDEN_RATIO % 1
    return colorsys.hsv_to_rgb(hue, 0.55 + 0.2 * (value % 3), 0.95 - 0.2 * (value // 3 % 2))
