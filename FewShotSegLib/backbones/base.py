"""The one interface behind which every frozen foundation model stands."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Backbone(nn.Module, ABC):
    """A frozen volumetric network that turns an image into features at several scales.

    This is theta_f of the paper; its published class head, theta_c, is only read for the weights
    that a known organ's adapter starts from.

    Attributes:
        channels: channels of each feature level, finest level first.
        strides: voxels of the model grid that one voxel of each level spans, finest level first.
            Windows are a multiple of the largest stride.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    @abstractmethod
    def features(self, image: Tensor) -> list[Tensor]:
        """Features of a window, finest level first.

        Args:
            image: (B, 1, I, J, K), preprocessed; I, J and K are multiples of ``max(strides)``.

        Returns:
            one (B, channels[l], I / strides[l], J / strides[l], K / strides[l]) tensor a level.
        """

    @abstractmethod
    def head_weights(self) -> tuple[Tensor, Tensor]:
        """The published class head: weights (K, channels[0]) and biases (K,) on the finest level.

        Its rows are in the order of the registry entry's classes.
        """
