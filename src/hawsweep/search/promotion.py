"""Which trials go on past a rung, by their validation losses at equal iterations.

Asynchronous successive halving (Li et al., 2020) with factor 2, and a tolerance: a trial that is
close to the leader is not left behind, and a lower rate, which starts later, has more of it.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_SHARES = (1 / 8, 1 / 4, 1 / 2)
_FIRST_SHARE_WHERE_RATES_DECAY = 1 / 4
# Within these of the leader's loss, a trial is not left behind: of what is still to come, and at
# the end.
_TOLERANCE, _TOLERANCE_AT_END = 0.004, 0.0005
# How much more a lower rate has, at most.
_MOST_DOUBLINGS = 3.0


def rungs(
    iters: int, steps_per_eval: int, first_iteration: int = 0, *, decays: bool = False
) -> tuple[int, ...]:
    """The iterations at which trials pause: evaluations at an eighth, a quarter and half of them.

    Args:
        first_iteration: No rung is before it: too few updates say nothing.
        decays: Whether the rate decays; its first rung is then at a quarter.
    """
    shares = [s for s in _SHARES if not decays or s >= _FIRST_SHARE_WHERE_RATES_DECAY]
    at = (math.ceil(share * iters / steps_per_eval) * steps_per_eval for share in shares)
    return tuple(dict.fromkeys(each for each in at if first_iteration <= each < iters))


@dataclass(frozen=True)
class Standing:
    """A trial at a rung.

    Attributes:
        loss: Its lowest validation loss until the rung.
        rate: Its learning rate.
    """

    loss: float
    rate: float


def goes_on(number: int, standings: Mapping[int, Standing], done: float) -> bool:
    """Whether a trial is promoted past a rung.

    Args:
        standings: Of all trials that reached the rung, by number; this one among them.
        done: The share of the iterations that the rung is at.
    """
    own, leader = standings[number], leader_of(standings.values())
    if not own.loss < math.inf:
        return False
    better = sum(each.loss < own.loss for each in standings.values())
    return better < len(standings) // 2 or own.loss <= leader.loss * (
        1 + tolerance(leader.rate / own.rate, done)
    )


def leader_of(standings: Iterable[Standing]) -> Standing:
    """The one with the lowest loss; of equal ones the one with the lowest rate."""
    return min(standings, key=lambda each: (each.loss, each.rate))


def tolerance(rates_ratio: float, done: float) -> float:
    """By which share of the leader's loss a trial may be behind it and goes on.

    Args:
        rates_ratio: The leader's learning rate over the trial's.
    """
    doublings = min(max(1 + math.log2(rates_ratio), 0.0), _MOST_DOUBLINGS)
    return _TOLERANCE * (1 - done) * doublings + _TOLERANCE_AT_END
