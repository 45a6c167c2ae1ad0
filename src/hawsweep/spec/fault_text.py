"""The faults that the schema finds in a sweep, in words."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from hawsweep.spec.other_words import tell_word
from hawsweep.spec.space import Choices, Range
from hawsweep.spec.sweep import GONE_KEYS, DataSpec, SweepSpec

# The most characters of a value in a message.
MAX_SHOWN = 100
_TUPLE = "tuple[float, ...]"
_KINDS = ("bool", "int", "float", "str", _TUPLE)
_MESSAGES = {
    "no_kind": "must be a finite number, true or false, or a name",
    "invalid_key": "must be text: put it in quotes",
    "finite_number": "must be a finite number",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be {le} or less",
    "literal_error": "must be {expected}",
    "too_short": "must have at least {min_length}",
    "string_too_short": "must not be empty",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "tuple_type": "must be a list",
}


def _named(fault: Mapping[str, Any], content: Mapping[str, Any]) -> Mapping[str, Any]:
    """A fault of the only data set is ``data.weight``, not ``data[0].weight``."""
    place = tuple(fault["loc"])
    if place[:2] == ("data", 0) and not isinstance(content.get("data"), list):
        return {**fault, "loc": ("data", *place[2:])}
    return fault


def describe_all(error: ValidationError, content: Mapping[str, Any]) -> Iterator[str]:
    """Each fault that the schema found in a sweep, as a sentence."""
    seen = set()
    for fault in error.errors():
        named = _named(fault, content)
        place = named["loc"]
        # A value of several possible types has a fault for each.
        end = len(place) - (2 if place[-2:-1] == (_TUPLE,) else 1)
        if place[end] in _KINDS and named["type"] != "extra_forbidden":
            if place[:end] in seen:
                continue
            seen.add(place[:end])
            named = {**named, "loc": place[:end], "type": "no_kind"}
        yield _describe(named)


def _describe(fault: Mapping[str, Any]) -> str:
    place = list(fault["loc"])
    if place[0] == "search" and len(place) > 2:
        del place[2]  # the name of one of the two forms in the schema
    if fault["type"] == "invalid_key" or place[-1:] == ["[key]"]:
        at = place[:-1] if fault["type"] == "invalid_key" else place[:-2]
        return (
            f"{_path(at) or 'The sweep'} has the key {shown(fault['input'])}, {message_of(fault)}."
        )
    key = _path(place)
    given = fault["input"]
    if fault["type"] == "extra_forbidden":
        if key in GONE_KEYS:
            return f"{key} is no longer a key: {GONE_KEYS[key]}."
        if told := tell_word(str(place[-1])):
            return f"{key} is not a key: {told}"
        known = _keys_at(place[:-1])
        if place[-1] in known:  # a key of the other form of search
            return f"{_path(place[:-1])} has choices beside low or high. Give one or the other."
        return f"{key} is not a key{nearest(str(place[-1]), known)} Known here: {', '.join(known)}."
    if fault["type"] == "missing":
        return f"{key} is missing."
    if fault["type"] in ("model_type", "dict_type"):
        form = "{low: ..., high: ...} or {choices: [...]}" if "search" in place[:-1] else "keys"
        return f"{key} is {shown(given)}, must be {form}."
    # A wrong value of ``notify`` may be a secret.
    hides = key == "notify" or isinstance(given, dict | BaseModel)
    if fault["type"] == "value_error" and hides:
        return f"{key}: {message_of(fault)}."
    return f"{key} is {shown(given)}, {message_of(fault)}."


def message_of(fault: Mapping[str, Any]) -> str:
    """What must hold instead: ``must be above 0``."""
    context = fault.get("ctx", {})
    if fault["type"] == "value_error":
        return str(context["error"])
    if fault["type"] in _MESSAGES:
        return _MESSAGES[fault["type"]].format(**context)
    text = str(fault["msg"])
    return text[:1].lower() + text[1:]


def _path(place: Iterable[str | int]) -> str:
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def shown(value: object) -> str:
    """A value for a message: as in Python, a long one cut."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _keys_at(place: Iterable[str | int]) -> list[str]:
    section: Any = SweepSpec
    for part in place:
        if part == "data":
            section = DataSpec
            continue
        if isinstance(part, int):
            continue
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            break
        field = section.model_fields.get(str(part))
        if field is None:
            break
        section = field.annotation
        if part == "search":
            return [*Range.model_fields, *Choices.model_fields]
    return (
        list(section.model_fields)
        if isinstance(section, type) and issubclass(section, BaseModel)
        else []
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """Ends a sentence about an unknown name, with the nearest known one where one is near."""
    close = difflib.get_close_matches(name[:MAX_SHOWN], list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else "."
