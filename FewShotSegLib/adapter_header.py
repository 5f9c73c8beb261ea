"""What an ``.fseft`` file says of itself, read without torch: the Slicer side shows it.

``adapter_file`` documents the fields, and reads and writes the whole.
"""

from __future__ import annotations

import io
import struct
from typing import Any

from .checksums import require_seal
from .errors import InputError
from .json_fields import parse_json

FORMAT = 3
"""A reader refuses a higher one. This one is of adapters on a network that was revised: older
readers would give them features that are not those of their training."""
WHITE_BOX_FORMAT = 2
"""Of files that hold trained tensors of the backbone."""
BLACK_BOX_FORMAT = 1
"""Of files that train nothing of the backbone: older readers understand them."""
KEY = "fewshotseg"
EXTENSION = ".fseft"


def read_header(data: bytes, name: str) -> dict[str, Any]:
    """The metadata in the bytes of an adapter file. ``name`` is what messages call it.

    Raises:
        InputError: they are not an adapter's, are cut short, or from a newer FewShotSeg.
    """
    try:
        (length,) = struct.unpack_from("<Q", data)
        header = parse_json(data[8 : 8 + length], "Its header")
        metadata = parse_json(header["__metadata__"][KEY], "What it says")
        end = max(v["data_offsets"][1] for k, v in header.items() if k != "__metadata__")
        if 8 + length + end != len(data):
            raise ValueError("cut short")
        newer = int(metadata["format"]) > FORMAT
        require_seal(io.BytesIO(data), None if newer else (KEY,))
    except (InputError, struct.error, ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(
            f"{name} is not a FewShotSeg adapter, or is damaged. Train it again, or copy it again."
        ) from error
    if newer:
        raise InputError(
            f"{name} was written by a newer FewShotSeg ({metadata.get('version')}). Update this "
            "one."
        )
    return metadata
