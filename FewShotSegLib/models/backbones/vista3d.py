"""VISTA3D's image encoder and automatic branch as a backbone.

Y. He et al., "VISTA3D: a unified segmentation foundation model for 3D medical imaging", CVPR 2025;
network and names are MONAI's ``vista3d132`` (``SegResNetDS2`` with 48 filters and five levels).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.networks.nets import SegResNetDS2
from monai.networks.nets.vista3d import ClassMappingClassify
from torch import Tensor, nn

from .base import Backbone, with_margin
from .layouts import without_prefixes

POINT = ("image_encoder.up_layers.", "point_head.")
"""The branch for clicks, which files hold and this backbone has no use for."""


class VISTA3DBackbone(Backbone):
    """A residual U-Net with instance normalisation; classes are scored on its finest level.

    VISTA3D scores a class by the product of its embedding with mapped features, so that a linear
    head over these starts exactly as its own automatic segmentation.

    Feature levels, finest first: the mapped features, the coarser decoder blocks, the bottleneck.

    Args:
        width: channels of the finest level.
        blocks: residual blocks of each encoder level.
        classes: embeddings; a class's row in the entry is its number in VISTA3D.
    """

    def __init__(
        self, width: int = 48, blocks: Sequence[int] = (1, 2, 2, 4, 4), classes: int = 512
    ) -> None:
        super().__init__()
        self.image_encoder = SegResNetDS2(
            in_channels=1,
            blocks_down=tuple(blocks),
            norm="instance",
            out_channels=width,
            init_filters=width,
            dsdepth=1,
        )
        self.image_encoder.up_layers = nn.ModuleList()
        self.class_head = ClassMappingClassify(n_classes=classes, feature_size=width, use_mlp=True)
        depth = len(blocks)
        self.channels = tuple(width * 2**level for level in range(depth))
        self.strides = tuple(2**level for level in range(depth))

    def features(self, image: Tensor) -> list[Tensor]:
        """See :meth:`Backbone.features`; the last level is the bottleneck."""
        return with_margin(self._features, image, self.strides[-1])

    def _features(self, image: Tensor) -> list[Tensor]:
        skips = self.image_encoder.encoder(image)
        levels = [skips.pop()]
        up_layers: Any = self.image_encoder.up_layers_auto
        for level in up_layers:
            x = level["blocks"](level["upsample"](levels[0]) + skips.pop())
            levels.insert(0, x)
        levels[0] = self.class_head.image_post_mapping(self._last()["head"](levels[0]))
        return levels

    def _last(self) -> nn.ModuleDict:
        up_layers: Any = self.image_encoder.up_layers_auto
        return up_layers[-1]

    def encoder_parts(self) -> list[nn.Module]:
        """See :meth:`Backbone.encoder_parts`."""
        encoder = self.image_encoder.encoder
        return [encoder.conv_init, *encoder.layers[:-1]]

    def decoder_parts(self) -> list[nn.Module]:
        """See :meth:`Backbone.decoder_parts`."""
        bottleneck = self.image_encoder.encoder.layers[-1]
        ups = self.image_encoder.up_layers_auto
        return [bottleneck, *ups, self.class_head.image_post_mapping]

    def last_parts(self) -> list[nn.Module]:
        """See :meth:`Backbone.last_parts`."""
        return [self._last(), self.class_head.image_post_mapping]

    @property
    def head(self) -> nn.Module:
        """What makes weights of the classes' embeddings."""
        return nn.ModuleList([self.class_head.mlp, self.class_head.class_embeddings])

    def head_weights(self) -> tuple[Tensor, Tensor]:
        """See :meth:`Backbone.head_weights`: mapped embeddings, without biases."""
        with torch.no_grad():
            weights = self.class_head.mlp(self.class_head.class_embeddings.weight[:, None])[:, 0]
        return weights, weights.new_zeros(len(weights))

    def import_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load weights as published; the branch for clicks is left out.

        Raises:
            ModelError: see :meth:`Backbone.import_state_dict`; nothing was loaded.
        """
        if isinstance(state, Mapping):
            named = {without_prefixes(str(key)): value for key, value in state.items()}
            state = {key: value for key, value in named.items() if not key.startswith(POINT)}
        super().import_state_dict(state)
