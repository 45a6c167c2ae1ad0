"""A sweep file becomes a SweepSpec: finding it, overriding keys, and every fault at once."""

import itertools
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hawsweep.errors import SpecError
from hawsweep.files import read_regular
from hawsweep.layout import SPEC_FILE
from hawsweep.spec.fault_text import MAX_SHOWN, describe_all, message_of, nearest, shown
from hawsweep.spec.other_words import tell_word
from hawsweep.spec.scoring import ScoringSpec
from hawsweep.spec.space import (
    MODEL,
    SEARCHABLE,
    Choices,
    Range,
    SearchValue,
    apply_settings,
    choices_of,
    corners,
    set_key,
)
from hawsweep.spec.sweep import SweepSpec, without_gone_keys
from hawsweep.spec.train import TrainSpec
from hawsweep.spec.yaml_text import MAX_LEVELS, parse_yaml

# The beginning of a study's own ``spec.yaml``, which has all keys of its version.
STORED = '# {"versions": '
_MAX_BYTES = 1_000_000
_MAX_FAULTS = 50
# Keys that decide whether settings contradict each other.
_INTERPLAY = (
    "fine_tune_type",
    "learning_rate",
    "iters",
    "grad_accumulation_steps",
    "optimizer",
    "lora_parameters.scale",
    "lora_parameters.alpha",
    "lora_parameters.loraplus_lr_ratio",
    "lr_schedule.name",
    "lr_schedule.warmup_ratio",
)


def sweep_names() -> dict[str, Path]:
    """The sweeps that can be started by name: those in ``sweeps/`` here before hawsweep's own."""
    found: dict[str, Path] = {}
    for folder in (bundled_dir(), Path("sweeps")):
        for path in sorted(folder.glob("*.y*ml")):
            found[_name_of(path.stem)] = path
    return found


def _name_of(text: str) -> str:
    return unicodedata.normalize("NFC", text)  # a Mac's files may have the other form


def bundled_dir() -> Path:
    """The folder of the sweeps that come with hawsweep."""
    inside = Path(str(resources.files("hawsweep"))) / "sweeps"
    return inside if inside.is_dir() else inside.parents[2] / "sweeps"  # an editable install


def find_sweep(name: str) -> Path:
    """The file of a sweep, by name or by path.

    Raises:
        SpecError: There is no such sweep; the message lists the sweeps.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if os.path.lexists(path):  # what it is, reading it says
            return path
        raise SpecError(f"There is no sweep file {name}. Check the path.")
    sweeps = sweep_names()
    if (normal := _name_of(name)) in sweeps:
        return sweeps[normal]
    raise SpecError(
        f"There is no sweep {name!r}{nearest(name, sweeps)} "
        f"Known: {', '.join(sorted(sweeps)) or 'none'}. Write sweeps/{name}.yaml, or give a "
        "file's path."
    )


def study_name_of(path: Path) -> str:
    """The study that the sweep of a file makes without another name; a study's stored one, in the
    study's folder, is its own.
    """
    is_stored = path.name == SPEC_FILE and _read_text(path).startswith(STORED)
    return path.resolve().parent.name if is_stored else path.stem


def load_sweep(
    sweep: str | Path | Mapping[str, Any], overrides: Mapping[str, Any] | None = None
) -> SweepSpec:
    """Give a sweep by its name, by the path of its file, or by its keys.

    Args:
        overrides: Dotted key to value: ``{"trials": 4, "train.batch_size": 2}``.

    Raises:
        SpecError: There is no such sweep, or it has wrong values: every fault in one
            message, each with its key.
    """
    changes = _plain(overrides or {})
    if not isinstance(sweep, Mapping):
        return read_sweep(find_sweep(str(sweep)), changes)
    content = _plain(sweep)
    for key, value in changes.items():
        set_key(content, key, value)
    return check_sweep(content, "the sweep")


def _plain(value: Any) -> Any:
    """Values of a program in the form of a file: lists, and text for paths."""
    if isinstance(value, Mapping):
        return {key: _plain(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(below) for below in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def read_sweep(path: Path, overrides: Mapping[str, Any] | None = None) -> SweepSpec:
    """Read and check a sweep file.

    Args:
        overrides: Dotted key to value, applied before checking; see ``parse_override``.

    Raises:
        SpecError: Every fault of the file in one message, each with its key.
    """
    text = _read_text(path)
    try:
        content = parse_yaml(text)
    except ValueError as fault:
        raise SpecError(f"{path} is not YAML: {fault}. Correct it there.") from fault
    if not isinstance(content, dict):
        raise SpecError(
            f"{path} holds {_kind(content)}, must hold keys such as model, data and search."
        )
    if text.startswith(STORED):
        content = without_gone_keys(content)
    for key, value in (overrides or {}).items():
        set_key(content, key, value)
    return check_sweep(content, str(path))


def _read_text(path: Path) -> str:
    try:
        return read_regular(path, _MAX_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise SpecError(f"{path} is not UTF-8 text: {fault}. Save it as UTF-8.") from fault
    except OSError as fault:
        raise SpecError(f"{path} cannot be read: {fault.strerror}.") from fault


def check_sweep(content: dict[str, Any], where: str) -> SweepSpec:
    """Check a sweep given as plain values; ``where`` opens the message of a fault."""
    content = {**content}
    if isinstance(content.get("search"), dict):
        content["search"] = dict(_flatten_search(content["search"]))
    spec = None
    of_schema: Iterable[str] = ()
    try:
        spec = SweepSpec.model_validate(content)
    except ValidationError as error:
        of_schema = describe_all(error, content)
    faults: dict[str, None] = {}
    for fault in itertools.chain(of_schema, _check_search(content, spec)):
        faults[fault] = None
        if len(faults) > _MAX_FAULTS:
            break
    if faults:
        said = list(faults)[:_MAX_FAULTS]
        if len(faults) == 1:
            raise SpecError(f"{where}: {said[0]}")
        count = f"{len(said)} faults" if len(faults) == len(said) else f"over {len(said)} faults"
        raise SpecError(f"{where} has {count}:", lines=said)
    assert spec is not None
    return spec


def check_metric_options(values: dict[str, Any]) -> ScoringSpec:
    """Check the section ``scoring`` alone.

    Raises:
        SpecError: It has a wrong value.
    """
    try:
        return ScoringSpec.model_validate(values)
    except ValidationError as error:
        raise SpecError(f"scoring: {' '.join(describe_all(error, values))}") from error


def parse_override(text: str, option: str = "--set ") -> tuple[str, Any]:
    """``train.batch_size=2`` as a dotted key and its YAML value; messages begin with ``option``.

    Raises:
        SpecError: There is no ``=``, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    said = text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
    if not equals or not key.strip():
        example = f"{option}train.batch_size=2" if option else "learning_rate=2e-4"
        raise SpecError(f"{option}{said}: must be KEY=VALUE, such as {example}.")
    if key.count(".") >= MAX_LEVELS:
        raise SpecError(f"{option}{said}: the key has more than {MAX_LEVELS} levels.")
    try:
        return key.strip(), parse_yaml(value)
    except ValueError as fault:
        raise SpecError(f"{option}{said}: the value is not YAML: {fault}.") from fault


def _flatten_search(search: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in search.items():
        name = f"{prefix}{key}"
        nested = (
            isinstance(value, dict)
            and name not in SEARCHABLE
            and any(k.startswith(f"{name}.") for k in SEARCHABLE)
        )
        if nested:
            yield from _flatten_search(value, f"{name}.")
        else:
            yield name, value


def _check_search(content: Mapping[str, Any], spec: SweepSpec | None) -> Iterator[str]:
    search = content.get("search")
    if search == {}:
        yield (
            "search is empty: name at least one key to vary, such as learning_rate: {low: 1e-5, "
            "high: 1e-3, log: true}."
        )
    if not isinstance(search, dict):
        return
    for key, asked in search.items():
        if key not in SEARCHABLE:
            told = tell_word(key)
            near = f": {told}" if told else nearest(key, SEARCHABLE)
            yield (f"search.{key} cannot be searched{near} Searchable: {', '.join(SEARCHABLE)}.")
            continue
        yield from _check_values(key, asked)
        if spec is not None and _is_fixed(spec.train, key):
            yield f"search.{key} is also fixed as train.{key}. Remove one of them."
    if MODEL in search and MODEL in content:
        one = shown(content[MODEL])
        yield (
            f"model is {one}, but search.model has several. Leave out one of them, or train "
            f"that one alone: --set search.model.choices=[{content[MODEL]}]."
        )
    if spec is not None:
        yield from _check_together(spec)


def _check_together(spec: SweepSpec) -> Iterator[str]:
    yield from _check_corners(spec)
    used = choices_of(spec.search.get("optimizer"), spec.train.optimizer)
    configured = {*spec.train.optimizer_config}
    if "optimizer_config.adamw.weight_decay" in spec.search:
        configured.add("adamw")
    for name in sorted(configured.difference(map(str, used))):
        yield (
            f"optimizer_config.{name} is for an optimizer that no trial uses. Remove it, or set "
            f"train.optimizer: {name}."
        )
    for number, settings in enumerate(spec.enqueue or ()):
        yield from _check_enqueued(settings, spec, f"enqueue[{number}].")


def _check_corners(spec: SweepSpec) -> Iterator[str]:
    """Each contradiction between settings of the space, once, with the first such settings."""
    anyway = set(_contradictions(spec.train, {}))
    seen: set[str] = set()
    for settings in (*corners(spec.search, _INTERPLAY), *(spec.enqueue or ())):
        for fault in _contradictions(spec.train, settings):
            key = fault.split(" ")[0]
            if key not in seen:
                seen.add(key)
                at = ", ".join(f"{key} {value}" for key, value in settings.items())
                yield fault if fault in anyway else f"{fault} This is with {at}."


def _contradictions(train: TrainSpec, settings: Mapping[str, SearchValue]) -> Iterator[str]:
    try:
        faults: Iterable[str] = apply_settings(train, settings).contradictions()
    except ValidationError as error:
        faults = describe_all(error, {})
    yield from (f"train.{fault}" for fault in faults)


def check_settings(settings: Mapping[str, SearchValue], spec: SweepSpec) -> Iterator[str]:
    """The faults of settings to be tried, as sentences."""
    for key, value in settings.items():
        if not isinstance(value, bool | int | float | str):
            yield f"{key} is {shown(value)}, must be a number or a name."
            return
    yield from list(_check_enqueued(settings, spec)) or _contradictions(spec.train, settings)


def _check_enqueued(
    settings: Mapping[str, SearchValue], spec: SweepSpec, where: str = ""
) -> Iterator[str]:
    for key, value in settings.items():
        if key in spec.search:
            yield from _check_value(f"{where}{key}", value, spec.search[key])
        else:
            known = ", ".join(spec.search)
            yield f"{where}{key} is not searched{nearest(key, spec.search)} Searched: {known}."


def _check_value(where: str, value: SearchValue, asked: Range | Choices) -> Iterator[str]:
    if isinstance(asked, Choices):
        if value not in asked.choices:
            yield (
                f"{where} is {shown(value)}, must be one of the choices "
                f"{', '.join(map(str, asked.choices))}."
            )
    elif isinstance(value, str) or not asked.low <= value <= asked.high:
        yield f"{where} is {shown(value)}, must be between {asked.low:g} and {asked.high:g}."
    elif not asked.is_on_step(value):
        yield f"{where} is {value!r}, must be {asked.low:g} and whole steps of {asked.step:g}."


def _check_values(key: str, asked: Any) -> Iterator[str]:
    if not isinstance(asked, dict):
        return  # the schema says so
    values = asked.get("choices")
    named = (
        [(f"choices[{i}]", value) for i, value in enumerate(values)]
        if isinstance(values, list)
        else [(end, asked[end]) for end in ("low", "high") if end in asked]
    )
    for end, value in named:
        if message := _refusal(key, value):
            yield f"search.{key}.{end} is {shown(value)}, {message}."
    if SEARCHABLE[key] is str and "low" in asked:
        yield f"search.{key} is a name, must be given as choices."
    numbers = [value for _, value in named if isinstance(value, int | float)]
    shares = ", ".join(str(value) for value in numbers if key == "num_layers" and 0 < value < 1)
    if shares and "choices" not in asked:
        yield (
            f"search.num_layers has shares ({shares}) as ends of a range. Give shares as choices, "
            "such as {choices: [0.25, 0.5, -1]}."
        )
    elif shares and max(numbers) >= 1:
        yield (
            f"search.num_layers has shares ({shares}) beside numbers of layers. Use shares "
            "alone; -1 is all layers."
        )
    elif key == "num_layers" and isinstance(asked.get("low"), int) and asked["low"] < 1:
        yield (
            f"search.num_layers.low is {asked['low']}, must be 1 or more: a range would come to 0. "
            "Use choices to try -1, all layers."
        )
    if SEARCHABLE[key] is int and isinstance(asked.get("step"), float) and asked["step"] % 1:
        yield f"search.{key}.step is {asked['step']!r}, must be a whole number."


def _refusal(key: str, value: Any) -> str | None:
    """The reason why no trial can use this value, or None."""
    if key == MODEL:
        return None if isinstance(value, str) and value else "must be the name of a model"
    if SEARCHABLE[key] is not str and isinstance(value, bool | str):
        return "must be a number"
    content: dict[str, Any] = {}
    set_key(content, key, value)
    try:
        TrainSpec.model_validate(content)
    except ValidationError as error:
        return message_of(error.errors()[0])
    return None


def _is_fixed(train: TrainSpec, key: str) -> bool:
    section: Any = train.model_dump(exclude_unset=True)
    for part in key.split("."):
        if part not in section:
            return False
        section = section[part]
    return True


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
