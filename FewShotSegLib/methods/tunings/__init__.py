"""Every white-box method by the name that ``--method`` takes. A new one is a file and a line."""

from __future__ import annotations

from .adaptformer import AdaptFormer
from .affine import AffineTuning
from .base import Tuning
from .bias import BiasTuning
from .cnn_adapter import ConvolutionAdapter
from .compacter import Compacter
from .full import FullTuning, Scratch
from .last import LastTuning
from .lora import LoRA

TUNINGS: dict[str, type[Tuning]] = {
    tuning.name: tuning
    for tuning in (
        FullTuning,
        Scratch,
        LastTuning,
        BiasTuning,
        AffineTuning,
        LoRA,
        AdaptFormer,
        Compacter,
        ConvolutionAdapter,
    )
}
