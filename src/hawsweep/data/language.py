"""How much a text looks like others, by its sequences of characters."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from hawsweep.data.normal_text import folded

_LENGTH = 3
# Added to the count of each sequence of characters.
_SMOOTHING = 0.5


class Profile:
    """How often texts have each sequence of three characters."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._counts: Counter[str] = Counter()
        for text in texts:
            self._counts.update(_sequences(text))
        self._total = self._counts.total()

    def log_probability(self, text: str, *, is_own: bool) -> float:
        """Of a sequence of a text, on average.

        Args:
            is_own: Whether the profile was learned from this text too, which then counts for
                nothing.
        """
        own = Counter(_sequences(text))
        taken = own if is_own else Counter[str]()
        room = self._total - taken.total() + _SMOOTHING * (len(self._counts) + 1)
        known = np.array([self._counts[each] - taken[each] for each in own], float)
        weights = np.array(list(own.values()), float)
        return float(weights @ np.log((known + _SMOOTHING) / room) / weights.sum())


def _sequences(text: str) -> Iterator[str]:
    padded = f"  {folded(text).casefold().strip()} "
    return (padded[at : at + _LENGTH] for at in range(len(padded) - _LENGTH + 1))


def robust_z(values: npt.NDArray[np.float64], least: float = 1e-9) -> npt.NDArray[np.float64]:
    """How far values are from their median, in deviations that outliers do not widen.

    NaN stays NaN.

    Args:
        least: The smallest deviation that is taken.
    """
    away = values - np.nanmedian(values)
    return away / max(1.4826 * float(np.nanmedian(np.abs(away))), least)
