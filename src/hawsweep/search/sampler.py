"""What proposes the next setting: hawsweep's own sampler, and two of Optuna's."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from hawsweep.search.coordinates import MOST_CANDIDATES, Coordinates
from hawsweep.search.curves import fluctuation, lowest_so_far, mean_curve, value_at
from hawsweep.search.distributions import distributions
from hawsweep.search.gaussian_process import Array, GaussianProcess
from hawsweep.spec.space import SearchValue
from hawsweep.spec.sweep import SweepSpec
from hawsweep.study.attributes import CONFIRMS, INFEASIBLE, ITERS, SEED
from hawsweep.study.confirm import complete_runs

# Losses further above the leader's count as this far: how badly a rate diverges says nothing more.
_MOST_BEHIND = 0.12
# The standard deviation of a relative loss: of one that was trained whole, and how much more an
# earlier one is in doubt about the end.
_NOISE, _NOISE_OF_EARLY = 0.001, 0.006
# The shares of its iterations until which a trial is compared beside its end, and the distance in
# rate up to which lower ones lag behind early.
_SHARES = (1 / 8, 1 / 4, 1 / 2)
_LAGGING_DECADES = 0.6
_MOST_OBSERVED = 200

# Keys whose value changes no peak of memory.
_WITHOUT_MEMORY = {
    *("learning_rate", "iters", "order", "max_grad_norm", "optimizer_config.adamw.weight_decay"),
    *("lora_parameters.scale", "lora_parameters.alpha", "lora_parameters.loraplus_lr_ratio"),
    *("lr_schedule.name", "lr_schedule.warmup_ratio", "lr_schedule.end_factor"),
    *("max_train_samples", "augment.name", "augment.share"),
}

Settings = dict[str, SearchValue]
Key = tuple[tuple[str, SearchValue], ...]


def make_sampler(spec: SweepSpec, n_trials: int) -> BaseSampler:
    """The sampler for the next proposal.

    Its seed depends on the spec's seed and on the number of the trial. So a proposal does not
    depend on the process that makes it, and a restarted process does not repeat earlier proposals.
    """
    seed = (spec.seed * 1_000_003 + n_trials) % 2**32
    if spec.sampler.name == "random":
        return RandomSampler(seed=seed)
    if spec.sampler.name == "tpe":
        return TPESampler(seed=seed, n_startup_trials=spec.sampler.n_startup_trials)
    return GaussianProcessSampler(spec, seed)


def n_untried(spec: SweepSpec, trials: Sequence[FrozenTrial]) -> float:
    """How many settings hawsweep's sampler may still propose; infinite for samplers that repeat,
    and for a space with more settings than are counted.
    """
    space = Coordinates(spec.search)
    if spec.sampler.name != "gp" or space.count() > MOST_CANDIDATES:
        return math.inf
    return len(untried(space.candidates(0), within(space, trials)))


@dataclass(frozen=True)
class Observation:
    """What a trial has shown.

    Attributes:
        number: Of the trial; None of what is expected only.
        loss: The logarithm of its lowest validation loss over the leader's at equal steps.
        noise: The standard deviation of ``loss`` as a forecast of the end.
        lag: How much of the lag of lower rates is in ``loss``: decades below the leader's rate at
            an eighth of the iterations. It is 0 at the end, and far from that rate, where nothing
            or too much is learned at first.
        is_last: Whether the trial has shown nothing later.
    """

    settings: Settings
    loss: float
    noise: float
    number: int | None = None
    lag: float = 0.0
    is_last: bool = True


def observe(
    trials: Sequence[FrozenTrial], most_iters: int, again: Sequence[FrozenTrial] = ()
) -> list[Observation]:
    """Compare trials with their leader: the best of those with the largest share of their
    iterations.

    Complete, pruned and running trials count alike, as far as they were trained. Losses of the same
    step are of the same validation examples, so that their ratio is known far better than a score.

    Args:
        most_iters: Iterations of a trial whose settings do not say.
        again: Complete confirming runs. A setting that was trained again with new seeds counts with
            the mean of all its runs, which is known better.
    """

    def _iters(trial: FrozenTrial) -> int:
        return int(trial.params.get("iters", most_iters))

    # What a trial has shown after it was given more iterations is compared with no other. One that
    # ended early for want of improvement would have shown nothing better at its end.
    def _curve(trial: FrozenTrial) -> dict[int, float]:
        iters = _iters(trial)
        curve = {s: each for s, each in lowest_so_far(trial).items() if s <= iters}
        if trial.state == TrialState.COMPLETE and (last := max(curve, default=0)):
            curve.setdefault(iters, curve[last])
        return curve

    runs = {trial.number: [_curve(trial)] for trial in trials}
    given = {trial.number: trial.user_attrs.get(ITERS) for trial in trials}
    distinct = {(run.user_attrs.get(CONFIRMS), run.user_attrs.get(SEED)): run for run in again}
    for (number, _), run in distinct.items():
        if number not in runs or given[number] != run.user_attrs.get(ITERS):
            continue  # it was extended since
        # Where it ended early, without improvement, its lowest loss stays.
        steps, curve = runs[number][0], _curve(run)
        known = {step: at for step in steps if (at := value_at(curve, step)) is not None}
        if steps and known.keys() == steps.keys():
            runs[number].append(known)
    curves = {number: mean_curve(of_setting) for number, of_setting in runs.items()}
    seen = [trial for trial in trials if curves[trial.number]]
    if not seen:
        return []
    fluctuates = fluctuation(seen)
    # Where lengths differ, at equal shares of them.
    ends = {trial.number: max(curves[trial.number]) for trial in seen}
    leader = min(
        seen,
        key=lambda each: (
            -ends[each.number] / _iters(each),
            curves[each.number][ends[each.number]],
        ),
    )
    of_leader, rate_of_leader = curves[leader.number], _rate(leader)
    found = []
    for trial in seen:
        curve, iters = curves[trial.number], _iters(trial)
        below = math.log10(rate_of_leader / _rate(trial))
        for step in _compared_at(curve, iters):
            best = value_at(of_leader, step * _iters(leader) // iters)
            if best is None or best <= 0:
                continue
            loss = curve[step]
            behind = math.log(loss / best) if 0 < loss < math.inf else _MOST_BEHIND
            done = min(1.0, step / iters)
            of_seed = _NOISE / math.sqrt(len(runs[trial.number]))
            of_evaluation = fluctuates / math.sqrt(len(runs[trial.number]))
            noise = math.hypot(of_seed + _NOISE_OF_EARLY * (1 - done), of_evaluation)
            early = math.log2(1 / done) / math.log2(1 / min(_SHARES))
            lag = below * math.exp(-0.5 * (below / _LAGGING_DECADES) ** 2) * early
            is_last = step == max(curve)
            behind = min(behind, _MOST_BEHIND)
            found.append(Observation(trial.params, behind, noise, trial.number, lag, is_last))
    # The cost grows with the cube of them; the best and the newest say most, and all that has been
    # seen of them as far as there is room.
    if len(found) <= _MOST_OBSERVED:
        return found
    last = [each for each in found if each.is_last]
    lowest = sorted(last, key=lambda each: each.loss)[: _MOST_OBSERVED // 2]
    newest = [each for each in last if each not in lowest][-(_MOST_OBSERVED // 2) :]
    kept = [*lowest, *newest]
    ranks = {each.number: rank for rank, each in enumerate(kept)}
    earlier = [each for each in found if not each.is_last and each.number in ranks]
    earlier.sort(key=lambda each: ranks[each.number])
    return [*kept, *earlier[: _MOST_OBSERVED - len(kept)]]


def _rate(trial: FrozenTrial) -> float:
    return float(trial.params.get("learning_rate", 1.0))


def _compared_at(curve: Mapping[int, float], iters: int) -> list[int]:
    """A trial's last evaluation, and its last ones until each of ``_SHARES`` of its iterations: how
    its distance changed shows how far early ones can be trusted.
    """
    earlier = (max((s for s in curve if s <= share * iters), default=0) for share in _SHARES)
    return sorted(step for step in {max(curve), *earlier} if step > 0)


class GaussianProcessSampler(BaseSampler):
    """Proposes the setting of which most is expected, given all that trials have shown.

    It never proposes a setting that a trial had. Trials that wait or have shown nothing stand at
    their expected loss, so that several workers get different settings.
    """

    def __init__(self, spec: SweepSpec, seed: int) -> None:
        self._spec, self._seed = spec, seed

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """All of the space that has a choice: settings are proposed as a whole."""
        space = distributions(self._spec.search)
        return {key: each for key, each in space.items() if not each.single()}

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """The proposal; without one that is left, nothing is proposed."""
        others = [each for each in study.get_trials(deepcopy=False) if each.number != trial.number]
        return propose(self._spec, others, self._seed, complete_runs(study)) or {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A value by chance, for a key that a queued setting lacks."""
        random = RandomSampler(seed=self._seed)
        return random.sample_independent(study, trial, param_name, param_distribution)


def propose(
    spec: SweepSpec, trials: Sequence[FrozenTrial], seed: int, again: Sequence[FrozenTrial] = ()
) -> Settings | None:
    """The setting to try next; None if each that may fit into memory was tried.

    Args:
        again: Complete confirming runs.
    """
    space = Coordinates(spec.search)
    known = within(space, trials)
    left = untried(space.candidates(seed), known)
    if not left:
        return None
    random = np.random.default_rng(seed)
    left = [left[n] for n in random.permutation(len(left))]  # of equally good ones any
    observed = observe([t for t in known if t.state != TrialState.FAIL], spec.train.iters, again)
    if not observed:
        return left[0]
    process, at = fit_process(space, observed)
    pending = [settings_of(t) for t in known if not t.intermediate_values and _is_to_come(t)]
    if pending:
        means = process.posterior(space.array(pending)).mean
        added = [Observation(s, float(m), _NOISE) for s, m in zip(pending, means, strict=True)]
        process, at = fit_process(space, [*observed, *added])
    below = float(process.posterior(at).mean.min())
    return left[int(process.posterior(space.array(left)).expected_improvement(below).argmax())]


def fit_process(
    space: Coordinates, observed: Sequence[Observation]
) -> tuple[GaussianProcess, Array]:
    """The process that has seen what trials have shown, and their coordinates, (n, d)."""
    at = space.array([each.settings for each in observed])
    losses = np.array([each.loss for each in observed])
    noise = np.array([each.noise for each in observed])
    lag = np.array([each.lag for each in observed])
    return GaussianProcess(at, losses, noise, space.kinds, lag), at


def _is_to_come(trial: FrozenTrial) -> bool:
    return not trial.state.is_finished()


def within(space: Coordinates, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials whose settings are of the space."""
    return [trial for trial in trials if space.contains(settings_of(trial))]


def untried(candidates: Sequence[Settings], trials: Sequence[FrozenTrial]) -> list[Settings]:
    """Candidates that no trial had, and whose memory is not that of one that did not fit."""
    tried = {setting_key(settings_of(trial)) for trial in trials}
    too_large = {_memory_key(t.params) for t in trials if t.user_attrs.get(INFEASIBLE)}
    return [
        each
        for each in candidates
        if setting_key(each) not in tried and _memory_key(each) not in too_large
    ]


def settings_of(trial: FrozenTrial) -> Settings:
    """A trial's settings; of one that waits, the queued ones."""
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}


def setting_key(settings: Mapping[str, SearchValue]) -> Key:
    """A setting to compare with others."""
    # Of steps from a low end, 0.3 may be 0.30000000000000004.
    return tuple(
        (key, float(f"{value:.9g}") if isinstance(value, float) else value)
        for key, value in sorted(settings.items())
    )


def _memory_key(settings: Mapping[str, SearchValue]) -> Key:
    """The part of a setting that decides how much memory it needs."""
    deciding = {key: value for key, value in settings.items() if key not in _WITHOUT_MEMORY}
    return setting_key(deciding)
