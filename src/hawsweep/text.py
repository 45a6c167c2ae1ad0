"""Formats of numbers, settings and texts."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any

# Controls but LF and tab (category Cc), separators of lines (Zl, Zp), embeddings, overrides and
# isolates of the writing direction, and surrogates (Cs). Unicode adds no more to these.
ACTING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)

# What a long task does now, in words; the caller shows it.
SayProgress = Callable[[str], None]


def settings_text(settings: Mapping[str, Any]) -> str:
    """Settings in one line, by their last names."""
    return "  ".join(f"{short_name(key)} {setting(value)}" for key, value in settings.items())


def short_name(key: str) -> str:
    """A key as a column's title."""
    return {"learning_rate": "lr", "grad_accumulation_steps": "accum"}.get(
        key, key.rsplit(".", 1)[-1]
    )


def setting(value: Any) -> str:
    """A setting's value, empty for None."""
    if value is None:
        return ""
    return (
        f"{value:.2e}"
        if isinstance(value, float) and value < 0.01
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


def short_repr(record: Any) -> str:
    """The ``repr`` of a dataclass for people: numbers with six digits, and no None."""
    values = ((each.name, getattr(record, each.name)) for each in fields(record))
    shown = (
        f"{name}={value:.6g}" if isinstance(value, float) else f"{name}={value!r}"
        for name, value in values
        if value is not None
    )
    return f"{type(record).__name__}({', '.join(shown)})"


def number(value: float | None, form: str, factor: float = 1) -> str:
    """A number in a format, times a factor; empty for None."""
    if value is None:
        return ""
    return form.format(value * factor if factor != 1 else value)


def visible(text: str) -> str:
    """A text with its control characters written out, all but line breaks and tabs: in a terminal
    they would do something. Separators of lines and paragraphs, marks that set the direction of
    writing, and halves of characters are written out too. Letters, marks and joiners stay.
    """
    return ACTING.sub(lambda found: ascii(found[0])[1:-1], text)


def visible_line(text: str) -> str:
    """``visible`` with the line breaks written out too: a text that cannot begin a line."""
    return visible(text).replace("\n", "\\n")


def score_range(low: float | None, high: float | None, *, is_short: bool) -> str:
    """An interval's ends, without their zeros where there is little room."""
    if low is None or high is None:
        return ""
    if is_short and 0 <= low <= high < 0.995:
        return f"{low:.2f}-{high:.2f}".replace("0.", ".")
    return f"{low:.3f}-{high:.3f}"


def finite(low: float, high: float) -> tuple[float | None, float | None]:
    """Both ends of an interval, or None for both."""
    return (low, high) if math.isfinite(low) and math.isfinite(high) else (None, None)


def counted(count: int, noun: str) -> str:
    """``1 fault``, ``2 faults``."""
    return f"{count} {noun}{'s' * (count != 1)}"


def faults_text(faults: Mapping[str, int] | None) -> str:
    """``3 empty, 1 cut``."""
    return ", ".join(f"{count} {fault}" for fault, count in sorted((faults or {}).items()))


def opened_text(n_opened: int) -> str:
    """A warning where the test split was opened more than once; else empty."""
    if n_opened < 2:
        return ""
    return (
        f"The test split was opened {n_opened} times, which counts each time that answering it "
        "began: a choice made after the first makes the result too high."
    )


def clock(seconds: float) -> str:
    """A time in a table: ``0:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def duration(seconds: float) -> str:
    """A time in a sentence: ``45 s``, ``12 min``, ``6 h 13 min``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return " ".join([*([f"{hours} h"] * bool(hours)), *([f"{minutes} min"] * bool(minutes))])


def shorten(text: str, length: int = 160) -> str:
    """A text in one line, cut where it is too long."""
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1]}…"


def when(at: float, now: float) -> str:
    """A time of day; with its date where that is another: ``07:05``, ``Fri 27 Nov 07:05``."""
    moment, today = datetime.fromtimestamp(at), datetime.fromtimestamp(now)
    return f"{moment:%H:%M}" if moment.date() == today.date() else f"{moment:%a %d %b %H:%M}"


def time_text(seconds: float) -> str:
    """A time as a sweep has it, in whole minutes: ``7h30m``."""
    hours, minutes = divmod(max(1, int(seconds / 60)), 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes or not hours else "")
