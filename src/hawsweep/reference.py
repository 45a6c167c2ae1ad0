"""The reference of every key of a sweep, out of the schema: ``python -m hawsweep.reference``."""

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from hawsweep.spec import MODEL, SEARCHABLE, Choices, Range, SweepSpec

_HEAD = """# Sweeps

A sweep is a YAML file; `hawsweep start NAME` reads `sweeps/NAME.yaml`. The keys of `train` and
`search` are `mlx_lm.lora`'s, with its meaning; the last column says from where else a key may be
known. Any key can be set on the command line: `--set train.batch_size=2`.

`data` is one data set or a list of them, each a name or the keys below; `train.lr_schedule` may be
its name alone. Nothing in the second column: not set.
"""
_SEARCH = """## `search`

What the study varies, each key as `{low: ..., high: ...}`, both ends included, with `log: true` or
`step: ...` where wanted, or as `{choices: [...]}`. These keys of `train` can be searched:
"""
_MODELS = """
Beside them `model`, as `{choices: [...]}`: several base models in one study, each measured untuned.
The key `model` itself is then left out. What prunes trials is then the validation loss per UTF-8
byte of the text that is learned, as models cut text into different tokens; `val_loss` stays per
token. All models are validated on the same records. A model that does not fit into memory is said
and left out; the others go on.
"""
_TABLE_HEAD = (
    "| key | default | allowed | meaning | known from |\n| --- | --- | --- | --- | --- |\n"
)
_MLX_LM = "mlx-lm"
# Where a key of ``train`` has its name and meaning from, if not from the same key of mlx_lm.lora.
_SOURCES = {
    "lora_parameters.rank": _MLX_LM,
    "lora_parameters.scale": _MLX_LM,
    "lora_parameters.dropout": _MLX_LM,
    "lora_parameters.keys": _MLX_LM,
    "lora_parameters.alpha": "PEFT `lora_alpha`",
    "lora_parameters.use_rslora": "PEFT",
    "lora_parameters.loraplus_lr_ratio": "PEFT",
    "lr_schedule.name": _MLX_LM,
    "lr_schedule.warmup": _MLX_LM,
    "lr_schedule.warmup_init": _MLX_LM,
    "lr_schedule.warmup_ratio": "transformers",
    "lr_schedule.decay_steps": "mlx-lm `lr_schedule.arguments`",
    "lr_schedule.end_factor": "mlx-lm `lr_schedule.arguments`",
    "max_grad_norm": "transformers",
    "early_stopping_patience": "transformers",
    "early_stopping_threshold": "transformers",
}


def reference() -> str:
    """The whole text, Markdown."""
    parts = [_HEAD, _TABLE_HEAD + "".join(_rows(SweepSpec))]
    keys = ", ".join(f"`{key}`" for key in SEARCHABLE if key != MODEL)
    parts += [f"{_SEARCH}\n{keys}.", _MODELS]
    return "\n".join(parts)


def _rows(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        key = f"{prefix}{name}"
        if name == "search":
            yield f"| `{key}` | | keys with ranges or choices | See below. | Optuna |\n"
        elif below := _section(field):
            yield from _rows(below, f"{key}.")
        else:
            cells = (_default(field), _type(field), field.description or "", _source(key))
            yield f"| `{key}` | {' | '.join(cells)} |\n"


def _section(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    if get_origin(kind) is tuple:  # several data sets, or one
        kind = get_args(kind)[0]
    if isinstance(kind, type) and issubclass(kind, BaseModel) and kind not in (Range, Choices):
        return kind
    return None


def _source(key: str) -> str:
    """Where a user may know a key from."""
    from mlx_lm.lora import CONFIG_DEFAULTS

    if key.split(".")[0] in ("pruning", "sampler"):
        return "Optuna"
    if not key.startswith("train."):
        return _MLX_LM if key in CONFIG_DEFAULTS else ""
    name = key.removeprefix("train.")
    return _MLX_LM if name in CONFIG_DEFAULTS else _SOURCES.get(name, "")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "*required*"
    value = field.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined or value in ("", {}):
        return ""
    if isinstance(value, tuple):
        value = f"[{', '.join(map(str, value))}]"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _type(field: FieldInfo) -> str:
    return ", ".join(filter(None, (_kind(field.annotation), *map(_bound, field.metadata))))


def _kind(kind: Any) -> str:
    names = {int: "whole number", float: "number", str: "text", bool: "true or false"}
    if kind in names:
        return names[kind]
    origin = get_origin(kind)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    if origin is Annotated:
        return _kind(get_args(kind)[0])
    if origin in (Union, types.UnionType):
        return " or ".join(_kind(part) for part in get_args(kind) if part is not type(None))
    if origin is dict:
        return "keys with values"
    if origin is tuple:
        return "list"
    return _kind(get_args(kind)[0]) if get_args(kind) else ""


def _bound(limit: object) -> str:
    match limit:
        case Ge(ge=bound):
            return f"{bound} or more"
        case Gt(gt=bound):
            return f"above {bound}"
        case Le(le=bound):
            return f"{bound} or less"
        case Lt(lt=bound):
            return f"below {bound}"
    return ""


if __name__ == "__main__":
    print(reference(), end="")
