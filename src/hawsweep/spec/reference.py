"""The reference of every key of a sweep: ``python -m hawsweep.spec.reference``."""

import ast
import difflib
import inspect
import itertools
import sys
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from hawsweep.errors import SpecError
from hawsweep.spec.other_words import key_of_word
from hawsweep.spec.read import bundled_dir, read_sweep
from hawsweep.spec.space import MODEL, SEARCHABLE, Choices, Range
from hawsweep.spec.sweep import SweepSpec

_HEAD = """# Sweeps

A sweep is a YAML file; `hawsweep start NAME` reads `sweeps/NAME.yaml`. `hawsweep init NAME` writes
one for your data and your machine, `hawsweep validate NAME` checks it, and `hawsweep explain KEY`
shows in the terminal what is below.
"""
_BUNDLED = """## Sweeps that come with hawsweep

Each answers the question in its description. Sweeps of `smollm2-135m-instruct` and `phrasebook` run
without changes; `--model REF --data REF` sets another model and data.

| sweep | model | data | question |
| --- | --- | --- | --- |
"""
_KEYS = """## Keys

The keys of `train` and `search` are `mlx_lm.lora`'s, with its meaning; the last column names other
sources of a key. Any key can be set on the command line:
`--set train.batch_size=2`.

`data` is one data set or a list of them, each a name or the keys below; `train.lr_schedule` may be
its name alone. An empty second column means: not set.
"""
_SEARCH = """## `search`

The keys that the study varies, each as `{low: ..., high: ...}`, both ends included, if wanted with
`log: true` or `step: ...`, or as `{choices: [...]}`. These keys of `train` can be searched:
"""
_MODELS = """
Beside them `model`, as `{choices: [...]}`: several base models in one study, each measured untuned.
The key `model` itself is then left out. Trials are pruned by the validation loss per UTF-8 byte of
the learned text, because models cut text into different tokens; `val_loss` stays per token. All
models are validated on the same records. A model that does not fit into memory is named and left
out; the others go on.
"""
_TABLE_HEAD = (
    "| key | default | allowed | meaning | known from |\n| --- | --- | --- | --- | --- |\n"
)
_MLX_LM = "mlx-lm"
# Keys that mlx_lm.lora has by the same name. Kept here, as asking it would load MLX.
_SAME_IN_MLX_LM = {
    *("model", "seed", "trust_remote_code"),
    *("train.fine_tune_type", "train.learning_rate", "train.iters", "train.batch_size"),
    *("train.grad_accumulation_steps", "train.num_layers", "train.optimizer"),
    *("train.optimizer_config", "train.mask_prompt", "train.max_seq_length"),
    *("train.grad_checkpoint", "train.steps_per_report", "train.steps_per_eval", "train.seed"),
    *(f"train.lora_parameters.{key}" for key in ("rank", "scale", "dropout", "keys")),
    *(f"train.lr_schedule.{key}" for key in ("name", "warmup", "warmup_init")),
}
# The origin of a key's name and meaning, without ``train``, if mlx_lm.lora has no such key.
_SOURCES = {
    "lora_parameters.alpha": "PEFT `lora_alpha`",
    "lora_parameters.use_rslora": "PEFT",
    "lora_parameters.loraplus_lr_ratio": "PEFT",
    "lr_schedule.warmup_ratio": "transformers",
    "lr_schedule.decay_steps": "mlx-lm `lr_schedule.arguments`",
    "lr_schedule.end_factor": "mlx-lm `lr_schedule.arguments`",
    "max_grad_norm": "transformers",
    "early_stopping_patience": "transformers",
    "early_stopping_threshold": "transformers",
    "report_to": "transformers",
}
_SEARCH_MEANING = "The keys of train that the study varies, each with a range or choices."


@dataclass(frozen=True)
class Key:
    """One key of a sweep, explained for a person.

    Attributes:
        name: Dotted.
        kind: Its type in words: ``whole number``.
        limits: Of its values, in words: ``1 or more``; maybe none.
        default: As YAML; empty where it is not set.
        source: The origin of its name and meaning; maybe empty.
        example: Its line in a sweep.
        search_example: Its line under ``search``; empty where it cannot be searched.
    """

    name: str
    kind: str
    limits: tuple[str, ...]
    default: str
    is_required: bool
    meaning: str
    source: str
    example: str
    search_example: str

    @property
    def group(self) -> str:
        """The section it is in: ``train.lora_parameters``; empty for a key of the sweep itself."""
        return self.name.rpartition(".")[0]

    @property
    def allowed(self) -> str:
        """Its type and limits."""
        return ", ".join(filter(None, (self.kind, *self.limits)))


@cache
def all_keys() -> tuple[Key, ...]:
    """Every key of a sweep, in the order of its sections."""
    return tuple(_keys(SweepSpec))


def find_keys(asked: str) -> list[Key]:
    """The keys that a name may mean: itself; those of a section; those that end in it; the one for
    a word of another tool.

    Raises:
        SpecError: There is none; the message has the nearest.
    """
    name = asked.strip().strip(".")
    if name.startswith("search."):
        name = f"train.{name.removeprefix('search.')}"
    if name.startswith("train.optimizer_config."):
        name = "train.optimizer_config"
    known = {key.name: key for key in all_keys()}
    if name in known:
        return [known[name]]
    found = [key for key in known.values() if key.name.startswith(f"{name}.")]
    found = found or [
        key for key in known.values() if key.name.endswith(f".{name}") or f".{name}." in key.name
    ]
    if not found and (word := key_of_word(name)) is not None:
        return [known[word]]
    if not found:
        close = _nearest(name, list(known))
        meant = f" Near it: {', '.join(close)}." if close else ""
        raise SpecError(
            f"There is no key {asked[:100]!r}.{meant} `hawsweep explain` lists all keys."
        )
    return found


def _nearest(name: str, known: Sequence[str]) -> list[str]:
    """The keys with a similar spelling, whole or by their last part."""
    name = name[:100].lower()
    last: dict[str, list[str]] = {}
    for key in known:
        last.setdefault(key.rpartition(".")[2], []).append(key)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.75)
    for part in difflib.get_close_matches(name.rpartition(".")[2], [*last], n=3):
        close += last[part]
    return list(dict.fromkeys(close))[:5]


def reference() -> str:
    """The whole text, Markdown."""
    rows = "".join(_row(key) for key in all_keys())
    searchable = ", ".join(f"`{key}`" for key in SEARCHABLE if key != MODEL)
    return "\n".join(
        (
            _HEAD,
            _BUNDLED + "".join(_bundled_rows()),
            _KEYS,
            _TABLE_HEAD + rows,
            f"{_SEARCH}\n{searchable}.",
            _MODELS,
        )
    )


def _bundled_rows() -> Iterator[str]:
    for path in sorted(bundled_dir().glob("*.yaml")):
        spec = read_sweep(path)
        data = ", ".join(f"`{each.path}`" for each in spec.data)
        question = spec.description.replace("|", "&#124;")
        models = ", ".join(f"`{each}`" for each in spec.models)
        yield f"| [{path.stem}]({path.name}) | {models} | {data} | {question} |\n"


def _row(key: Key) -> str:
    if key.name == "search":
        return "| `search` | | keys with ranges or choices | See below. | Optuna |\n"
    default = "*required*" if key.is_required else f"`{key.default}`" if key.default else ""
    return f"| `{key.name}` | {default} | {key.allowed} | {key.meaning} | {key.source} |\n"


def _keys(section: type[BaseModel], prefix: str = "") -> Iterator[Key]:
    meanings = _meanings(section.__module__)
    for name, field in section.model_fields.items():
        key = f"{prefix}{name}"
        if below := _section(field):
            yield from _keys(below, f"{key}.")
            continue
        is_search = key == "search"
        example, *searched = field.examples or []
        sections, searched_as = prefix.split(".")[:-1], key.removeprefix("train.")
        yield Key(
            key,
            "keys with ranges or choices" if is_search else _kind(field.annotation),
            tuple(filter(None, map(_bound, field.metadata))),
            "" if field.is_required() else _default(field),
            field.is_required(),
            _SEARCH_MEANING if is_search else meanings[section.__name__, name],
            _source(key),
            _line(sections, example),
            "".join(_line(["search"], each, f"{searched_as}: ") for each in searched),
        )


@cache
def _meanings(module: str) -> dict[tuple[str, str], str]:
    """The text below each key where a module declares it, by the key's class and name."""
    found: dict[tuple[str, str], str] = {}
    for declared in ast.parse(inspect.getsource(sys.modules[module])).body:
        for key, below in itertools.pairwise(getattr(declared, "body", [])):
            match key, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(ast.Constant(str(text))):
                    found[getattr(declared, "name", ""), name] = " ".join(text.split())
    return found


def _line(sections: Sequence[str], example: str, before: str = "") -> str:
    """A line of a sweep with what stands in a section; an example may be a line already."""
    if sections and example.startswith(f"{sections[0]}:"):
        return example
    line = f"{before}{example}"
    for section in reversed(sections):
        line = f"{section}: {{{line}}}"
    return line


def _section(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    if get_origin(kind) is tuple:  # several data sets, or one
        kind = get_args(kind)[0]
    if get_origin(kind) in (Union, types.UnionType):  # keys that may not be set
        kind = get_args(kind)[0]
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if isinstance(kind, type) and issubclass(kind, BaseModel) and kind not in (Range, Choices):
        return kind
    return None


def _source(key: str) -> str:
    """The origin of a key's name, which a user may know."""
    if key.split(".")[0] in ("pruning", "sampler", "search"):
        return "Optuna"
    return _MLX_LM if key in _SAME_IN_MLX_LM else _SOURCES.get(key.removeprefix("train."), "")


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined or value in ("", {}):
        return ""
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


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
