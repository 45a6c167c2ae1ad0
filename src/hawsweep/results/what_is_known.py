"""What a search knows so far, in words: the same on every surface."""

import math
from collections.abc import Iterator

from hawsweep.search.belief import Belief, KeyBelief
from hawsweep.spec.space import Choices, Range
from hawsweep.spec.sweep import SweepSpec
from hawsweep.text import setting, short_name

# The chance from which a choice is said to be the best, and to be likely so.
_SURE, _LIKELY = 0.9, 0.6
# A value that may lie anywhere in so much of its range is not decided.
_MUCH = 0.7


def known_sentences(belief: Belief, spec: SweepSpec) -> list[str]:
    """Plain sentences: the best value of each key, the leader, and what more time would bring."""
    keys = "; ".join(_of_key(each, spec.search[each.key]) for each in belief.keys)
    return [f"{keys}.", *_of_leader(belief)]


def _of_leader(belief: Belief) -> Iterator[str]:
    chance = _percent(belief.leader_stays)
    yield f"Trial {belief.leader} is the best of those begun by validation loss ({chance})."
    if belief.n_next:
        yield (
            f"Another hour is expected to lower it by {100 * belief.gain:.2g} % "
            f"({100 * belief.gain_low:.2g} to {100 * belief.gain_high:.2g} %)."
        )


def _of_key(belief: KeyBelief, asked: Range | Choices) -> str:
    name = short_name(belief.key)
    if belief.chance is not None:
        if belief.chance < _LIKELY:
            return f"{name}: not decided"
        said = "is best" if belief.chance >= _SURE else "may be best"
        return f"{name}: {setting(belief.value)} {said} ({_percent(belief.chance)})"
    assert isinstance(asked, Range)
    low, high, middle = (float(v or 0) for v in (belief.low, belief.high, belief.value))
    if asked.log:
        if math.log(high / low) > _MUCH * math.log(asked.high / asked.low):
            return f"{name}: not decided"
        factor = max(high / middle, middle / low)
        return f"{name}: within x{factor:.2g} of {setting(float(f'{middle:.2g}'))} (95 %)"
    if high - low > _MUCH * (asked.high - asked.low):
        return f"{name}: not decided"
    return f"{name}: {setting(low)} to {setting(high)} (95 %)"


def _percent(chance: float) -> str:
    """A chance in percent, never 0 or 100: it is known from a few hundred functions."""
    return f"{min(99, max(1, round(100 * chance)))} %"
