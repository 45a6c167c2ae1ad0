"""Reads a ``config.json``. Its sizes have bounds, far beyond those of any model: they decide how
much is computed before the first weight is read.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hawsweep.errors import ModelError
from hawsweep.files import read_regular
from hawsweep.models.hub import how_to_mend

CONFIG_BYTES = 10_000_000
_MOST_LAYERS = 1_000
_MOST_WIDTH = 1_000_000
_MOST_SHOWN = 100  # characters of a stranger's key or value in a message
# What a key counts, by the form of its name in public models, and the most there may be of it.
_BOUNDS = (
    (re.compile(r"(n|num)_(\w+_)?(layers?|blocks?)|\w+_layers|depth"), _MOST_LAYERS),
    (re.compile(r"(n|num)_(\w+_)?experts(_\w+)?|\w+_num_experts"), 10_000),
    (re.compile(r"(\w+_)?vocab(ulary)?_size(_\w+)?|n_vocab"), 10_000_000),
    (
        # A window's size is a number of tokens: nothing is as wide.
        re.compile(
            r"(?!.*window)(\w+_)?(size|sizes|dims?|width|rank|heads?|embd|inner|channels)|d_\w+"
        ),
        _MOST_WIDTH,
    ),
)
# Sizes that each model has, null where they follow from others. Some differ from layer to layer,
# and are a list then.
_OF_MODEL = {"hidden_size", "num_hidden_layers", "vocab_size"}
_OF_LAYER = {"intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim"}


def read_config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """The config of a model, or another file of that kind.

    Raises:
        ModelError: It cannot be read, or a size in it is none of a model; see ``check_sizes``.
    """
    path, text = folder / name, read_config_text(folder, name)
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as fault:
        raise ModelError(f"{path} cannot be read: {fault}. {how_to_mend(path)}") from fault
    if not isinstance(config, dict):
        raise ModelError(f"{path} does not hold a model's keys. {how_to_mend(path)}")
    check_sizes(config, path)
    return config


def read_config_text(folder: Path, name: str = "config.json") -> str:
    """The text of a config.

    Raises:
        ModelError: It cannot be read.
    """
    path = folder / name
    try:
        return read_regular(path, CONFIG_BYTES).decode()
    except (OSError, ValueError) as fault:
        reason = fault.strerror if isinstance(fault, OSError) else fault
        raise ModelError(f"{path} cannot be read: {reason}. {how_to_mend(path)}") from fault


def check_sizes(config: Mapping[str, Any], path: Path) -> None:
    """Check the sizes of a model, also those of models within it, such as ``text_config``.

    Args:
        path: Its file, for messages.

    Raises:
        ModelError: One is beyond its bound, or no whole number above 0; the message has the key
            and the value.
    """
    sections: list[tuple[str, Mapping[str, Any]]] = [("", config)]
    while sections:  # no recursion: the nesting is a stranger's too
        where, section = sections.pop()
        for key, value in section.items():
            _check_size(f"{path}: {where}{key[:_MOST_SHOWN]}", key, value)
            within = value if isinstance(value, list) else [value]
            below = f"{where}{key}."[-_MOST_SHOWN:]
            sections.extend((below, each) for each in within if isinstance(each, Mapping))
        heads, each = map(_largest, (section.get("num_attention_heads"), section.get("head_dim")))
        if heads * each > _MOST_WIDTH:
            product = f"{path}: {where}num_attention_heads times head_dim"
            raise _bad(product, f"{heads * each:,}", f"at most {_MOST_WIDTH:,}")


def _check_size(name: str, key: str, value: Any) -> None:
    # Of a key's beginning, so that one of megabytes takes no time.
    found = (most for form, most in _BOUNDS if form.fullmatch(key, 0, _MOST_SHOWN))
    most = next(found, None)
    each = value if isinstance(value, list) else [value]
    if len(each) > _MOST_LAYERS and (key in _OF_LAYER or "layer" in key):
        raise _bad(name, f"a list of {len(each):,}", f"a list of at most {_MOST_LAYERS:,}")
    is_list = key in _OF_MODEL and isinstance(value, list)
    is_core = key in _OF_MODEL | _OF_LAYER
    if is_list or (is_core and not all(one is None or _is_count(one) for one in each)):
        raise _bad(name, _shown(value), "a whole number above 0")
    if key == "text_config" and not (value is None or isinstance(value, Mapping)):
        raise _bad(name, _shown(value), "a mapping")
    if most is not None and any(_is_beyond(one, most) for one in each):
        raise _bad(name, _shown(value), f"at most {most:,}")


def _largest(value: Any) -> int:
    """The largest of a size of all layers, or of each; 0 without one."""
    each = value if isinstance(value, list) else [value]
    return max((one for one in each if isinstance(one, int)), default=0)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_beyond(value: Any, most: int) -> bool:
    """Whether it is a number, and beyond the bound; NaN is beyond each."""
    return isinstance(value, int | float) and not -most <= value <= most


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def _bad(name: str, value: str, must_be: str) -> ModelError:
    return ModelError(
        f"{name} is {value}, but must be {must_be}. Fetch the model again, or use another one."
    )
