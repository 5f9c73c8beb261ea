"""Trained adapters in the scene: whole ``.fseft`` files in text nodes, saved with it."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from FewShotSegLib.core.adapter_header import EXTENSION, read_header
from FewShotSegLib.core.atomic import replacing
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.json_fields import parse_json

from ..interface.rows import AdapterRow
from .state import new_id

ID, SUPPORTS, CREATED = "FewShotSeg.Adapter", "FewShotSeg.Supports", "FewShotSeg.Created"


class AdapterShelf:
    """The adapters of the scene."""

    def __init__(self) -> None:
        self._headers: dict[str, dict[str, Any]] = {}

    def nodes(self) -> list[Any]:
        """Their text nodes."""
        found = slicer.util.getNodesByClass("vtkMRMLTextNode")
        return [node for node in found if node.GetAttribute(ID)]

    def node(self, adapter_id: str) -> Any:
        """One of them.

        Raises:
            InputError: it is not in the scene.
        """
        for node in self.nodes():
            if node.GetAttribute(ID) == adapter_id:
                return node
        raise InputError(_("There is no such adapter in the scene."))

    def rows(self) -> list[AdapterRow]:
        """One row each; those that can't be read are left out."""
        rows = []
        for node in self.nodes():
            try:
                rows.append(self._row(node))
            except InputError:
                continue
        return rows

    def add(
        self, content: bytes, name: str, supports: Sequence[str] = (), created: str | None = None
    ) -> str:
        """Put the bytes of an adapter file into the scene; the new row's id.

        Raises:
            InputError: they are not an adapter's.
        """
        read_header(content, name)
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLTextNode")
        node.UnRegister(None)
        node.SetName(slicer.mrmlScene.GenerateUniqueName(name))
        node.SetHideFromEditors(True)
        adapter_id = new_id()
        node.SetAttribute(ID, adapter_id)
        node.SetAttribute(SUPPORTS, json.dumps(list(supports)))
        when = datetime.now().isoformat(" ", "seconds") if created is None else created
        node.SetAttribute(CREATED, when)
        node.SetText(base64.b64encode(content).decode("ascii"))
        slicer.mrmlScene.AddNode(node)
        return adapter_id

    def content(self, adapter_id: str) -> bytes:
        """The bytes of an adapter's file.

        Raises:
            InputError: it is not in the scene, or damaged.
        """
        node = self.node(adapter_id)
        try:
            return base64.b64decode(node.GetText() or "", validate=True)
        except (binascii.Error, ValueError) as error:
            raise InputError(
                _("The adapter «{name}» in this scene is damaged. Train it again.").format(
                    name=node.GetName()
                )
            ) from error

    def header(self, adapter_id: str) -> dict[str, Any]:
        """What an adapter says of itself, see ``FewShotSegLib/pipeline/adapter_file.py``."""
        if adapter_id not in self._headers:
            name = self.node(adapter_id).GetName()
            self._headers[adapter_id] = read_header(self.content(adapter_id), name)
        return self._headers[adapter_id]

    def update(self, adapter_id: str, content: bytes) -> None:
        """Give an adapter its file with more in it; its row, name and supports stay.

        Raises:
            InputError: it is not in the scene, or the bytes are not an adapter's.
        """
        node = self.node(adapter_id)
        read_header(content, node.GetName())
        node.SetText(base64.b64encode(content).decode("ascii"))
        self._headers.pop(adapter_id, None)

    def rename(self, adapter_id: str, name: str) -> None:
        """Give an adapter another name."""
        if not name.strip():
            raise InputError(_("Give the adapter a name."))
        self.node(adapter_id).SetName(name.strip())

    def save(self, adapter_id: str, path: str) -> None:
        """Write an adapter's file; what was there is replaced only once the new one is complete.

        Raises:
            StorageError: the disk is full, or the place can't be written to.
        """
        path = path if path.endswith(EXTENSION) else path + EXTENSION
        content = self.content(adapter_id)
        with replacing(path) as temporary:
            temporary.write_bytes(content)

    def load(self, path: str) -> str:
        """Read an adapter's file into the scene; the new row's id.

        Raises:
            InputError: it can't be read, or is no adapter.
        """
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise InputError(
                _("{path} can't be read: {reason}.").format(path=path, reason=error.strerror)
            ) from error
        return self.add(content, Path(path).name.removesuffix(EXTENSION), created="")

    def delete(self, adapter_id: str) -> None:
        """Take an adapter out of the scene."""
        slicer.mrmlScene.RemoveNode(self.node(adapter_id))
        self._headers.pop(adapter_id, None)

    def _row(self, node: Any) -> AdapterRow:
        adapter_id = node.GetAttribute(ID)
        data = self.header(adapter_id)
        return AdapterRow(
            adapter_id,
            node.GetName(),
            tuple(structure["name"] for structure in data["structures"]),
            data["method"],
            data["model"]["id"],
            data["modality"],
            _support_names(node) or _unnamed(data),
            node.GetAttribute(CREATED) or "",
            data,
        )


def provenance(data: dict[str, Any], names: Sequence[str]) -> list[str]:
    """What an adapter came from: each support's name and the sizes of its structures."""
    lines = []
    for name, support in zip(names, data["supports"], strict=False):
        sizes = ", ".join(f"{k} {v / 1000:.1f} ml" for k, v in support.get("sizes_mm3", {}).items())
        lines.append(f"{name} ({sizes})")
    return lines


def _support_names(node: Any) -> tuple[str, ...]:
    """What the supports were called; empty where the scene does not say."""
    try:
        names = parse_json(node.GetAttribute(SUPPORTS) or "[]", "The supports")
    except InputError:
        return ()
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _unnamed(data: dict[str, Any]) -> tuple[str, ...]:
    return tuple(
        _("a volume of {shape} voxels").format(shape=" x ".join(map(str, s["shape"])))
        for s in data["supports"]
    )
