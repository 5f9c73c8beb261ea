"""Every adapter by the name that ``--method`` takes. A new one is a file here and a line below."""

from __future__ import annotations

from .base import Adapter
from .linear_probe import LinearProbe
from .spatial import PointwiseAdapter, SpatialAdapter

ADAPTERS: dict[str, type[Adapter]] = {
    "linear-probe": LinearProbe,
    "adapter": SpatialAdapter,
    "adapter-1x1": PointwiseAdapter,
}
DEFAULT_METHOD = "adapter"
HEAD = LinearProbe
"""What a white-box method puts on the backbone that it trains."""
