"""Confirming runs: the best trials with new seeds, to tell good settings from lucky ones.

The trial with the highest score is in part a lucky one. The settings of the best few are trained
with new seeds, and ranked by the mean of those scores. The runs are trials of another study,
``NAME.confirm``, so that the sampler does not see them.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from hawsweep.errors import StudyError
from hawsweep.spec.space import Choices
from hawsweep.spec.sweep import PruningSpec, SamplerSpec, SweepSpec
from hawsweep.study.attributes import (
    CHOSEN,
    CONFIRMED,
    CONFIRMS,
    EVAL_TIME_S,
    ITERS,
    SCORE_TIME_S,
    SEED,
    TIME_S,
    TRAIN_TIME_S,
)
from hawsweep.study.optuna_door import storage_of
from hawsweep.study.storage import confirm_name
from hawsweep.study.study import load_study, name_metric
from hawsweep.study.trials import (
    best_trial,
    complete_trials,
    is_paused,
    repeats_running,
    train_of,
    trial_of,
)
from hawsweep.text import short_repr

_TIMES = (TRAIN_TIME_S, EVAL_TIME_S, SCORE_TIME_S)


@dataclass(frozen=True, repr=False)
class Confirmation:
    """The confirming runs of one trial.

    Attributes:
        trial_number: The chosen trial.
        selected: Its own score, by which it was chosen.
        scores: The scores of the same settings with new seeds.
    """

    trial_number: int
    selected: float
    scores: tuple[float, ...]

    __repr__ = short_repr

    @property
    def mean(self) -> float:
        """The mean of the new seeds' scores."""
        return sum(self.scores) / len(self.scores)


def wanted(study: optuna.Study, spec: SweepSpec) -> list[tuple[int, int]]:
    """The trials to confirm and their new seeds; none if one of several settings is complete: there
    is no choice yet.
    """
    complete = complete_trials(study)
    if len(complete) < (1 if _has_one_setting(spec) else 2):
        return []
    best_first = sorted(complete, key=lambda trial: (-_value(trial), trial.number))
    # Optuna's samplers repeat settings: each is confirmed once, by the best trial of it.
    distinct: dict[Any, int] = {}
    for trial in best_first:
        setting = (trial.user_attrs.get(ITERS), *sorted(trial.params.items()))
        distinct.setdefault(setting, trial.number)
    best = list(distinct.values())[: spec.confirm.top]
    return [(number, seed) for number in best for seed in _new_seeds(spec)]


def _new_seeds(spec: SweepSpec) -> range:
    return range(spec.train.seed + 1, spec.train.seed + 1 + spec.confirm.seeds)


def _has_one_setting(spec: SweepSpec) -> bool:
    searched = spec.search.values()
    return all(isinstance(each, Choices) and len(each.choices) == 1 for each in searched)


def expected_s(
    study: optuna.Study, spec: SweepSpec, n_workers: int, runs: Sequence[FrozenTrial] = ()
) -> float:
    """About the seconds of the confirming runs that are still to be made, by the times of the
    trials. Where fewer are trained whole than are to be confirmed, paused ones count as if they
    were.

    Args:
        runs: The confirming runs so far. One that has ended, however it did, is not made again.
    """
    trials = study.get_trials(deepcopy=False)
    asked = wanted(study, spec)
    to_come = {_key(run) for run in runs if not run.state.is_finished()}
    to_come |= set(asked) - {_key(run) for run in runs}
    times = [
        sum(trials[number].user_attrs.get(key, 0.0) for key in _TIMES)
        for number, _ in to_come
        if number is not None  # of another program
    ]
    paused = [expected_whole_s(spec, trial) for trial in trials if is_paused(trial)]
    n_missing = spec.confirm.top - len({number for number, _ in asked})
    times += sorted(paused, reverse=True)[:n_missing] * spec.confirm.seeds
    return float(sum(times)) / n_workers


def expected_whole_s(spec: SweepSpec, trial: FrozenTrial) -> float:
    """The seconds that a trial takes when it is trained whole, by what it took so far."""
    iters = train_of(spec, trial).iters
    return float(trial.user_attrs.get(TIME_S, 0.0)) * iters / max(1, trial.last_step or 0)


def confirming_study(study: optuna.Study) -> optuna.Study | None:
    """The study of a study's runs with new seeds, to look at; None if there are none."""
    try:
        return optuna.load_study(
            storage=storage_of(study), study_name=confirm_name(study.study_name)
        )
    except KeyError:
        return None


def complete_runs(study: optuna.Study) -> list[FrozenTrial]:
    """The complete confirming runs of a study; ``CONFIRMS`` is the trial confirmed."""
    again = confirming_study(study)
    return [] if again is None else again.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def open_confirmation(storage: BaseStorage, study: optuna.Study, spec: SweepSpec) -> optuna.Study:
    """The confirming study, made if it is missing."""
    made = optuna.create_study(
        storage=storage,
        study_name=confirm_name(study.study_name),
        direction="maximize",
        load_if_exists=True,
    )
    if study.metric_names is not None and made.metric_names is None:
        name_metric(made, study.metric_names[0])
    return load_confirmation(storage, study.study_name, spec)


def queue(study: optuna.Study, confirming: optuna.Study, spec: SweepSpec) -> None:
    """Queue the confirming runs that were not queued before."""
    trials = study.get_trials(deepcopy=False)
    known = {_key(trial) for trial in confirming.get_trials(deepcopy=False)}
    for number, seed in wanted(study, spec):
        if (number, seed) not in known:
            same = {key: each for key, each in trials[number].user_attrs.items() if key == ITERS}
            confirming.enqueue_trial(
                trials[number].params, user_attrs={CONFIRMS: number, SEED: seed, **same}
            )


def load_confirmation(storage: BaseStorage, name: str, spec: SweepSpec) -> optuna.Study:
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
    """The confirming runs that wait to begin."""
    runs = confirming.get_trials(deepcopy=False)
    return sum(run.state == TrialState.WAITING and not repeats_running(run, runs) for run in runs)


def n_left(study: optuna.Study, spec: SweepSpec) -> int:
    """The confirming runs that the next start makes: those that wait, and those of trials that have
    become one of the best since others were confirmed.
    """
    confirming = confirming_study(study)
    if confirming is None:
        return 0
    runs = confirming.get_trials(deepcopy=False)
    new = set(wanted(study, spec)) - {_key(trial) for trial in runs}
    return len(new) + sum(not trial.state.is_finished() for trial in runs)


def conclude(study: optuna.Study, confirming: optuna.Study, spec: SweepSpec) -> list[Confirmation]:
    """Store the outcome of the confirming runs, and give it, best first; empty without scores.

    A trial that was confirmed counts also after others with higher scores of their own came.
    """
    trials = study.get_trials(deepcopy=False)
    # Of others the adapter may have been removed.
    known = {number for number, _ in wanted(study, spec)}
    known |= {each.trial_number for each in confirmations(study)}
    scores: defaultdict[int, dict[int, float]] = defaultdict(dict)
    for run in confirming.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        number, seed = _key(run)
        if number not in known or seed not in _new_seeds(spec):
            continue
        if run.user_attrs.get(ITERS) == trials[number].user_attrs.get(ITERS):  # not extended since
            scores[number][seed] = _value(run)
    found = [
        Confirmation(number, _value(trials[number]), tuple(by_seed.values()))
        for number, by_seed in scores.items()
    ]
    best_first = ranked(found)
    if best_first:
        study.set_user_attr(CONFIRMED, [asdict(each) for each in best_first])
    return best_first


def ranked(found: Iterable[Confirmation]) -> list[Confirmation]:
    """Best first, by the mean of the new seeds."""
    return sorted(found, key=lambda each: (-each.mean, each.trial_number))


def confirmations(study: optuna.Study) -> list[Confirmation]:
    """The stored outcome, best first; empty before it is stored."""
    return [
        Confirmation(each["trial_number"], each["selected"], tuple(each["scores"]))
        for each in study.user_attrs.get(CONFIRMED, ())
    ]


def winner(study: optuna.Study) -> FrozenTrial | None:
    """The trial to test and to export: the best by new seeds, else by its own score; with ``prefer:
    cheap`` the one chosen in its place.

    None before the first complete trial.
    """
    best = best_of_all(study)
    chosen = study.user_attrs.get(CHOSEN) or {}
    if best is not None and chosen.get("of") == best.number:
        return trial_of(study, chosen["trial"])
    return best


def chosen_trial(
    study: optuna.Study, number: int | None = None, *, is_complete: bool = True
) -> FrozenTrial:
    """The trial of a number, else the winner.

    Raises:
        StudyError: There is none, or it has to be complete and is not.
    """
    trial = winner(study) if number is None else trial_of(study, number)
    if trial is None:
        other = "" if is_complete else ", or name another trial"
        raise StudyError(
            f"Study {study.study_name!r} has no complete trial yet. Go on with hawsweep start"
            f"{other}."
        )
    if is_complete and trial.state != TrialState.COMPLETE:
        raise StudyError(
            f"Trial {number} of study {study.study_name!r} is {trial.state.name.lower()}. Name a "
            "complete one."
        )
    return trial


def best_of_all(study: optuna.Study) -> FrozenTrial | None:
    """The best trial by new seeds, else by its own score; None before the first complete one."""
    confirmed = confirmations(study)
    if confirmed:
        return trial_of(study, confirmed[0].trial_number)
    return best_trial(study)


def _key(trial: FrozenTrial) -> tuple[Any, Any]:
    return trial.user_attrs.get(CONFIRMS), trial.user_attrs.get(SEED)


def _value(trial: FrozenTrial) -> float:
    assert trial.value is not None
    return trial.value
