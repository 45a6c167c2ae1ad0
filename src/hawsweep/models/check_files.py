"""A quick check that a folder holds a whole model, without loading it."""

import json
import re
from pathlib import Path

from hawsweep.errors import ModelError
from hawsweep.models.shape import read_config

# The beginnings of the names of a tokenizer's files.
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.", "*.tiktoken", "spiece.model")
_LONGEST_HEADER = 100_000_000  # the limit of safetensors


def check_files(folder: Path) -> None:
    """Refuse a folder that mlx-lm could not load.

    Raises:
        ModelError: Its ``config.json`` cannot be read; weights are missing, damaged or cut off; or
            it has no tokenizer.
    """
    read_config(folder)
    weights = sorted(folder.glob("model*.safetensors"))
    if not weights:
        raise ModelError(
            f"{folder} has no weights: no model*.safetensors. Fetch the model again, or convert it "
            "with mlx_lm.convert."
        )
    parts = [re.fullmatch(r"model-\d+-of-(\d+)\.safetensors", path.name) for path in weights]
    for n_parts in {int(part[1]) for part in parts if part}:
        n_here = sum(part is not None and int(part[1]) == n_parts for part in parts)
        if n_here < n_parts:
            raise ModelError(
                f"{folder} has {n_here} of the {n_parts} parts of its weights. Fetch the model "
                "again."
            )
    for path in weights:
        _check_weights(path)
    if not any(any(folder.glob(f"{name}*")) for name in _TOKENIZER_FILES):
        raise ModelError(f"{folder} has no tokenizer: no tokenizer.json. Fetch the model again.")


def _check_weights(path: Path) -> None:
    try:
        n_bytes = path.stat().st_size
        with path.open("rb") as file:
            n_header = int.from_bytes(file.read(8), "little")
            if n_header > min(n_bytes, _LONGEST_HEADER):
                raise ValueError("its first 8 bytes are not the length of a header")
            header = json.loads(file.read(n_header))
        ends = [value["data_offsets"][1] for key, value in header.items() if key != "__metadata__"]
        needed = 8 + n_header + max(ends, default=0)
    except (AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError) as fault:
        raise ModelError(
            f"{path} is not a safetensors file: {fault}. Fetch the model again."
        ) from fault
    if n_bytes < needed:
        raise ModelError(
            f"{path} is cut off: it has {n_bytes:,} bytes of {needed:,}. Fetch the model again."
        )
