"""The module's state in the scene: what a saved scene brings back."""

from __future__ import annotations

from typing import Annotated

from slicer import vtkMRMLScalarVolumeNode
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper

from FewShotSegLib.core.method_catalog import DECODERS, EFFORTS, METHODS, PRESETS
from FewShotSegLib.core.sparse import AUTO, PLANES


@parameterNodeWrapper
class FewShotSegParameterNode:
    """Every choice of the panel that belongs to the scene.

    Supports, structures and results are rows with identities of their own: ``state`` holds them as
    JSON (``scene_state``), and the nodes they speak of are node references of this node.
    ``decoder`` "auto", ``epochs`` 0 and ``learningRate`` 0 are the method's own.
    ``drawnPlane`` counts where ``onlyDrawnSlices`` is set.
    """

    queryVolume: vtkMRMLScalarVolumeNode
    adapterId: str = ""
    method: Annotated[str, Choice(list(METHODS))] = "adapter"
    decoder: Annotated[str, Choice(["auto", *DECODERS])] = "auto"
    preset: Annotated[str, Choice(list(PRESETS))] = "own"
    features: Annotated[str, Choice(["multi", "last"])] = "multi"
    modality: Annotated[str, Choice(["auto", "CT", "MR"])] = "auto"
    effort: Annotated[str, Choice(list(EFFORTS))] = "default"
    epochs: Annotated[int, WithinRange(0, 2000)] = 0
    learningRate: Annotated[float, WithinRange(0.0, 1.0)] = 0.0
    seed: Annotated[int, WithinRange(0, 2147483647)] = 0
    transductive: bool = True
    overlapAllowed: bool = False
    onlyDrawnSlices: bool = False
    drawnPlane: Annotated[str, Choice([AUTO, *PLANES])] = AUTO
    uncertainty: bool = True
    largestComponent: bool = False
    state: str = ""
