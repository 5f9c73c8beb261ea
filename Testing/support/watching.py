"""What tests of quiet code watch: changes of the scene, and files that are opened."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import slicer


@contextmanager
def scene_changes() -> Iterator[list[str]]:
    """Collect every event of the scene and its nodes, and whatever has another time of change.

    Segments count too: a node needn't say what happens to them.
    """
    scene, seen = slicer.mrmlScene, []
    nodes = [scene.GetNthNode(number) for number in range(scene.GetNumberOfNodes())]
    objects: dict[str, Any] = {"the scene": scene}
    for node in nodes:
        name = f"{node.GetID()} {node.GetName()}"
        objects[name] = node
        if node.IsA("vtkMRMLSegmentationNode"):
            segments = node.GetSegmentation()
            objects[f"{name}, segmentation"] = segments
            for number in range(segments.GetNumberOfSegments()):
                objects[f"{name}, segment {number}"] = segments.GetNthSegment(number)
    before = {name: thing.GetMTime() for name, thing in objects.items()}

    def observer(name: str) -> Any:
        return lambda caller, event: seen.append(f"{name}: {event}")

    tags = [(thing, thing.AddObserver("AnyEvent", observer(n))) for n, thing in objects.items()]
    try:
        yield seen
        seen += [f"{n}: time of change" for n, t in objects.items() if t.GetMTime() != before[n]]
        if scene.GetNumberOfNodes() != len(nodes):
            seen.append("the scene: number of nodes")
    finally:
        for thing, tag in tags:
            thing.RemoveObserver(tag)


_opened: list[list[str]] = []


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _opened and isinstance(arguments[0], (str, bytes, os.PathLike)):
        _opened[-1].append(os.fsdecode(arguments[0]))


sys.addaudithook(_hear)  # for as long as the process lives; it hears only while a user listens


@contextmanager
def opened_files() -> Iterator[list[str]]:
    """Collect the path of every file that Python opens, once each time."""
    _opened.append([])
    try:
        yield _opened[-1]
    finally:
        _opened.pop()


def times_opened(opened: list[str], paths: list[Path]) -> dict[str, int]:
    """By name, how often each of these files was opened."""
    return {path.name: opened.count(str(path)) for path in paths}
