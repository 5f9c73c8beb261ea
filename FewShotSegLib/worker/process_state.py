"""What one job of a process could leave to the next, and how that is prevented."""

from __future__ import annotations

import gc
import os
import random
import tempfile
from typing import Any

from ..core.job_protocol import Job, SegmentJob, TrainJob

ON_TORCH = (TrainJob, SegmentJob)
"""Kinds of job whose results depend on what is set in torch."""


class ProcessState:
    """Settings of the process and of its libraries as they are before the first job.

    A job in a process that did others gives what it gives in a new one, bit for bit
    (``test_staying.py``): seeds, numbers of threads, precision, environment, current folder.
    """

    def __init__(self) -> None:
        self._environment = dict(os.environ)
        self._folder = os.getcwd()
        self._temporary = tempfile.tempdir
        self._torch: dict[str, Any] | None = None

    def keep(self, job: Job) -> None:
        """Before a job: keep what is set, where that is not known yet.

        Raises:
            ModuleNotFoundError: a library is not installed.
        """
        if self._torch is None and isinstance(job, ON_TORCH):
            from ..models.registry import keep_loaded_models

            self._torch = _torch_settings()
            keep_loaded_models()

    def restore(self) -> None:
        """After a job: everything is as it was, and nothing of the job is held any more."""
        os.environ.clear()
        os.environ.update(self._environment)
        os.chdir(self._folder)
        tempfile.tempdir = self._temporary
        random.seed()
        if self._torch is not None:
            _set_torch(self._torch)
        gc.collect()  # arrays that are mapped from the job's folder, which is removed now


def _torch_settings() -> dict[str, Any]:
    import torch

    return {
        "threads": torch.get_num_threads(),
        "random": torch.get_rng_state(),
        "seed": torch.initial_seed(),
        "dtype": torch.get_default_dtype(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "precision": torch.get_float32_matmul_precision(),
        "gradients": torch.is_grad_enabled(),
        "cudnn": {name: getattr(torch.backends.cudnn, name) for name in CUDNN},
    }


CUDNN = ("benchmark", "deterministic", "allow_tf32", "enabled")


def _set_torch(kept: dict[str, Any]) -> None:
    import torch

    torch.set_num_threads(kept["threads"])
    torch.set_rng_state(kept["random"])
    torch.set_default_dtype(kept["dtype"])
    torch.use_deterministic_algorithms(kept["deterministic"], warn_only=kept["warn_only"])
    torch.set_float32_matmul_precision(kept["precision"])
    torch.set_grad_enabled(kept["gradients"])
    for name, value in kept["cudnn"].items():
        setattr(torch.backends.cudnn, name, value)
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(kept["seed"])
        torch.cuda.empty_cache()
