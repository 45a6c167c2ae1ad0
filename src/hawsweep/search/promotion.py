"""Which paused trials go on, by their validation losses at equal shares of their iterations.

Asynchronous successive halving (Li et al., 2020) with factor 2: a trial pauses at an eighth, a
quarter and half of its iterations, and the better half of those that came so far goes on. Beside
that, nobody close to the leader is left behind. How close depends on how much evaluations
fluctuate and on how much the leader still gains; a lower rate, which starts later, may be less
close.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

from hawsweep.search.curves import fluctuation, gain_at, lowest_so_far, value_at
from hawsweep.search.rungs import LEAST_FINISHED, rungs
from hawsweep.spec.space import apply_settings
from hawsweep.spec.sweep import SweepSpec
from hawsweep.spec.train import TrainSpec
from hawsweep.study.attributes import INFEASIBLE
from hawsweep.study.trials import is_paused

# A trial is not left behind that is behind the leader by less than this part of what the leader
# gained while its iterations doubled, or this share of its loss, for each doubling to come; and by
# less than this share at the end.
_OF_GAIN, _TOLERANCE, _TOLERANCE_AT_END = 0.125, 0.006, 0.0005
# How much more a lower rate has, at most.
_MOST_DOUBLINGS = 3.0


@dataclass(frozen=True)
class Standing:
    """A trial at a rung.

    Attributes:
        loss: Its lowest validation loss until the rung, see ``curves.lowest_so_far``.
        rate: Its learning rate.
        gain: By which share the loss fell in the last doubling of the iterations.
    """

    loss: float
    rate: float
    gain: float


def next_promoted(
    spec: SweepSpec, trials: Sequence[FrozenTrial], *, may_begin: bool = True
) -> int | None:
    """The number of the paused trial that goes on next; None if none should.

    Of the better half at its rung the furthest, and there the best. Once no setting may begin, also
    those close to the leader, and as many as it takes for two to be trained whole.

    Args:
        may_begin: Whether new settings may begin.
    """
    if spec.pruning.name != "promote":  # it was, when they paused
        return next((trial.number for trial in trials if is_paused(trial)), None)
    known = [_Known.of(spec, trial) for trial in trials if _counts(trial)]
    waiting = [(each, each.rung()) for each in known if is_paused(each.trial)]
    chances, noise = [], fluctuation([each.trial for each in known])
    for each, share in waiting:
        standings = {
            other.trial.number: at for other in known if (at := other.standing(share)) is not None
        }
        own = standings[each.trial.number]
        if is_in_better_half(own, standings.values()) or (
            not may_begin and is_close(own, standings.values(), share, noise)
        ):
            chances.append((-share, own.loss, each.trial.number))
    if chances:
        return min(chances)[2]
    on_their_way = sum(each.trial.state in _GETS_WHOLE for each in known)
    if may_begin or on_their_way >= LEAST_FINISHED:
        return None
    left = [
        (-share, at.loss, each.trial.number)
        for each, share in waiting
        if (at := each.standing(share)) is not None and at.loss < math.inf
    ]
    return min(left, default=(0, 0, None))[2]


_GETS_WHOLE = (TrialState.COMPLETE, TrialState.RUNNING)


def is_in_better_half(own: Standing, standings: Iterable[Standing]) -> bool:
    """Whether fewer than half of the trials at a rung are better, itself included."""
    losses = [each.loss for each in standings]
    better = sum(loss < own.loss for loss in losses)
    return own.loss < math.inf and better < len(losses) // 2


def is_close(
    own: Standing, standings: Iterable[Standing], share: float, noise: float = 0.0
) -> bool:
    """Whether a trial is so close to the leader of its rung that it is not left behind.

    Args:
        noise: By which share of the loss evaluations fluctuate.
    """
    leader = min(standings, key=lambda each: (each.loss, each.rate))
    close = tolerance(leader.rate / own.rate, share, leader.gain) + noise
    limit = leader.loss * (1 + close)
    return own.loss < math.inf and own.loss <= limit


def tolerance(rates_ratio: float, share: float, gain: float) -> float:
    """By which share of the leader's loss a trial may be behind it and goes on.

    A leader that gains little is not overtaken by much: where curves are nearly flat, trials that
    are a percent behind stay behind; where they fall steeply, they may not.

    Args:
        rates_ratio: The leader's learning rate over the trial's.
        share: Of the iterations, at the rung.
        gain: The leader's, see ``Standing``.
    """
    to_come = math.log2(1 / share)
    of_rates = min(max(1 + math.log2(rates_ratio), 0.0), _MOST_DOUBLINGS)
    return min(_OF_GAIN * gain, _TOLERANCE) * to_come * of_rates + _TOLERANCE_AT_END


def _counts(trial: FrozenTrial) -> bool:
    """Whether a trial has a place at rungs. The settings of a failed one are tried again."""
    is_known = trial.intermediate_values and trial.state != TrialState.FAIL
    return bool(is_known) and not trial.user_attrs.get(INFEASIBLE)


@dataclass(frozen=True)
class _Known:
    trial: FrozenTrial
    train: TrainSpec
    rungs: Mapping[float, int]
    curve: Mapping[int, float]

    @classmethod
    def of(cls, spec: SweepSpec, trial: FrozenTrial) -> "_Known":
        train = apply_settings(spec.train, trial.params)
        return cls(trial, train, rungs(train), lowest_so_far(trial))

    def rung(self) -> float:
        """The share of the last rung that it reached; 0 before the first."""
        last = max(self.curve)
        return max((share for share, at in self.rungs.items() if at <= last), default=0.0)

    def standing(self, share: float) -> Standing | None:
        """Its place at a rung; None of one that did not come so far."""
        at = self.rungs.get(share)
        if at is None or (at > max(self.curve) and self.trial.state != TrialState.COMPLETE):
            return None
        if (loss := value_at(self.curve, at)) is None:
            return None
        return Standing(loss, self.train.learning_rate, gain_at(self.curve, at))
