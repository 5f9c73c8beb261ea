"""Opening other people's files without running anything in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...core.errors import ModelError, first_line
from ...core.json_fields import shown
from ..weights import refuse_where_pickles_run_code

MAX_WEIGHTS = 8 * 2**30
"""Bytes of a file of weights; the largest of the published ones has 2."""


def _numpy_types() -> list[Any]:
    """What makes numpy's numbers in a pickle: data, whatever its arguments.

    Training code puts a loss or a learning rate beside the weights that is numpy's.
    """
    kinds = [type(np.dtype(name)) for name in ("bool", "f2", "f4", "f8")]
    kinds += [type(np.dtype(f"{sign}{size}")) for sign in "iu" for size in (1, 2, 4, 8)]
    scalar = np.float64(0).__reduce__()[0]  # called differently in numpy 1 and 2
    names = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    return [np.dtype, *dict.fromkeys(kinds), *names]


ALLOWED = _numpy_types()
"""Beside what torch itself allows with ``weights_only=True``: numpy's scalars and dtypes."""


def load_tensors(path: Path) -> Any:
    """What a PyTorch file holds: tensors, numbers, text, lists and dictionaries of these.

    Raises:
        ModelError: it can't be read, is damaged, or holds objects that would run code.
    """
    refuse_where_pickles_run_code(path)
    try:
        if path.stat().st_size > MAX_WEIGHTS:
            raise ModelError(
                f"{path} has {path.stat().st_size / 2**30:.0f} GB, more than any file of weights "
                f"that can be added ({MAX_WEIGHTS / 2**30:.0f} GB)."
            )
        with torch.serialization.safe_globals(ALLOWED):
            return torch.load(path, map_location="cpu", weights_only=True)
    except ModelError:
        raise
    except FileNotFoundError as error:
        raise ModelError(f"There is no file {path}.") from error
    except OSError as error:
        if error.filename is None:  # torch's, of a file cut short
            raise ModelError(f"{path} is not used: {_reason(error)}.") from error
        raise ModelError(f"{path} can't be read ({error.strerror or error}).") from error
    except Exception as error:  # pickle.UnpicklingError, and whatever a damaged archive raises
        raise ModelError(f"{path} is not used: {_reason(error)}.") from error


def _reason(error: Exception) -> str:
    """Why torch does not open a file, without its advice to trust it."""
    text = str(error)
    if "Unsupported global" in text or "weights_only" in text and "GLOBAL" in text:
        start = text.find("GLOBAL ")
        name = text[start + len("GLOBAL ") :].split()[0] if start >= 0 else "?"
        return (
            f"it holds a Python object ({shown(name)[1:-1]}) beside its tensors, which opening "
            "would run; save the network's state dict alone, and add that"
        )
    return f"it is damaged, or no PyTorch file ({first_line(error)[:200]})"


def state_dict_of(data: Any, path: Path, *keys: str) -> dict[str, Tensor]:
    """The tensors by name in what a file held.

    Args:
        keys: where in a dictionary they are; the first that is there.

    Raises:
        ModelError: there are none, or something else is among them.
    """
    if isinstance(data, Mapping):
        data = next((data[key] for key in keys if isinstance(data.get(key), Mapping)), data)
    if not isinstance(data, Mapping) or not data:
        raise ModelError(f"{path} holds no tensors by name (a state dict).")
    for name, tensor in data.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise ModelError(
                f"{path} holds no state dict: {shown(name)} in it is no tensor but of the type "
                f"{type(tensor).__name__}."
            )
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise ModelError(f"The tensor {shown(name)} in {path} is sparse or quantised.")
    return dict(data)


PREFIXES = ("module.", "_orig_mod.")
"""Of data-parallel training, and of ``torch.compile``."""


def without_wrappers(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Tensors without the prefixes that wrappers of a network put before every name.

    Raises:
        ModelError: two tensors have one name then.
    """
    result: dict[str, Tensor] = {}
    for name, tensor in state.items():
        short = name
        while short.startswith(PREFIXES):
            short = short.split(".", 1)[1]
        if short in result:
            raise ModelError(f"{path} holds the tensor {shown(short)} twice.")
        result[short] = tensor
    return result
