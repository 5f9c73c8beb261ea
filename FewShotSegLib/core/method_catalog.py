"""Every method by name, what it leaves to choose and how long it trains by default; without torch.

The Slicer module and ``--help`` read it; ``methods`` has the methods themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

DECODERS = ("frozen", "tuned", "new")
PRESETS = ("own", "published")


@dataclass(frozen=True)
class Schedule:
    """How much is trained: fields of ``TrainingSettings``. ``crop_size`` is in model voxels."""

    epochs: int
    steps_per_epoch: int
    crops: int
    crop_size: int

    def step_voxels(self) -> int:
        """Model voxels of one step's crops."""
        return self.crops * self.crop_size**3

    def epoch_voxels(self, supports: int, preset: str) -> int:
        """Model voxels of one epoch's crops; in a published epoch every support is one step."""
        steps = supports if preset == "published" else self.steps_per_epoch
        return steps * self.step_voxels()


ON_FEATURES = Schedule(epochs=60, steps_per_epoch=4, crops=4, crop_size=32)
ON_IMAGES = Schedule(epochs=60, steps_per_epoch=5, crops=2, crop_size=64)
"""Some hundred steps: minutes on two cores. Larger crops show where in the body a voxel is."""
PUBLISHED = Schedule(epochs=200, steps_per_epoch=1, crops=6, crop_size=96)


@dataclass(frozen=True)
class Method:
    """What is known of a method before it is loaded.

    Attributes:
        decoders: what it can do with the decoder, its own choice first; empty where the whole
            backbone stays frozen and the method works on stored features.
        encoder: ``transformer`` or ``convolutional`` where it has a meaning on such encoders alone.
    """

    name: str
    decoders: tuple[str, ...] = ()
    encoder: str = ""

    @property
    def trains_backbone(self) -> bool:
        """Whether it is a white-box method."""
        return bool(self.decoders)

    def runs_on_images(self, preset: str) -> bool:
        """Whether the backbone runs on crops in every step, in place of stored features."""
        return self.trains_backbone or preset == "published"

    def suits(self, architecture: str) -> bool:
        """Whether it has a meaning on a network, by the name in its registry entry."""
        return not self.encoder or self.encoder == encoder_of(architecture)

    def schedule(self, preset: str) -> Schedule:
        """How much it trains where nobody says otherwise."""
        if preset == "published":
            return PUBLISHED
        return ON_IMAGES if self.trains_backbone else ON_FEATURES


METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        Method("adapter"),
        Method("linear-probe"),
        Method("adapter-1x1"),
        Method("ft", ("tuned", "new", "frozen")),
        Method("scratch", ("new",)),
        Method("ft-last", ("tuned",)),
        Method("bias", DECODERS),
        Method("affine", DECODERS),
        Method("lora", DECODERS),
        Method("adaptformer", DECODERS, "transformer"),
        Method("compacter", DECODERS, "transformer"),
        Method("cnn-adapter", DECODERS, "convolutional"),
    )
}
"""The recommended one first."""
WHITE_BOX = tuple(name for name, method in METHODS.items() if method.trains_backbone)


def encoder_of(architecture: str) -> str:
    """``transformer`` or ``convolutional``."""
    return "transformer" if architecture == "SwinUNETR" else "convolutional"
