"""Sizes and durations as people write them: ``24GB``, ``75%``, ``8h``."""

import re
from decimal import Decimal

_UNITS = {"GB": 10**9, "GiB": 2**30, "MB": 10**6, "MiB": 2**20}
_LARGEST = 2**50


def parse_size(text: object, form: str = "a size such as 24GB") -> int:
    """Bytes out of ``"24GB"`` (10**9 each), ``"1.5GiB"`` (2**30), ``"500MB"`` or ``"512MiB"``.

    Args:
        form: The allowed form, for the message of a fault.

    Raises:
        ValueError: It is none of these, such as a number without a unit, not above 0, or above
            2**50.
    """
    number, unit = _split(text, "|".join(_UNITS), form)
    size = int(number * _UNITS[unit])
    if size <= 0:
        raise ValueError("must be above 0")
    if size > _LARGEST:
        raise ValueError("must be 1125899 GB or less, as no machine has more")
    return size


def parse_share(text: object, form: str = "a share such as 75%") -> float:
    """A share from 0 to 1 out of ``"75%"``.

    Args:
        form: The allowed form, for the message of a fault.

    Raises:
        ValueError: It is none, not above 0 %, or above 100 %.
    """
    number, _ = _split(text, "%", form)
    if not 0 < number <= 100:
        raise ValueError("must be above 0% and not above 100%")
    return float(number / 100)


def _split(text: object, units: str, form: str) -> tuple[Decimal, str]:
    pattern = rf"(-?[0-9]+(?:\.[0-9]+)?)({units})"
    match = re.fullmatch(pattern, text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"must be {form}")
    return Decimal(match[1]), match[2]


_LONGEST_S = 10 * 365 * 86400


def parse_duration(value: object) -> float:
    """Seconds out of ``90``, ``"20m"``, ``"8h"`` or ``"1h30m"``.

    Raises:
        ValueError: It is none of these, or not above 0.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    else:
        match = re.fullmatch(
            r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?",
            str(value),
        )
        if match is None or not any(match.groups()):
            raise ValueError("must be a time such as 90s, 20m, 8h or 1h30m")
        seconds = sum(
            float(n) * unit
            for n, unit in zip(match.groups(), (86400, 3600, 60, 1), strict=True)
            if n
        )
    if not 0 < seconds <= _LONGEST_S:
        raise ValueError("must be longer than 0, and no longer than ten years")
    return seconds
