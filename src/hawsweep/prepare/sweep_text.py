"""A drafted sweep as a file: each key on a line of its own, with the reason beside it."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

_COLUMN = 44
_PLAIN = re.compile(r"[A-Za-z_~/.][\w./~-]*|\d+h(\d+m)?|\d+m")
# Texts that YAML would not read as text.
_NO_TEXT = {"true", "false", "yes", "no", "on", "off", "null", "none", "nan", ".inf", ".nan", "~"}
# Sections that begin a paragraph.
_PARAGRAPHS = ("train", "search", "memory")


def render(content: Mapping[str, Any], reasons: Mapping[str, str], head: Sequence[str]) -> str:
    """The YAML of ``content``, in the same order.

    Args:
        reasons: The comment beside each dotted key. A key with a reason and keys below it is
            written on one line.
        head: Comments at the top.
    """
    lines = [f"# {_one_line(each)}" for each in head]
    for key, value in content.items():
        if key in _PARAGRAPHS:
            lines.append("")
        lines += _lines(key, value, reasons, key, 0)
    return "\n".join(lines) + "\n"


def _lines(key: str, value: Any, reasons: Mapping[str, str], path: str, level: int) -> list[str]:
    indent = "  " * level
    if isinstance(value, Mapping) and path not in reasons:
        found = [f"{indent}{key}:"]
        for name, below in value.items():
            found += _lines(name, below, reasons, f"{path}.{name}", level + 1)
        return found
    line = f"{indent}{key}: {scalar(value)}"
    reason = _one_line(reasons.get(path, ""))
    return [f"{line:<{_COLUMN - 2}}  # {reason}" if reason else line]


def scalar(value: Any) -> str:
    """A value in one line of YAML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {scalar(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(scalar, value)) + "]"
    if isinstance(value, str):
        is_plain = _PLAIN.fullmatch(value) and value.lower() not in _NO_TEXT
        return value if is_plain else _quoted(value)
    if isinstance(value, float):
        return short(value)
    return json.dumps(value)


def _quoted(text: str) -> str:
    # Some characters that JSON does not escape end a line in YAML, or are not allowed in it.
    return "".join(
        each if each.isprintable() else f"\\U{ord(each):08x}"
        for each in json.dumps(text, ensure_ascii=False)
    )


def short(value: float) -> str:
    """A number as people write it: ``2e-5``, ``0.05``."""
    text = f"{value:.3g}" if value == 0 or abs(value) >= 1e-2 else f"{value:.3e}"
    return re.sub(r"\.?0*e([+-])0?", r"e\1", text)


def _one_line(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in " ".join(text.split()))
