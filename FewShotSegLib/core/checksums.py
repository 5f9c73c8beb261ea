"""Whether a file still holds what was written into it.

Disks, cables and memory lose bits without a word, and what they lose would come out as another
segmentation. Two kinds of files are distinguished from damaged ones:

Array files (features, prepared volumes), hundreds of megabytes each, by a CRC-32 for every block of
16 MB, worked out by several threads. It finds whatever an accident does, and is several times
as fast as a cryptographic hash (``Testing/benchmarks/checksums.py``). The sums are kept apart from
the file, in a JSON object that carries its own SHA-256 (:func:`seal_json`).

safetensors files (adapters, checkpoints) by a SHA-256 of every byte, kept in the file's own
metadata (:func:`write_sealed`). Files from before there were seals have none and are read as they
are.

Neither keeps anybody from forging a file; they find accidents. This module needs no torch.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import struct
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

from .errors import InputError
from .json_fields import parse_json

SEAL = "sha256"
"""The name of a seal in a JSON object, and in a safetensors file's metadata."""
_BLANK = "0" * 64
BLOCK = 16 * 2**20
PIECE = 2**20
MOST_THREADS = 4
_PLACE = re.compile(rb'"sha256":"([0-9a-f]{64})"')
_LONGEST_HEADER = 100_000_000
"""Of a safetensors file, by that format's own rule."""
_known: dict[tuple[int, ...], str] = {}
"""Sums of files by their place on the disk, size and times: each is read once by a process."""


class Damaged(ValueError):
    """A file does not hold what was written into it."""


def file_sums(
    paths: Sequence[Path], check: Callable[[], None] = lambda: None
) -> list[dict[str, Any]]:
    """The sum of each file: ``bytes``, and ``crc32`` of its blocks as hexadecimal digits.

    Args:
        check: called for every block; raises to stop.

    Raises:
        OSError: a file can't be read.
    """
    states = [os.stat(path) for path in paths]
    blocks = [
        (path, start, min(BLOCK, state.st_size - start))
        for path, state in zip(paths, states, strict=True)
        if _identity(state) not in _known
        for start in range(0, state.st_size, BLOCK)
    ]
    found: dict[Path, str] = {}
    threads = max(1, min(MOST_THREADS, os.cpu_count() or 1, len(blocks)))
    with ThreadPoolExecutor(threads) as pool:
        try:
            for (path, _, _), crc in zip(blocks, pool.map(_block_crc, blocks), strict=True):
                check()
                found[path] = found.get(path, "") + f"{crc:08x}"
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    sums = []
    for path, state in zip(paths, states, strict=True):
        known = _known.setdefault(_identity(state), found.get(path, ""))
        sums.append({"bytes": state.st_size, "crc32": known})
    return sums


def require_sums(
    files: Mapping[Path, Mapping[str, Any]], check: Callable[[], None] = lambda: None
) -> None:
    """Check files against sums that :func:`file_sums` gave when they were written.

    A file that this process has checked, or written, is read again only if it has changed since.

    Raises:
        Damaged: one is not what it was.
        OSError: one can't be read.
    """
    for path, wanted in files.items():
        if os.stat(path).st_size != wanted["bytes"]:
            raise Damaged(f"{path.name} is not as long as it was written")
    for (path, wanted), found in zip(files.items(), file_sums(list(files), check), strict=True):
        if found != wanted:
            raise Damaged(f"{path.name} does not match its checksum")


def forget() -> None:
    """Read every file again when it is asked for next."""
    _known.clear()


def seal_json(data: Mapping[str, Any]) -> dict[str, Any]:
    """The same object with a hash of all of it."""
    return {**data, SEAL: _json_sha256(data)}


def require_json_seal(data: Any) -> dict[str, Any] | None:
    """The object that :func:`seal_json` was given; None where it was written without a seal.

    Raises:
        Damaged: it is not what was sealed.
    """
    if not isinstance(data, dict):
        raise Damaged("it is no object")
    if SEAL not in data:
        return None
    content = {key: value for key, value in data.items() if key != SEAL}
    if data[SEAL] != _json_sha256(content):
        raise Damaged("it does not match its checksum")
    return content


def write_sealed(path: Path, data: bytes, metadata: Mapping[str, str]) -> None:
    """Write a safetensors file with metadata and its seal; the same content is the same bytes.

    The bytes are written here because safetensors writes by way of a file with a name of its own,
    which nobody would remove after a kill.

    Args:
        data: the file without metadata, from ``safetensors.torch.save``.

    Raises:
        OSError: it can't be written.
    """
    before, tensors_at = read_head(io.BytesIO(data))
    head = {"__metadata__": dict(sorted({**metadata, SEAL: _BLANK}.items())), **tensors_at}
    header = json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)  # tensors begin at multiples of 8
    place = _place(header)
    assert place is not None
    first, last = place
    tensors = memoryview(data)[8 + len(before) :]
    seal = _sealed_sha256(header, place, [tensors])
    with open(path, "wb") as stream:
        stream.write(struct.pack("<Q", len(header)))
        stream.write(header[:first] + seal.encode() + header[last:])
        stream.write(tensors)


def require_seal(stream: BinaryIO, known: Collection[str] | None) -> bool:
    """Check a safetensors file against its seal. Returns whether it has one.

    Args:
        stream: the whole file, at its start.
        known: what a file's metadata hold beside the seal. A file with anything else, or nothing,
            is damaged, not one from before there were seals. None where that isn't known.

    Raises:
        Damaged: it is not what was sealed, or no safetensors file.
        OSError: it can't be read.
    """
    header, fields = read_head(stream)
    try:
        metadata = fields["__metadata__"]
        unknown = set(metadata) - {SEAL, *(metadata if known is None else known)}
    except (LookupError, TypeError) as error:
        raise Damaged("its header can't be read") from error
    if unknown:
        raise Damaged("its metadata hold what nobody wrote")
    if SEAL not in metadata:
        return False
    place = _place(header)
    tensors = iter(lambda: stream.read(PIECE), b"")
    if place is None or _sealed_sha256(header, place, tensors) != metadata[SEAL]:
        raise Damaged("it does not match its checksum")
    return True


def load_sealed(path: Path, known: Collection[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The tensors of a safetensors file, and its metadata without the seal, once it is checked.

    Raises:
        Damaged: see :func:`require_seal`; or it can't be read as such a file.
        OSError: it can't be read.
    """
    import safetensors
    import safetensors.torch

    # Read once: what is loaded is what was checked. And safetensors opens no file whose name is
    # not in UTF-8.
    data = Path(path).read_bytes()
    require_seal(io.BytesIO(data), known)
    metadata = dict(read_head(io.BytesIO(data))[1]["__metadata__"])
    metadata.pop(SEAL, None)
    try:
        return safetensors.torch.load(data), metadata
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise Damaged("it is no safetensors file") from error


def _identity(state: os.stat_result) -> tuple[int, ...]:
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns


def _block_crc(block: tuple[Path, int, int]) -> int:
    """CRC-32 of a part of a file. It is read, not mapped: a bad sector is then an error that can be
    reported, and not the end of the process."""
    path, start, left = block
    crc, buffer = 0, memoryview(bytearray(min(PIECE, left)))
    with open(path, "rb", buffering=0) as stream:
        stream.seek(start)
        while left:
            count = stream.readinto(buffer[: min(PIECE, left)])
            if not count:
                raise Damaged(f"{path.name} was cut short while it was read")
            crc = zlib.crc32(buffer[:count], crc)
            left -= count
    return crc


def _json_sha256(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def read_head(stream: BinaryIO) -> tuple[bytes, dict[str, Any]]:
    """The JSON that a safetensors file starts with, as it stands there and parsed.

    Its ``data_offsets`` count from its own end, where ``stream`` is left.

    Raises:
        Damaged: there is none.
        OSError: it can't be read.
    """
    start = stream.read(8)
    if len(start) < 8:
        raise Damaged("it is cut short")
    (length,) = struct.unpack("<Q", start)
    header = stream.read(length) if length <= _LONGEST_HEADER else b""
    if len(header) != length:
        raise Damaged("it is cut short")
    try:
        fields = parse_json(header, "The header")
    except InputError as error:
        raise Damaged("its header can't be read") from error
    if not isinstance(fields, dict):
        raise Damaged("its header can't be read")
    return header, fields


def _place(header: bytes) -> tuple[int, int] | None:
    """Where in the header the seal's digits are. Quotes within texts have a stroke before them, so
    that nothing that a text says can look like it."""
    found = list(_PLACE.finditer(header))
    return found[0].span(1) if len(found) == 1 else None


def _sealed_sha256(
    header: bytes, place: tuple[int, int], tensors: Iterable[bytes | memoryview]
) -> str:
    """SHA-256 of the whole file with zeros for the seal."""
    first, last = place
    digest = hashlib.sha256(struct.pack("<Q", len(header)))
    digest.update(header[:first] + _BLANK.encode() + header[last:])
    for piece in tensors:
        digest.update(piece)
    return digest.hexdigest()
