"""The rungs at which trials pause, how many get past them, and when nothing begins any more."""

import math

from hawsweep.spec.sweep import SweepSpec
from hawsweep.spec.train import TrainSpec

_SHARES = (1 / 8, 1 / 4, 1 / 2)
_FIRST_SHARE_WHERE_RATES_DECAY = 1 / 4
# Fewer updates say nothing of the end.
_LEAST_UPDATES = 20
# The share of trials that go on past a rung: half of them, and those close to the leader.
_PROMOTED = 0.55
# Of the time, in which no setting begins.
_LAST_SHARE = 1 / 4
# Trials to train whole, so that there is a choice to confirm.
LEAST_FINISHED = 2


def rungs(train: TrainSpec) -> dict[float, int]:
    """The iterations at which a trial may pause, by their share of the whole: evaluations at an
    eighth, a quarter and half of them, the first of at least 20 updates; where rates decay, from a
    quarter on.
    """
    decays = train.lr_schedule.name != "constant"
    shares = [s for s in _SHARES if not decays or s >= _FIRST_SHARE_WHERE_RATES_DECAY]
    first, steps = _LEAST_UPDATES * train.grad_accumulation_steps, train.steps_per_eval
    found: dict[float, int] = {}
    for share in shares:
        iteration = math.ceil(share * train.iters / steps) * steps
        if first <= iteration < train.iters and iteration not in found.values():
            found[share] = iteration
    return found


def promoting_s(spec: SweepSpec) -> float:
    """The seconds at the end of the timeout in which no setting begins, where trials can pause."""
    if spec.pruning.name != "promote" or told_without_rungs(spec):
        return 0.0
    return _LAST_SHARE * (spec.timeout or 0.0)


def told_without_rungs(spec: SweepSpec) -> str:
    """That no trial can pause, in words; empty where trials can, or are not promoted."""
    _, most = spec.ends_of("iters")
    train = spec.train.model_copy(update={"iters": most})
    if spec.pruning.name != "promote" or rungs(train):
        return ""
    return (
        f"no trial pauses, each is trained whole: with iters {most} and steps_per_eval "
        f"{train.steps_per_eval} no evaluation before the end has {_LEAST_UPDATES} updates"
    )


def expected_ends(train: TrainSpec, n_trials: int) -> dict[int, int]:
    """How many of the trials are expected to end at each rung and, trained whole, at ``iters``."""
    ends, left = {}, n_trials
    for at in rungs(train).values():
        promoted = min(left, max(LEAST_FINISHED, math.ceil(_PROMOTED * left)))
        ends[at], left = left - promoted, promoted
    return {**ends, train.iters: left}
