"""A quick check that a folder holds a whole model, without loading it."""

import json
import os
import re
from collections.abc import Mapping
from fnmatch import fnmatch
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any

from hawsweep.errors import ModelError
from hawsweep.files import check_regular, open_regular
from hawsweep.layout import CONFIG_FILE, WEIGHTS_FILE
from hawsweep.models.config_file import CONFIG_BYTES, read_config
from hawsweep.models.hub import how_to_mend

TEMPLATE_BYTES = 1_000_000
# The beginnings of the names of a tokenizer's files.
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.", "*.tiktoken", "spiece.model")
# The most bytes of the files that libraries read whole, the first that fits.
_MOST_BYTES = {
    "config.json": CONFIG_BYTES,
    "chat_template*": TEMPLATE_BYTES,
    "*.jinja": TEMPLATE_BYTES,
    **dict.fromkeys(("*.json", "*.model", "*.tiktoken", "*.txt", "vocab.*"), 100_000_000),
}
_MOST_DIMENSIONS = 16
_LONGEST_HEADER = 16_000_000
# Bits of a value, by its type in a safetensors file.
_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
}


def check_files(folder: Path) -> None:
    """Refuse a folder that mlx-lm could not load.

    Raises:
        ModelError: Its ``config.json`` cannot be read; a file is not regular or larger than any
            model's; weights are missing, damaged or cut off; or it has no tokenizer.
    """
    read_config(folder)
    check_folder(folder)
    weights = sorted(folder.glob("model*.safetensors"))
    if not weights:
        raise ModelError(
            f"{folder} has no weights: no model*.safetensors. {how_to_mend(folder)} Or convert "
            "those of another format: `mlx_lm.convert --hf-path REPOSITORY --mlx-path FOLDER`."
        )
    parts = [re.fullmatch(r"model-\d+-of-(\d+)\.safetensors", path.name) for path in weights]
    for n_parts in {int(part[1]) for part in parts if part}:
        n_here = sum(part is not None and int(part[1]) == n_parts for part in parts)
        if n_here < n_parts:
            raise ModelError(
                f"{folder} has {n_here} of the {n_parts} parts of its weights. "
                f"{how_to_mend(folder)}"
            )
    for path in weights:
        _check_weights(path)
    if not any(any(folder.glob(f"{name}*")) for name in _TOKENIZER_FILES):
        raise ModelError(f"{folder} has no tokenizer: no tokenizer.json. {how_to_mend(folder)}")


def check_folder(folder: Path) -> None:
    """Refuse a model's or an embedder's folder whose files a library could not read to their end.

    Libraries look for many names. So each file must be regular, also one folder down.

    Raises:
        ModelError: One is not, or has more bytes than it may; the message has the numbers.
    """
    for path in sorted(chain(folder.glob("*"), folder.glob("[!.]*/*"))):
        fits = (most for form, most in _MOST_BYTES.items() if fnmatch(path.name, form))
        most = next(fits, None)
        # A folder may be beside the files, and a broken link where no library reads it.
        if most is not None or (os.path.exists(path) and not os.path.isdir(path)):
            try:
                check_regular(path, most)
            except OSError as fault:
                raise _cannot_read(path, fault) from fault


def check_adapter(folder: Path) -> None:
    """Refuse an adapter's folder that mlx-lm could not load; see ``check_files``."""
    check_folder(folder)
    read_config(folder, CONFIG_FILE)
    if os.path.lexists(weights := folder / WEIGHTS_FILE):
        _check_weights(weights)


def _check_weights(path: Path) -> None:
    """Check the header of a safetensors file, whose tensors must lie in the file.

    Raises:
        ModelError: It is no such file, or cut off.
    """
    try:
        with open_regular(path) as file:
            n_bytes = os.fstat(file.fileno()).st_size
            n_header = int.from_bytes(file.read(8), "little")
            if n_header > min(n_bytes, _LONGEST_HEADER):
                raise ValueError(
                    f"its first 8 bytes are not the length of a header: {n_header:,}, and it may "
                    f"have {_LONGEST_HEADER:,} bytes in a file of {n_bytes:,}"
                )
            header = json.loads(file.read(n_header))
        ends = [_end(key, value) for key, value in header.items() if key != "__metadata__"]
        needed = 8 + n_header + max(ends, default=0)
    except OSError as fault:
        raise _cannot_read(path, fault) from fault
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as fault:
        raise ModelError(
            f"{path} is not a safetensors file: {fault}. {how_to_mend(path)}"
        ) from fault
    if n_bytes < needed:
        raise ModelError(
            f"{path} is cut off: it has {n_bytes:,} bytes of {needed:,}. {how_to_mend(path)}"
        )


def _end(name: str, tensor: Mapping[str, Any]) -> int:
    """Where a tensor ends, after the header."""
    (start, end), shape, kind = tensor["data_offsets"], tensor["shape"], tensor["dtype"]
    if len(shape) > _MOST_DIMENSIONS:  # their product would take hours
        raise ValueError(f"the tensor {name[:100]!r} has {len(shape):,} dimensions")
    if any(type(each) is not int or not 0 <= each < 2**63 for each in (start, end, *shape)):
        raise ValueError(f"the tensor {name[:100]!r} has a size that is no whole number")
    if (end - start) * 8 != prod(shape) * _BITS[kind]:
        raise ValueError(
            f"the tensor {name[:100]!r} has {end - start:,} bytes, which are not those of its shape"
        )
    return int(end)


def _cannot_read(path: Path, fault: OSError) -> ModelError:
    return ModelError(f"{path} cannot be read: {fault.strerror}. {how_to_mend(path)}")
