"""The rows behind the panel's tables, as plain data in the parameter node."""

from __future__ import annotations

import json
import uuid
from typing import Any

from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.json_fields import parse_json

from .parameter_node import FewShotSegParameterNode

KEYS = ("supports", "structures", "assigned", "results")
VOLUME, SEGMENTATION = "supportVolume", "supportSegmentation"
QUERY, REFINED, UNREFINED, UNCERTAINTY = (
    *("resultQuery", "resultRefined"),
    *("resultUnrefined", "resultUncertainty"),
)
"""Roles of node references; each is followed by a row's id, and survives saving and importing."""


def new_id() -> str:
    """An identity for a row."""
    return uuid.uuid4().hex[:12]


class SceneState:
    """Reads and writes the rows of one parameter node.

    ``supports``: list of ``{id, ticked}``. ``structures``: list of ``{id, name, color, terminology,
    ticked, own, prior}``. ``assigned``: structure id by ``support/segment``, where a user merged
    by hand. ``results``: list of ``{id, ...}``, newest first.
    """

    def __init__(self, parameters: FewShotSegParameterNode) -> None:
        self.parameters = parameters
        self.node = parameters.parameterNode

    def read(self) -> dict[str, Any]:
        """All rows; empty where there are none, or where they can't be read."""
        try:
            data = parse_json(self.parameters.state or "{}", "The state")
        except InputError:
            data = {}
        if not isinstance(data, dict):
            data = {}
        empty: dict[str, Any] = {"supports": [], "structures": [], "assigned": {}, "results": []}
        return {
            key: data[key] if isinstance(data.get(key), type(empty[key])) else empty[key]
            for key in KEYS
        }

    def write(self, data: dict[str, Any]) -> None:
        """Replace all rows, if they differ."""
        text = json.dumps({key: data[key] for key in KEYS}, ensure_ascii=True, sort_keys=True)
        if text != self.parameters.state:
            self.parameters.state = text

    def node_of(self, role: str, row_id: str) -> Any:
        """The node that a row refers to, None where it is gone."""
        return self.node.GetNodeReference(role + row_id)

    def refer(self, role: str, row_id: str, node: Any) -> None:
        """Let a row refer to a node, or to none."""
        self.node.SetNodeReferenceID(role + row_id, node.GetID() if node is not None else None)
