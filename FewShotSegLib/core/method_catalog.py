"""Every method as one record, without torch: the one place where a method is registered.

The command's ``--method``, the panel's list with its explanations and estimates, the registers of
classes in ``methods``, the default and the published settings, and the table in the documentation
all come from here. A package of its own adds one through the entry points ``fewshotseg.methods``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .architecture_catalog import ENCODERS, encoder_of
from .errors import InputError
from .json_fields import shown
from .register import Register, require_target

DECODERS = ("frozen", "tuned", "new")
PRESETS = ("own", "published")
EFFORTS = ("quick", "default", "best")
COMPANION_METHOD = "scratch"
"""How the second network of the best effort is trained."""
GROUP = "fewshotseg.methods"


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


@dataclass(frozen=True, kw_only=True)
class MethodRecord:
    """All that is known of a method before its class is loaded.

    Attributes:
        name: as ``--method`` takes it: lower-case letters, digits and hyphens.
        title: its name on the panel. explanation: what it trains, one plain sentence.
        details: the same for the documentation's table; by default the explanation.
        implementation: its class, as ``"package.module:Class"``: an ``Adapter`` where the backbone
            stays frozen, else a ``Tuning``.
        decoders: what it can do with the decoder, its own choice first; empty where the whole
            backbone stays frozen and the method works on stored features.
        encoder: ``transformer`` or ``convolutional`` where it has a meaning on such encoders alone.
        own_schedule: how much it trains where nobody says otherwise; None is the usual for a
            frozen, or for a trained, backbone.
        published_rate: the learning rate of the authors' code; None where that has no such method,
            which ``--preset published`` then refuses.
        cost: time of a step, to that of ``adapter`` or, where it trains the backbone, of ``ft``.

    Raises:
        InputError: a value is out of range.
    """

    name: str
    title: str
    explanation: str
    implementation: str
    details: str = ""
    decoders: tuple[str, ...] = ()
    encoder: str = ""
    own_schedule: Schedule | None = None
    published_rate: float | None = None
    cost: float = 1.0

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.name):
            raise InputError(
                f"a method's name has lower-case letters, digits and hyphens, unlike "
                f"{shown(self.name)}"
            )
        if not self.title.strip() or not self.explanation.strip():
            raise InputError(f"the method {shown(self.name)} lacks a title or an explanation")
        require_target(self.implementation, f"'implementation' of {shown(self.name)}")
        if not set(self.decoders) <= set(DECODERS):
            raise InputError(f"'decoders' of {shown(self.name)} are among {', '.join(DECODERS)}")
        if self.encoder not in ("", *ENCODERS):
            raise InputError(f"'encoder' of {shown(self.name)} is one of {', '.join(ENCODERS)}")
        if not self.cost > 0:
            raise InputError(f"'cost' of {shown(self.name)} is a number above 0")

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
        return self.own_schedule or (ON_IMAGES if self.trains_backbone else ON_FEATURES)


_ADAPTERS, _TUNINGS = "FewShotSegLib.methods.adapters", "FewShotSegLib.methods.tunings"

METHODS: Register[MethodRecord] = Register(
    GROUP,
    MethodRecord,
    "method",
    (
        MethodRecord(
            name="adapter",
            title="Adapter 3x3x3",
            explanation="Small convolutions and a classifier on the model's features.",
            details="residual 3x3x3 convolutions on the finest levels, a linear classifier on "
            "every level",
            implementation=f"{_ADAPTERS}.spatial:SpatialAdapter",
            published_rate=1e-4,
        ),
        MethodRecord(
            name="linear-probe",
            title="Linear probe",
            explanation="A linear classifier on the model's features; fastest, and weaker.",
            details="the linear classifiers",
            implementation=f"{_ADAPTERS}.linear_probe:LinearProbe",
            published_rate=1e-2,
        ),
        MethodRecord(
            name="adapter-1x1",
            title="Adapter 1x1x1",
            explanation="As the adapter, without a look at neighbouring voxels.",
            details="as `adapter`, with 1x1x1 convolutions",
            implementation=f"{_ADAPTERS}.spatial:PointwiseAdapter",
            published_rate=1e-4,
        ),
        MethodRecord(
            name="ft",
            title="FT: full fine-tuning",
            explanation="The whole model, from its pre-trained parameters, and a new classifier.",
            details="everything: the paper's FT",
            implementation=f"{_TUNINGS}.full:FullTuning",
            decoders=("tuned", "new", "frozen"),
            published_rate=1e-4,
        ),
        MethodRecord(
            name="scratch",
            title="Scratch",
            explanation="The whole network from random parameters: what your volumes alone teach.",
            details="everything, from random weights",
            implementation=f"{_TUNINGS}.full:Scratch",
            decoders=("new",),
            published_rate=1e-4,
        ),
        MethodRecord(
            name="ft-last",
            title="FT-last",
            explanation="The last block of the decoder, and a new classifier.",
            details="the decoder's last block",
            implementation=f"{_TUNINGS}.last:LastTuning",
            decoders=("tuned",),
            published_rate=1e-4,
        ),
        MethodRecord(
            name="bias",
            title="Bias",
            explanation="The encoder's additive parameters, and a new classifier.",
            details="the encoder's biases, those of layer normalisations excepted (BitFit)",
            implementation=f"{_TUNINGS}.bias:BiasTuning",
            decoders=DECODERS,
            published_rate=1e-2,
        ),
        MethodRecord(
            name="affine",
            title="Affine",
            explanation="Scales and shifts of the encoder's normalisations, and a new classifier.",
            details="scales and shifts of the encoder's normalisations",
            implementation=f"{_TUNINGS}.affine:AffineTuning",
            decoders=DECODERS,
            published_rate=1e-2,
        ),
        MethodRecord(
            name="lora",
            title="LoRA",
            explanation="A low-rank change of the encoder's weights, and a new classifier.",
            details="a rank-4 update of every query, key and value; of every convolution where "
            "there is no attention",
            implementation=f"{_TUNINGS}.lora:LoRA",
            decoders=DECODERS,
            published_rate=1e-3,
        ),
        MethodRecord(
            name="adaptformer",
            title="AdaptFormer",
            explanation="Bottlenecks beside the encoder's MLPs, and a new classifier.",
            details="a bottleneck of width 16 beside every MLP, scaled by 0.1",
            implementation=f"{_TUNINGS}.adaptformer:AdaptFormer",
            decoders=DECODERS,
            encoder="transformer",
            published_rate=1e-2,
        ),
        MethodRecord(
            name="compacter",
            title="Compacter",
            explanation="Small layers after the encoder's sub-layers, and a new classifier.",
            details="a layer of Kronecker products after every attention and MLP, and the "
            "normalisations",
            implementation=f"{_TUNINGS}.compacter:Compacter",
            decoders=DECODERS,
            encoder="transformer",
            published_rate=1e-2,
        ),
        MethodRecord(
            name="cnn-adapter",
            title="CNN adapter",
            explanation="1x1x1 convolutions beside the encoder's own, and a new classifier.",
            details="a 1x1x1 convolution beside every larger one of the encoder",
            implementation=f"{_TUNINGS}.cnn_adapter:ConvolutionAdapter",
            decoders=DECODERS,
            encoder="convolutional",
            published_rate=1e-2,
        ),
    ),
)
"""The recommended one first."""
DEFAULT_METHOD = next(iter(METHODS.own))


def white_box_methods() -> tuple[str, ...]:
    """The names of the methods that train (part of) the backbone."""
    return tuple(name for name, method in METHODS.items() if method.trains_backbone)


def method_named(name: str) -> MethodRecord:
    """The record of a method.

    Raises:
        InputError: there is none. The message lists those that there are.
    """
    if name not in METHODS:
        raise InputError(f"There is no method '{name}'. Known: {', '.join(METHODS)}.")
    return METHODS[name]
