"""What a search knows so far, and how sure it is: from functions its process holds possible."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from hawsweep.search.coordinates import Coordinates
from hawsweep.search.sampler import fit_process, observe, untried, within
from hawsweep.spec.space import Choices, Range, SearchValue
from hawsweep.spec.sweep import SweepSpec

_N_SAMPLES = 400
# The cost grows with the cube of both together.
_MOST_BEGUN, _MOST_CANDIDATES = 60, 200
_FEWEST_OBSERVED = 3


@dataclass(frozen=True)
class KeyBelief:
    """What is known of the best value of a key.

    Attributes:
        value: The most likely one; of a range the median.
        chance: That a choice is the best one; None for a range.
        low, high: Between which the best value of a range lies, with 95 %; None for a choice.
    """

    key: str
    value: SearchValue
    chance: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Belief:
    """What a search knows so far.

    Attributes:
        leader: The number of the trial with the lowest expected validation loss.
        leader_stays: The chance that of the trials begun none ends with a lower one.
        n_next: Settings that more time would begin; None where that is not known.
        gain: By which share another hour is expected to lower the leader's validation loss, with
            its 5 % and 95 % quantiles.
    """

    keys: tuple[KeyBelief, ...]
    leader: int
    leader_stays: float
    n_next: int
    gain: float
    gain_low: float
    gain_high: float


def find_belief(
    spec: SweepSpec,
    trials: Sequence[FrozenTrial],
    n_next: float,
    again: Sequence[FrozenTrial] = (),
) -> Belief | None:
    """What the trials have shown; None before three have.

    Args:
        n_next: Settings to begin in another hour. Of less than one the gain is that share.
        again: Complete confirming runs.
    """
    space = Coordinates(spec.search)
    known = [each for each in within(space, trials) if each.state != TrialState.FAIL]
    observed = observe(known, spec.train.iters, again)
    if sum(each.is_last for each in observed) < _FEWEST_OBSERVED:
        return None
    process, _ = fit_process(space, observed)
    observed = sorted((each for each in observed if each.is_last), key=lambda each: each.loss)[
        :_MOST_BEGUN
    ]
    at = space.array([each.settings for each in observed])
    random = np.random.default_rng(len(observed))
    candidates = space.candidates(0)
    if len(candidates) > _MOST_CANDIDATES:
        chosen = random.choice(len(candidates), _MOST_CANDIDATES, replace=False)
        candidates = [candidates[n] for n in sorted(chosen)]
    points = [each.settings for each in observed] + candidates
    n_picked = round(n_next) or math.ceil(n_next)
    samples = process.samples(space.array(points), _N_SAMPLES, random)
    n_begun = len(observed)
    begun = samples[:, :n_begun]
    leader = int(process.posterior(at).mean.argmin())
    stays = float(np.mean(begun.argmin(axis=1) == leader))
    best = samples.argmin(axis=1)
    gains = np.zeros(_N_SAMPLES)
    left = untried(candidates, known)
    if left and n_picked:
        of_left = space.array(left)
        below = float(process.posterior(at).mean.min())
        expected = process.posterior(of_left).expected_improvement(below)
        picked = [left[n] for n in np.argsort(-expected)[:n_picked]]
        position = {id(each): n for n, each in enumerate(candidates, n_begun)}
        columns = [position[id(each)] for each in picked]
        gains = begun.min(axis=1) - np.minimum(begun.min(axis=1), samples[:, columns].min(axis=1))
        gains *= min(1.0, n_next)
    low, high = np.quantile(gains, [0.05, 0.95])
    return Belief(
        keys=tuple(
            _of_key(key, asked, [points[n][key] for n in best])
            for key, asked in spec.search.items()
        ),
        leader=observed[leader].number or 0,
        leader_stays=stays,
        n_next=n_picked if left else 0,
        gain=_share(float(gains.mean())),
        gain_low=_share(float(low)),
        gain_high=_share(float(high)),
    )


def _share(behind: float) -> float:
    """A difference of logarithms as a share of the loss."""
    return 1 - math.exp(-behind)


def _of_key(key: str, asked: Range | Choices, best: Sequence[SearchValue]) -> KeyBelief:
    """What functions say whose lowest points have these values."""
    if isinstance(asked, Choices):
        value, count = Counter(best).most_common(1)[0]
        return KeyBelief(key, value, chance=count / len(best))
    values = np.array([float(each) for each in best])
    low, middle, high = np.quantile(values, [0.025, 0.5, 0.975])
    return KeyBelief(key, float(middle), low=float(low), high=float(high))
