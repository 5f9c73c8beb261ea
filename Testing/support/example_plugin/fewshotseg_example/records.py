"""What FewShotSeg knows of this package before it runs anything: one record each, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from FewShotSegLib.core.architecture_catalog import ArchitectureRecord, NetworkCost
from FewShotSegLib.core.json_schema import Check
from FewShotSegLib.core.method_catalog import MethodRecord

LOCAL_MEAN = MethodRecord(
    name="local-mean",
    title="Local mean",
    explanation="A linear classifier on the model's features and their mean around each voxel.",
    implementation="fewshotseg_example.local_mean:LocalMean",
)


@dataclass(frozen=True)
class BoxPyramidArguments:
    """What a model's entry may say in ``architecture``; each value is checked when it is read."""

    width: Annotated[int, Check("a number of channels from 1 to 64", lambda n: 1 <= n <= 64)] = 4
    levels: Annotated[int, Check("a number of levels from 1 to 5", lambda n: 1 <= n <= 5)] = 3
    rows: Annotated[int, Check("a number of classes from 1 to 100", lambda n: 1 <= n <= 100)] = 1


BOX_PYRAMID = ArchitectureRecord(
    name="BoxPyramid",
    explanation="one convolution on the image, at full, half and quarter resolution",
    options="optional `width` (4), `levels` (3) and `rows` of the head (1)",
    implementation="fewshotseg_example.box_pyramid:BoxPyramid",
    encoder="convolutional",
    arguments=BoxPyramidArguments,
    cost=NetworkCost(time=0.1, run_bytes=40, train_bytes=120, channels=4),
    sized_by=("width", "levels"),
    models="fewshotseg_example:models",
)
