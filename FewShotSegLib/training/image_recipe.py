"""Training on crops of the images themselves: for methods that change the backbone.

A preprocessed image takes the place of a volume's features: it is what a backbone that does
nothing would give, one level of stride 1. So supports, crops and targets are those of adapters.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..compute.interruption import stoppable
from ..compute.precision import at_speed
from ..core.geometry import Volume
from ..core.settings import TrainingSettings
from ..features.extraction import feature_key
from ..features.store import VolumeFeatures
from ..inference.tiles import Box
from ..methods.tuned_model import TunedNetwork
from ..models.preprocessing import Preprocessing
from ..models.registry import Model
from .augmentation import bend, disturb
from .learner import ScheduledLearner
from .losses import cross_entropy_loss, soft_dice_loss
from .run import Run
from .sampling import draw_crops
from .support_set import PreparedSupport

STANDARDISED_STEPS = 4
"""Steps' crops that the first feature statistics are measured on."""


class ImageSource:
    """Gives the image of any volume on the model grid where its features would be.

    Attributes:
        model, preprocessing: what the image is prepared for.
    """

    def __init__(self, model: Model, preprocessing: Preprocessing) -> None:
        self.model, self.preprocessing = model, preprocessing

    def __call__(self, volume: Volume, subject: str = "") -> VolumeFeatures:
        """The image (1, i, j, k), float32, as the only feature level."""
        image, placement = self.preprocessing(volume)
        key = "image-" + feature_key(volume, self.model, self.preprocessing)
        return VolumeFeatures((image[0].numpy(),), (1.0,), (1,), placement.shape, key)


class ImageLearner(ScheduledLearner):
    """A backbone and its head, on lightly augmented crops of the images.

    Args:
        network: what is trained. supports: with the image in place of features, of
            :class:`ImageSource`. settings: of the training.
        preprocessing: of the images.

    Attributes:
        precise: single precision even where half is faster.
    """

    precise = False
    network: TunedNetwork

    def __init__(
        self,
        network: TunedNetwork,
        supports: Sequence[PreparedSupport],
        settings: TrainingSettings,
        preprocessing: Preprocessing,
    ) -> None:
        super().__init__(network, supports, settings)
        self.spacing = preprocessing.spacing
        self.normalised = preprocessing.in_unit_interval

    def losses(self, rng: np.random.Generator, run: Run) -> tuple[Tensor, Tensor]:
        """See :meth:`.learner.Learner.losses`."""
        device, drawn = run.device, self.draw(rng)
        crops = [self._changed(rng, support, box) for support, box in drawn]
        images = self.batch([image for image, _, _ in crops]).to(device)
        run.check()
        with nullcontext() if self.precise else at_speed(device):
            scores = self.network.scores(images.contiguous(memory_format=torch.channels_last_3d))
        within = [
            score[(slice(None), *(slice(0, n) for n in image.shape))]
            for score, (image, _, _) in zip(scores, crops, strict=True)
        ]
        targets = [target.to(device) for _, target, _ in crops]
        masks = [support.annotated.to(device) for support, _ in drawn]
        known = [None if seen is None else seen.to(device) for _, _, seen in crops]
        return self.combine(within, targets, masks, known)

    def _changed(
        self, rng: np.random.Generator, support: PreparedSupport, box: Box
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """An image (i, j, k), its targets (K, i, j, k), and 1 where they are known (i, j, k)."""
        image, target = crop_of(support, box)
        if support.known is None:
            return *self.augment(rng, image, target), None
        known = support.known[box].float()
        # What is known is moved along with the targets, which then are of what is known alone.
        image, both = self.augment(rng, image, torch.cat([target * known, known[None]]))
        part = both[-1]
        seen = (part >= 0.5).float()
        return image, (both[:-1] / part.clamp(min=0.5)).clamp(0, 1) * seen, seen

    def draw(self, rng: np.random.Generator) -> list[tuple[PreparedSupport, Box]]:
        """The crops of a step."""
        return draw_crops(rng, self.supports, self.settings.crops, self.settings.crop_size)

    def augment(
        self, rng: np.random.Generator, image: Tensor, target: Tensor
    ) -> tuple[Tensor, Tensor]:
        """An image (i, j, k) and its targets (K, i, j, k), changed at random."""
        image, target = bend(rng, image, target, self.spacing)
        return disturb(rng, image, self.normalised), target

    def combine(
        self,
        scores: Sequence[Tensor],
        targets: Sequence[Tensor],
        masks: Sequence[Tensor],
        known: Sequence[Tensor | None] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Soft Dice and cross-entropy of a step's crops."""
        return (
            soft_dice_loss(scores, targets, masks, known=known),
            cross_entropy_loss(scores, targets, masks, known),
        )

    def batch(self, images: Sequence[Tensor]) -> Tensor:
        """Images (i, j, k) as one batch (B, 1, I, J, K), padded at their ends as for features: to
        multiples of the backbone's largest stride."""
        largest = np.max([image.shape for image in images], axis=0)
        strides = self.network.backbone.largest_stride
        size = [int(-(-n // s) * s) for n, s in zip(largest, strides, strict=True)]
        return torch.cat(
            [
                F.pad(
                    image[None, None],
                    [n for a in (2, 1, 0) for n in (0, size[a] - image.shape[a])],
                    mode="replicate",
                )
                for image in images
            ]
        )

    def begin(self, run: Run) -> None:
        """Move the network to where it is trained, and measure its first features on some crops."""
        rng = np.random.default_rng([run.seed, 2**31])
        self.network.to(run.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        crops = [
            self.batch([crop_of(*place)[0] for place in self.draw(rng)])
            for _ in range(STANDARDISED_STEPS)
        ]
        with stoppable(self.network, run.check):
            self.network.standardise([images.to(run.device) for images in crops])


def crop_of(support: PreparedSupport, box: Box) -> tuple[Tensor, Tensor]:
    """The image (i, j, k) and the targets (K, i, j, k) in [0, 1] of a box, float32."""
    image = torch.from_numpy(np.array(support.features.levels[0][(0, *box)], np.float32))
    return image, support.targets[(slice(None), *box)].float() / 255
