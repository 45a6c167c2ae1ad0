"""The best trials again with other seeds: which settings are good, and which were lucky.

The trial with the highest score was in part chosen for its luck. The settings of the best few are
trained again with seeds that the choice did not know; they rank by the mean of those. The runs are
trials of a study of their own, ``NAME.confirm``, so that they tell the sampler nothing.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from hawsweep.spec.sweep import PruningSpec, SamplerSpec, SweepSpec
from hawsweep.study.attributes import CONFIRMED, CONFIRMS, EVAL_TIME_S, SEED, TRAIN_TIME_S
from hawsweep.study.storage import confirm_name
from hawsweep.study.study import load_study, name_metric
from hawsweep.study.trials import best_trial, complete_trials


@dataclass(frozen=True)
class Confirmation:
    """A trial's settings, trained again.

    Attributes:
        trial_number: The trial that was chosen.
        selected: Its score, by which it was chosen.
        scores: Of the same settings with new seeds.
    """

    trial_number: int
    selected: float
    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Of the new seeds' scores."""
        return sum(self.scores) / len(self.scores)


def wanted(opened: optuna.Study, spec: SweepSpec) -> list[tuple[int, int]]:
    """Which trials are to be trained again, with which seeds; none where there is no choice."""
    complete = complete_trials(opened)
    if len(complete) < 2:
        return []
    best = sorted(complete, key=lambda trial: (-_value(trial), trial.number))[: spec.confirm.top]
    seeds = range(spec.train.seed + 1, spec.train.seed + 1 + spec.confirm.seeds)
    return [(trial.number, seed) for trial in best for seed in seeds]


def expected_s(opened: optuna.Study, spec: SweepSpec, n_workers: int) -> float:
    """About how long it takes to train the best trials again, by how long they took."""
    trials = opened.get_trials(deepcopy=False)
    times: list[float] = [
        sum(trials[number].user_attrs.get(key, 0.0) for key in (TRAIN_TIME_S, EVAL_TIME_S))
        for number, _ in wanted(opened, spec)
    ]
    return sum(times) / n_workers


def open_confirmation(storage: RDBStorage, opened: optuna.Study, spec: SweepSpec) -> optuna.Study:
    """The study that confirms, made where there is none yet."""
    made = optuna.create_study(
        storage=storage,
        study_name=confirm_name(opened.study_name),
        direction="maximize",
        load_if_exists=True,
    )
    if opened.metric_names is not None and made.metric_names is None:
        name_metric(made, opened.metric_names[0])
    return load_confirmation(storage, opened.study_name, spec)


def queue(opened: optuna.Study, confirming: optuna.Study, spec: SweepSpec) -> None:
    """Queue the runs that are wanted and were never queued."""
    trials = opened.get_trials(deepcopy=False)
    known = {_key(trial) for trial in confirming.get_trials(deepcopy=False)}
    for number, seed in wanted(opened, spec):
        if (number, seed) not in known:
            confirming.enqueue_trial(
                trials[number].params, user_attrs={CONFIRMS: number, SEED: seed}
            )


def load_confirmation(storage: RDBStorage, name: str, spec: SweepSpec) -> optuna.Study:
    """The confirming study of the study ``name``; nothing in it is pruned.

    Raises:
        StudyError: There is none.
    """
    return load_study(storage, confirm_name(name), spec_to_confirm(spec))


def spec_to_confirm(spec: SweepSpec) -> SweepSpec:
    """The spec of a confirming study: nothing in it is pruned, and its trials are all queued."""
    return spec.model_copy(
        update={"pruning": PruningSpec(name="none"), "sampler": SamplerSpec(name="random")}
    )


def n_waiting(confirming: optuna.Study) -> int:
    """Runs that nobody has begun."""
    return len(confirming.get_trials(deepcopy=False, states=(TrialState.WAITING,)))


def conclude(opened: optuna.Study, confirming: optuna.Study, spec: SweepSpec) -> list[Confirmation]:
    """What the runs say, best first, kept in the study; empty where none ended well."""
    scores: defaultdict[int, list[float]] = defaultdict(list)
    for trial in confirming.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        if _key(trial) in wanted(opened, spec):
            scores[trial.user_attrs[CONFIRMS]].append(_value(trial))
    trials = opened.get_trials(deepcopy=False)
    found = [
        Confirmation(number, _value(trials[number]), tuple(values))
        for number, values in scores.items()
    ]
    best_first = ranked(found)
    if best_first:
        opened.set_user_attr(CONFIRMED, [asdict(each) for each in best_first])
    return best_first


def ranked(found: Iterable[Confirmation]) -> list[Confirmation]:
    """Best first, by the mean of the new seeds."""
    return sorted(found, key=lambda each: (-each.mean, each.trial_number))


def confirmations(opened: optuna.Study) -> list[Confirmation]:
    """What was concluded, best first; empty before."""
    return [
        Confirmation(each["trial_number"], each["selected"], tuple(each["scores"]))
        for each in opened.user_attrs.get(CONFIRMED, ())
    ]


def winner(opened: optuna.Study) -> FrozenTrial | None:
    """The trial to test, to export and to speak of: the best by new seeds, else by its own score.

    None before the first complete trial.
    """
    confirmed = confirmations(opened)
    if confirmed:
        return opened.get_trials(deepcopy=False)[confirmed[0].trial_number]
    return best_trial(opened)


def _key(trial: FrozenTrial) -> tuple[Any, Any]:
    return trial.user_attrs.get(CONFIRMS), trial.user_attrs.get(SEED)


def _value(trial: FrozenTrial) -> float:
    assert trial.value is not None
    return trial.value
