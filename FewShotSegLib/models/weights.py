"""A file of weights as tensors. No pickle can run code."""

from __future__ import annotations

import io
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ..core.errors import ModelError, first_line
from ..core.requirements import outdated_packages


def read_state(data: bytes, path: Path) -> dict[str, Tensor]:
    """The tensors in the bytes of a weights file, unwrapped; no pickle can run code.

    ``path`` says which kind of file it is, and what messages call it.
    """
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load(data)
        refuse_where_pickles_run_code(path)
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except ModelError:
        raise
    except (OSError, RuntimeError, ValueError, safetensors.SafetensorError) as error:
        raise ModelError(f"The weights file {path} can't be read: {first_line(error)}.") from error
    except Exception as error:  # pickle.UnpicklingError and whatever a damaged archive raises
        raise ModelError(
            f"The weights file {path} is not a plain state dict: {first_line(error)}."
        ) from error
    for wrapper in ("state_dict", "net", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    return state


def refuse_where_pickles_run_code(path: Path) -> None:
    """What ``weights_only=True`` promises holds from our lowest torch on (see ``requirements``)."""
    old = next((old for old in outdated_packages() if old.requirement.name == "torch"), None)
    if old is not None:
        raise ModelError(
            f"The weights file {path} is not opened: {old} Update torch, or have the weights "
            "converted to .safetensors on another machine."
        )
