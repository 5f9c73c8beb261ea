"""What every part of the logic works on: one scene's rows and choices, and this computer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..interface.rows import Changed, Notice
from ..machine.models import DeviceShelf, ModelShelf
from .adapters import AdapterShelf
from .parameter_node import FewShotSegParameterNode
from .segment_sizes import SegmentSizes
from .state import SceneState
from .supports import likely_modality


class Session:
    """The scene and this computer, for whoever asks; only what a person does writes to either.

    Attributes:
        tell: hears every notice, or a line of the log as text.
        models, devices: of this computer. adapters: of the scene. sizes: of its segments.

    Args:
        find_node: the scene's parameter node, made where there is none.
    """

    def __init__(self, find_node: Callable[[], Any], tell: Callable[[Notice | str], None]) -> None:
        self.tell = tell
        self.models, self.devices = ModelShelf(), DeviceShelf()
        self.sizes = SegmentSizes(lambda: tell(Changed("structures")))
        self._find_node = find_node
        self.renew()

    def renew(self) -> None:
        """The scene is another, or was emptied: its node gets what it lacks, once and for all."""
        self.adapters = AdapterShelf()
        self.models.new_scene()
        self._parameters = FewShotSegParameterNode(self._find_node())

    @property
    def parameters(self) -> FewShotSegParameterNode:
        """Every choice of the panel that belongs to the scene."""
        node = self._find_node()
        if self._parameters.parameterNode is not node:  # a user deleted the other one
            self._parameters = FewShotSegParameterNode(node)
        return self._parameters

    @property
    def state(self) -> SceneState:
        """The rows of supports, structures and results."""
        return SceneState(self.parameters)

    def model(self) -> str:
        """The foundation model that the next training uses."""
        return self.models.chosen(likely_modality(self.state))

    def entry(self) -> Mapping[str, Any] | None:
        """What the registry says of it; None where it is not there."""
        return self.models.entry(self.model())
