"""Reading in a process of its own, with a time limit: what crashes or hangs there costs a sentence.

The child writes to a pipe, so that no voxel is ever on the disk: a line of JSON with what the image
is, then its voxels. It ends itself where it takes too long, even if this process is gone by then.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

import numpy as np
import SimpleITK as sitk

from ..core.errors import InputError

SECONDS, BYTES_A_SECOND = 60.0, 1e6
"""The time limit: as long as Python may take to start on a busy computer, and the time in which a
slow network brings the files."""
GRACE = 5.0

_CHILD = "FewShotSegLib.io.image_child"


def read_apart(kind: str, path: Path) -> tuple[sitk.Image, dict[str, Any]]:
    """Read an image in another process.

    Args:
        kind: ``file``, or ``dicom`` for a folder, with a series' UID after a space where it has
            several.

    Returns:
        The image with its metadata, and what else the child says of it.

    Raises:
        InputError: what the child raised, or that it crashed or took too long.
    """
    limit = SECONDS + _size(path) / BYTES_A_SECOND
    environment = dict(os.environ)
    package = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(
        [package, *filter(None, [environment.get("PYTHONPATH")])]
    )
    process = subprocess.Popen(
        [sys.executable, "-m", _CHILD, kind, str(limit), str(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )
    late = threading.Event()

    def end() -> None:
        late.set()
        process.kill()

    # The child ends itself at the limit; this is for one that can't.
    timer = threading.Timer(limit + GRACE, end)
    timer.daemon = True
    timer.start()
    try:
        assert process.stdout is not None
        answer = _answer(process.stdout)
        status = process.wait() if answer is None else 0
    finally:
        timer.cancel()
        process.kill()
        if process.stdout is not None:
            process.stdout.close()
        process.wait()
    if answer is None:
        raise InputError(_died(path, status, late.is_set(), limit))
    image, said = answer
    if image is None:
        raise InputError(said["error"])
    return image, said


def send(stream: IO[bytes], image: sitk.Image | None, **said: Any) -> None:
    """The child's side: an image, or None and its ``error``, as :func:`read_apart` takes it."""
    if image is not None:
        array = sitk.GetArrayViewFromImage(image)
        said |= {
            "shape": array.shape,
            "dtype": array.dtype.str,
            "vector": image.GetNumberOfComponentsPerPixel() > 1,
            "spacing": image.GetSpacing(),
            "origin": image.GetOrigin(),
            "direction": image.GetDirection(),
            "metadata": {
                _text(key): _text(image.GetMetaData(key)) for key in image.GetMetaDataKeys()
            },
        }
    stream.write(json.dumps(said).encode() + b"\n")
    if image is not None:
        stream.write(np.ascontiguousarray(array).data.cast("B"))
    stream.flush()


def _text(text: str) -> str:
    """What is no UTF-8 in a header can't be given back to ITK."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _answer(stream: IO[bytes]) -> tuple[sitk.Image | None, dict[str, Any]] | None:
    """What the child sent; None where it ended before that was complete."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        return None
    said = json.loads(line)
    if "error" in said:
        return None, said
    array = np.empty(said.pop("shape"), said.pop("dtype"))
    rest = array.reshape(-1).view(np.uint8).data
    while rest:
        count = stream.readinto(rest)  # type: ignore[attr-defined]
        if not count:
            return None
        rest = rest[count:]
    image = sitk.GetImageFromArray(array, isVector=said.pop("vector"))
    image.SetSpacing(said.pop("spacing"))
    image.SetOrigin(said.pop("origin"))
    image.SetDirection(said.pop("direction"))
    for key, value in said.pop("metadata").items():
        image.SetMetaData(key, value)
    return image, said


def _died(path: Path, status: int, late: bool, limit: float) -> str:
    if late or status == LATE:
        return (
            f"{path} can't be read: the image reader has not come to an end after {limit:.0f}"
            " seconds, so it is damaged or lies on a disk that is too slow; copy it here, or export"
            " it again."
        )
    if status == -getattr(signal, "SIGKILL", 9):
        return f"{path} does not fit in this computer's memory."
    return (
        f"{path} can't be read: the image reader crashed on it, so it is damaged; copy or export it"
        " again."
    )


LATE = 1
"""The exit status of a child that took too long, which ``faulthandler`` gives it."""


def _size(path: Path) -> int:
    """Bytes of a file, or of the files in a folder."""
    try:
        files = path.iterdir() if path.is_dir() else [path]
        return sum(file.stat().st_size for file in files)
    except OSError:
        return 0
