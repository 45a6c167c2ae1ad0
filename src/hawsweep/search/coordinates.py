"""Settings as points, for the Gaussian process, and the points that may be proposed."""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from hawsweep.search.gaussian_process import Array
from hawsweep.spec.space import SEARCHABLE, Choices, Range, SearchValue, nearest, size_of
from hawsweep.spec.sweep import SweepSpec

# Learning rates half a decade apart differ in loss; of all else, the ends of the space do.
_DECADES_OF_RATE = 0.5
MOST_CANDIDATES = 2048
_VALUES_OF_RANGE = 49


class Coordinates:
    """The coordinates of settings in a search space, in units of the distance that matters.

    Learning rates and other logarithmic ranges count in decades, whole numbers in powers of two,
    other numbers as they are, names by equality.
    """

    def __init__(self, search: Mapping[str, Range | Choices]) -> None:
        self._search = dict(search)
        self._names: dict[str, tuple[SearchValue, ...]] = {}
        self._scales: dict[str, tuple[bool, float, float]] = {}
        for key, asked in search.items():
            if isinstance(asked, Choices) and SEARCHABLE[key] in (str, bool):
                self._names[key] = asked.choices
                continue
            ends = [size_of(asked, value) for value in asked.given]
            low, high = min(ends), max(ends)
            is_log = low > 0 and (
                key == "learning_rate"
                or SEARCHABLE[key] is int
                or (isinstance(asked, Range) and asked.log)
            )
            span = math.log10(high / low) if is_log else high - low
            unit = _DECADES_OF_RATE if key == "learning_rate" and is_log else span
            self._scales[key] = (is_log, low, unit or 1.0)
        self.kinds = np.array([key in self._names for key in self._search])

    def of(self, settings: Mapping[str, SearchValue]) -> list[float]:
        """The coordinates of a setting that the space contains."""
        return [self._coordinate(key, settings[key]) for key in self._search]

    def contains(self, settings: Mapping[str, object]) -> bool:
        """Whether settings have the keys of the space, each with a value that it allows."""
        return settings.keys() == self._search.keys() and all(
            _is_allowed(key, asked, settings[key]) for key, asked in self._search.items()
        )

    def _coordinate(self, key: str, value: SearchValue) -> float:
        if key in self._names:
            return float(self._names[key].index(value))
        is_log, low, unit = self._scales[key]
        number = size_of(self._search[key], value)
        return (math.log10(number / low) if is_log else number - low) / unit

    def count(self) -> float:
        """How many settings the space has; infinite with a range that has no steps."""
        return math.prod(_n_values(key, asked) for key, asked in self._search.items())

    def candidates(self, seed: int) -> list[dict[str, SearchValue]]:
        """Settings that may be proposed: all of them if the space has at most 2048, else those of a
        grid of its ranges; of more than 2048 some by chance.
        """
        most = MOST_CANDIDATES if self.count() <= MOST_CANDIDATES else _VALUES_OF_RANGE
        values = {key: _values(key, asked, most) for key, asked in self._search.items()}
        if math.prod(map(len, values.values())) <= MOST_CANDIDATES:
            return [
                dict(zip(values, each, strict=True)) for each in itertools.product(*values.values())
            ]
        random = np.random.default_rng(seed)
        drawn = [
            [of_key[i] for i in random.integers(len(of_key), size=MOST_CANDIDATES)]
            for of_key in values.values()
        ]
        return [dict(zip(values, each, strict=True)) for each in zip(*drawn, strict=True)]

    def array(self, settings: Sequence[Mapping[str, SearchValue]]) -> Array:
        """The coordinates of several settings, (n, d)."""
        return np.array([self.of(each) for each in settings]).reshape(len(settings), -1)


def most_trials(spec: SweepSpec) -> int:
    """The trials that a sweep asks for, or the settings of its space where those are fewer and
    none is repeated.
    """
    n_settings = Coordinates(spec.search).count()
    return int(min(spec.trials, n_settings)) if spec.sampler.name == "gp" else spec.trials


def _is_allowed(key: str, asked: Range | Choices, value: object) -> bool:
    if isinstance(asked, Choices):
        return value in asked.choices
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    is_whole = SEARCHABLE[key] is not int or value == round(value)
    return is_whole and asked.low <= value <= asked.high and asked.is_on_step(value)


def _n_values(key: str, asked: Range | Choices) -> float:
    if isinstance(asked, Choices):
        return len(asked.choices)
    if asked.low == asked.high:
        return 1
    step = asked.step or (1 if SEARCHABLE[key] is int else None)
    return math.inf if step is None else round((asked.high - asked.low) / step) + 1


def _values(key: str, asked: Range | Choices, most: int) -> list[SearchValue]:
    """All values of a key, or of a range with more than ``most`` as many, evenly spaced."""
    if isinstance(asked, Choices):
        return list(asked.choices)
    n_values = _n_values(key, asked)
    spaced = np.geomspace if asked.log and n_values > most else np.linspace
    found = (
        nearest(asked, float(value), SEARCHABLE[key])
        for value in spaced(asked.low, asked.high, int(min(n_values, most)))
    )
    return list(dict.fromkeys(found))
