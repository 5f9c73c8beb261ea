"""The one interface behind which every frozen foundation model stands."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import InputError, ModelError
from ...core.geometry import Stride, along_axes, three


class Backbone(nn.Module, ABC):
    """A frozen volumetric network that turns an image into features at several scales.

    This is theta_f of the paper; its published class head, theta_c, is only read for the weights
    that a known organ's adapter starts from.

    Attributes:
        channels: channels of each feature level, finest level first.
        strides: voxels of the model grid that one voxel of each level spans, finest level first:
            a number, or three where they differ by axis. Windows are a multiple of the largest.
    """

    channels: tuple[int, ...]
    strides: tuple[Stride, ...]

    @property
    def largest_stride(self) -> tuple[int, int, int]:
        """The largest stride along each axis."""
        return three(max(by_axis) for by_axis in zip(*map(along_axes, self.strides), strict=True))

    @abstractmethod
    def features(self, image: Tensor) -> list[Tensor]:
        """Features of a window, finest level first.

        Args:
            image: (B, 1, I, J, K), preprocessed; I, J and K are multiples of ``largest_stride``.

        Returns:
            one (B, channels[l], I / strides[l], J / strides[l], K / strides[l]) tensor a level,
            with the stride of each axis where they differ.
        """

    @abstractmethod
    def head_weights(self) -> tuple[Tensor, Tensor]:
        """The published class head: weights (K, channels[0]) and biases (K,) on the finest level.

        Its rows are in the order of the registry entry's classes.
        """

    def encoder_parts(self) -> list[nn.Module]:
        """The modules that take the image down to the coarsest skip connection.

        Raises:
            InputError: a backbone that does not name its parts can't be trained.
        """
        raise self._no_parts()

    def decoder_parts(self) -> list[nn.Module]:
        """All others before the class head, the bottleneck among them. Raises: as above."""
        raise self._no_parts()

    def last_parts(self) -> list[nn.Module]:
        """The decoder's modules that make the finest level. Raises: as above."""
        raise self._no_parts()

    def _no_parts(self) -> InputError:
        return InputError(
            f"The network {type(self).__name__} can't be trained itself. Choose a method that "
            "leaves it frozen, such as adapter."
        )

    def import_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load weights as their makers publish them, with every name accounted for.

        A backbone whose published names differ from its own translates them, then calls this.
        Only the batch counters of batch normalisation may be absent (files written before PyTorch
        0.4.1 have none, and a frozen network doesn't read them), and names of a tensor that is
        there under another name.

        Args:
            state: tensors by name, on any device.

        Raises:
            ModelError: names are missing, unknown, or of another shape; nothing was loaded.
        """
        if not isinstance(state, Mapping):
            raise ModelError("The weights file holds no state dict (tensors by name).")
        own = self.state_dict(keep_vars=True)
        state = _within(state, own)
        given = {id(own[name]) for name in state if name in own}
        missing = [
            name
            for name, tensor in own.items()
            if id(tensor) not in given and not name.endswith("num_batches_tracked")
        ]
        unknown = [str(name) for name in state if name not in own]
        reshaped = [
            name
            for name, tensor in own.items()
            if name in state and getattr(state[name], "shape", None) != tensor.shape
        ]
        faults = [
            f"{word}: {_some(names)}"
            for word, names in (
                ("missing", missing),
                ("not part of this architecture", unknown),
                ("of another shape", reshaped),
            )
            if names
        ]
        if faults:
            raise ModelError(
                f"These weights are not of the architecture {type(self).__name__}. "
                f"Tensors {'; '.join(faults)}. Check the entry's architecture and weights file."
            )
        self.load_state_dict(state, strict=False)


def _within(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Tensors of a network that a backbone holds as ``net``, where a file has them without that.

    The prefixes of data-parallel training and of compiled networks go with it.
    """
    if any(name in own for name in state):
        return state
    inner = {}
    for name, tensor in state.items():
        short = str(name)
        while short.startswith(("module.", "_orig_mod.")):
            short = short.split(".", 1)[1]
        inner[f"net.{short}"] = tensor
    return inner if any(name in own for name in inner) and len(inner) == len(state) else state


def with_margin(
    features: Callable[[Tensor], list[Tensor]], image: Tensor, stride: Stride
) -> list[Tensor]:
    """Features of a window (B, 1, I, J, K) that may span a single voxel of the coarsest level.

    Instance normalisation has nothing to go by there: such a window is made twice as long by
    repeating its border, and the features are cut back.

    Args:
        features: gives those of a larger window. stride: of the coarsest level.
    """
    strides = along_axes(stride)
    if any(n > s for n, s in zip(image.shape[2:], strides, strict=True)):
        return features(image)
    twice = F.pad(image, (0, 0, 0, 0, 0, strides[0]), mode="replicate")
    return [level[:, :, : level.shape[2] // 2] for level in features(twice)]


def _some(names: Sequence[str], limit: int = 8) -> str:
    """Names for a message, which stays readable where all of a network's are wrong."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
