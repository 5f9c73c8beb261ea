"""nnU-Net's trainers, by whether the network is the one that the plans describe.

A trainer is a class of Python, which is not run; only its name is in the weights file.
"""

from __future__ import annotations

import re

_PARTS = (
    *("Adam", "Adam1en3", "Adam3en4", "VanillaAdam", "VanillaAdam1en3", "VanillaAdam3en4"),
    *("Adan", "Adan1en3", "Adan3en4", "Adan1en1", "AdanCosAnneal", "CosAnneal"),
    *("BN", "NoDeepSupervision", "NoMirroring", "onlyMirror01", "NoDA", "noDummy2DDA"),
    *("DA5", "DA5ord0", "DA5Segord0", "DASegOrd0", "warmup", "BS8"),
    *("CELoss", "DiceLoss", "DiceCELoss_noSmooth", "Topk10Loss", "Topk10LossLS01"),
    *("DiceTopK10Loss", "probabilisticOversampling", "probabilisticOversampling_033"),
    *("probabilisticOversampling_010", "Benchmark_5epochs", "Benchmark_5epochs_noDataLoading"),
    r"\d+epochs?",
    r"\d+ep",
    r"\d+epochs?_NoMirroring",
)
_USUAL = re.compile(rf"nnUNet_?Trainer(_?({'|'.join(sorted(_PARTS, key=len, reverse=True))}))*")
_OTHER = re.compile(r"(?i)primus|swin|mamba|umamba|unetr|mednext|resunet")


def keeps_network(trainer: str) -> bool:
    """Whether a trainer is one of nnU-Net's that train the network of the plans.

    They change losses, augmentation, the schedule or the optimiser.
    """
    return bool(_USUAL.fullmatch(trainer))


def has_batch_norm(trainer: str) -> bool:
    """Whether the trainer puts batch normalisation in place of the plans'."""
    return bool(re.match(r"nnUNetTrainerBN(_|$)", trainer))


def changes_network(trainer: str) -> bool:
    """Whether a trainer is known to train another network, whatever the plans say."""
    return bool(_OTHER.search(trainer))
