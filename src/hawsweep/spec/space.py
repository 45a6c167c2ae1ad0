"""Search spaces: their values, and the training spec of a trial."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from hawsweep.spec.train import Section, TrainSpec

SearchValue = bool | int | float | str
# The only searched key outside of ``train``.
MODEL = "model"


class Range(Section):
    """Numbers from low to high, both included."""

    low: float
    high: float
    log: bool = False
    step: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> "Range":
        if self.low > self.high:
            raise ValueError(f"low is {self.low:g}, must not be above high, which is {self.high:g}")
        if self.log and self.step is not None:
            raise ValueError("log and step are both given; Optuna allows one of them")
        if self.log and self.low <= 0:
            raise ValueError(f"low is {self.low:g}, must be above 0 where log is true")
        if self.step is not None and not (self.high - self.low) / self.step < 2**53:
            raise ValueError(f"step is {self.step:g}, too small for steps from low to high")
        if self.step is not None and not self.is_on_step(self.high):
            steps = math.floor((self.high - self.low) / self.step)
            raise ValueError(
                f"high is {self.high:g}, must be low and whole steps of {self.step:g}, such as "
                f"{self.low + steps * self.step:g} or {self.low + (steps + 1) * self.step:g}"
            )
        return self

    @property
    def given(self) -> tuple[float, float]:
        """The values that the sweep names: low and high."""
        return self.low, self.high

    def is_on_step(self, value: float) -> bool:
        """Whether a value is a whole number of steps above ``low``; always without a step."""
        if self.step is None:
            return True
        steps = (value - self.low) / self.step
        return math.isclose(steps, round(steps), abs_tol=1e-6)


def as_text(value: object) -> object:
    """A list of names as one text, and anything else as it is: a searched value is one."""
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        return ", ".join(value)
    return value


class Choices(Section):
    """A list of values to choose from."""

    choices: tuple[SearchValue, ...] = Field(min_length=1)

    @field_validator("choices", mode="before")
    @classmethod
    def _lists_as_text(cls, value: object) -> object:
        """Lists of names as texts."""
        if not isinstance(value, list | tuple):
            return value
        return [as_text(each) for each in value]

    @field_validator("choices")
    @classmethod
    def _distinct(cls, value: tuple[SearchValue, ...]) -> tuple[SearchValue, ...]:
        if len(set(value)) < len(value):
            raise ValueError("must not have the same value twice")
        return value

    @property
    def given(self) -> tuple[SearchValue, ...]:
        """The values that the sweep names: the choices."""
        return self.choices


def _search_kind(value: object) -> str:
    is_choices = "choices" in value if isinstance(value, dict) else isinstance(value, Choices)
    return "choices" if is_choices else "range"


Search = Annotated[
    Annotated[Range, Tag("range")] | Annotated[Choices, Tag("choices")], Discriminator(_search_kind)
]


SEARCHABLE: dict[str, type] = {
    "fine_tune_type": str,
    "learning_rate": float,
    "iters": int,
    "batch_size": int,
    "grad_accumulation_steps": int,
    "num_layers": int,
    "optimizer": str,
    "optimizer_config.adamw.weight_decay": float,
    "max_grad_norm": float,
    "max_train_samples": int,
    "augment.name": str,
    "augment.share": float,
    "order": str,
    "max_seq_length": int,
    "lora_parameters.rank": int,
    "lora_parameters.scale": float,
    "lora_parameters.alpha": float,
    "lora_parameters.dropout": float,
    "lora_parameters.loraplus_lr_ratio": float,
    "lora_parameters.keys": str,
    "lr_schedule.name": str,
    "lr_schedule.warmup_ratio": float,
    "lr_schedule.end_factor": float,
    MODEL: str,
}


def choices_of(asked: Range | Choices | None, fixed: SearchValue) -> tuple[SearchValue, ...]:
    """The values that trials have of a key with names; ``fixed`` where it is not searched."""
    return asked.choices if isinstance(asked, Choices) else (fixed,)


def size_of(asked: Range | Choices, value: SearchValue) -> float:
    """A number as it is compared with others of its key: all blocks, -1, are more than any
    number of them that is named beside it.
    """
    if value == -1 and isinstance(asked, Choices) and not isinstance(value, bool):
        return 2 * max(1.0, *(float(each) for each in asked.choices))
    return float(value)


def values_of(key: str, asked: Range | Choices) -> list[SearchValue]:
    """The choices, numbers in order; for a range its low end, middle and high end."""
    if isinstance(asked, Choices):
        names = any(isinstance(value, str) for value in asked.choices)
        return list(asked.choices) if names else sorted(asked.choices, key=partial(size_of, asked))
    middle = (asked.low * asked.high) ** 0.5 if asked.log else (asked.low + asked.high) / 2
    return [nearest(asked, value, SEARCHABLE[key]) for value in (asked.low, middle, asked.high)]


def nearest(asked: Range | Choices, value: float, kind: type = float) -> SearchValue:
    """The allowed value nearest to one; of numbers to choose from, nearest by ratio."""
    if isinstance(asked, Choices):
        numbers = [float(choice) for choice in asked.choices]
        return asked.choices[min(range(len(numbers)), key=lambda i: abs(numbers[i] / value - 1))]
    value = min(max(value, asked.low), asked.high)
    if asked.step is not None:
        # 3 steps of 0.1 are more than 0.3, by rounding.
        value = min(asked.low + round((value - asked.low) / asked.step) * asked.step, asked.high)
    if kind is int:
        return round(value)
    if asked.step is not None:
        return value
    return float(f"{value:.3g}") if asked.low <= float(f"{value:.3g}") <= asked.high else value


def corners(
    search: Mapping[str, Range | Choices], keys: Iterable[str]
) -> Iterator[dict[str, SearchValue]]:
    """Settings at the ends of a search space: its ``keys`` at their lowest and highest values,
    names at each.
    """
    ends: dict[str, tuple[SearchValue, ...]] = {}
    for key in keys:
        asked = search.get(key)
        if isinstance(asked, Range):
            low, high = (SEARCHABLE[key](value) for value in (asked.low, asked.high))
            ends[key] = (low, high)
        elif isinstance(asked, Choices):
            named = any(isinstance(value, str) for value in asked.choices)
            ordered = values_of(key, asked)
            ends[key] = asked.choices if named else (ordered[0], ordered[-1])
    for values in itertools.product(*ends.values()):
        yield dict(zip(ends, values, strict=True))


def apply_settings(train: TrainSpec, settings: Mapping[str, SearchValue]) -> TrainSpec:
    """The training spec of a trial: the fixed settings with the searched ones put in, without the
    model.
    """
    content = train.model_dump(exclude_unset=True)
    for key, value in settings.items():
        if key != MODEL:
            set_key(content, key, value)
    return TrainSpec.model_validate(content)


def by_dotted_key(content: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    """The values of nested mappings, by their dotted keys, each behind ``start``."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        is_section = isinstance(value, Mapping)
        found |= by_dotted_key(value, f"{start}{key}.") if is_section else {f"{start}{key}": value}
    return found


def set_key(content: dict[str, Any], key: str, value: Any) -> None:
    """Put a value at a dotted key of plain nested values, making the levels above it."""
    parts = key.split(".")
    if parts[0] == "search":  # its keys contain dots
        names = [
            name
            for name in SEARCHABLE
            if key == f"search.{name}" or key.startswith(f"search.{name}.")
        ]
        if names:
            rest = key.removeprefix(f"search.{names[0]}").strip(".")
            parts = ["search", names[0], *([rest] if rest else [])]
        if parts[2:] == ["choices"]:  # instead of a range
            key, value, parts = ".".join(parts[:2]), {"choices": value}, parts[:2]
    for part in parts[:-1]:
        below = content.get(part)
        if isinstance(below, str) and part == "data":
            below = {"path": below}
        content[part] = dict(below) if isinstance(below, dict) else {}
        content = content[part]
    content[parts[-1]] = value
