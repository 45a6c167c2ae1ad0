"""What memory there is."""

import json
import os
import platform
from pathlib import Path
from typing import Literal

import psutil

from hawsweep import backend

# Left to the rest of the machine.
_RESERVE_SHARE = 0.1
# A worker's libraries, and its activations at the sizes people train on a CPU.
_WORKER_OVERHEAD_BYTES = 1_500_000_000


def available_bytes() -> int:
    """What a trial may take: free memory less a reserve, on a Mac at most what its GPU may wire."""
    free = int(psutil.virtual_memory().available * (1 - _RESERVE_SHARE))
    if platform.system() == "Darwin":
        recommended = backend.recommended_bytes()
        return min(free, recommended) if recommended else free
    return free


def float32_bytes(model_path: Path) -> int:
    """The size of a model's weights as float32, from its files alone."""
    config = json.loads((model_path / "config.json").read_text(encoding="utf-8"))
    stored = sum(path.stat().st_size for path in model_path.glob("*.safetensors"))
    if quantization := config.get("quantization"):
        return stored * 32 // int(quantization["bits"])
    return stored if config.get("torch_dtype") == "float32" else stored * 2


def choose_workers(asked: int | Literal["auto"], model_path: Path) -> int:
    """How many processes train at the same time.

    On a CPU two processes with one BLAS thread each train more tokens than one with two, so
    ``auto`` is one a core, as many as memory holds. A GPU is busy with one.
    """
    if asked != "auto":
        return asked
    if not backend.is_cpu():
        return 1
    each = float32_bytes(model_path) + _WORKER_OVERHEAD_BYTES
    return max(1, min(usable_cores(), available_bytes() // each))


def usable_cores() -> int:
    """Processor cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
