"""The trials of a study: a trial by its number, the best, the number of finished ones; a trial's
adapter; and the number of records to test one on, and how often that was begun.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from hawsweep.errors import StudyError
from hawsweep.layout import ADAPTER_DIR, CHECKPOINT_DIR, CONFIG_FILE, WEIGHTS_FILE
from hawsweep.spec.space import apply_settings
from hawsweep.spec.sweep import SweepSpec
from hawsweep.spec.train import TrainSpec
from hawsweep.study.attributes import (
    BY_YOU,
    INFEASIBLE,
    INTERRUPTED,
    ITERS,
    REPEATS,
    RETENTION,
    SPEC,
    SUGGESTED_BY,
    TEST,
    TEST_OPENED,
)
from hawsweep.study.place import Place


def trial_of(study: optuna.Study, number: int) -> FrozenTrial:
    """A trial by its number.

    Raises:
        StudyError: There is no such trial.
    """
    trials: Sequence[FrozenTrial] = study.get_trials(deepcopy=False)
    if not 0 <= number < len(trials):
        there = f"it has 0 to {len(trials) - 1}" if trials else "it has none"
        raise StudyError(f"Study {study.study_name!r} has no trial {number}; {there}.")
    return trials[number]


def train_of(spec: SweepSpec, trial: FrozenTrial) -> TrainSpec:
    """How a trial trains: its settings, and the iterations that it was given since."""
    train = apply_settings(spec.train, trial.params)
    longer = trial.user_attrs.get(ITERS)
    return train if longer is None else train.model_copy(update={"iters": longer})


def adapter_dir(
    study: optuna.Study, place: Place, number: int, checkpoint: int | None = None
) -> Path:
    """The folder of a trial's adapter, or of its kept checkpoint of an iteration.

    Raises:
        StudyError: There is no such adapter.
    """
    of = f"Trial {number} of study {study.study_name!r}"
    folder = place.trial_dir(study.study_name, number)
    source = folder / ADAPTER_DIR
    if checkpoint is not None:
        source = folder / CHECKPOINT_DIR / f"{checkpoint:07d}"
        kept = sorted(int(path.name) for path in source.parent.glob("[0-9]*"))
        if checkpoint not in kept:
            there = f"it has iterations {', '.join(map(str, kept))}" if kept else "it kept none"
            remedy = "" if kept else " Set train.keep_checkpoints before a sweep."
            raise StudyError(f"{of} has no checkpoint of iteration {checkpoint}; {there}.{remedy}")
    for name in (WEIGHTS_FILE, CONFIG_FILE):
        if not (source / name).is_file():
            raise StudyError(
                f"{of} has no adapter: it did not train, or only those of the best trials are "
                f"kept, which `keep` says. {source / name} is missing. Choose another trial."
            )
    return source


def complete_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Complete trials with all settings of the study's search. Trials of other programs may lack
    some, and could not be trained.
    """
    searched = study.user_attrs.get(SPEC, {}).get("search", {})
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [trial for trial in complete if trial.params.keys() >= searched.keys()]


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """The complete trial with the highest value; of equal ones the earliest."""
    return max(complete_trials(study), key=lambda t: (t.value, -t.number), default=None)


def count_finished(study: optuna.Study) -> int:
    """The number of trials with a result: complete, or pruned for another reason than memory."""
    return sum(map(_is_finished, study.get_trials(deepcopy=False)))


def _is_finished(trial: FrozenTrial) -> bool:
    has_result = trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
    return has_result and not trial.user_attrs.get(INFEASIBLE)


def is_paused(trial: FrozenTrial) -> bool:
    """Whether a trial waits at a rung until it is promoted. One that was queued has no values."""
    is_waiting = trial.state == TrialState.WAITING and not is_interrupted(trial)
    return is_waiting and bool(trial.intermediate_values)


def is_interrupted(trial: FrozenTrial) -> bool:
    """Whether a trial waits to go on under its number because it was interrupted."""
    return trial.state == TrialState.WAITING and bool(trial.user_attrs.get(INTERRUPTED))


def state_of(trial: FrozenTrial) -> str:
    """The word for a trial's state, as tables and counts show it."""
    if trial.user_attrs.get(INFEASIBLE):
        return "infeasible"
    waits = is_paused(trial) or is_interrupted(trial)
    return "paused" if waits else trial.state.name.lower()


def repeated_by(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> list[int]:
    """The numbers of the trials whose settings it repeats, and whose state it may take up: the one
    that it repeats, and which that one repeated, and so on.
    """
    found: list[int] = []
    while (number := trial.user_attrs.get(REPEATS)) is not None:
        found.append(number)
        trial = trials[number]
    return found


def repeats_running(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> bool:
    """Whether a trial repeats one that runs still: it waits until that has ended."""
    number = trial.user_attrs.get(REPEATS)
    return number is not None and trials[number].state == TrialState.RUNNING


def is_to_go_on(trial: FrozenTrial) -> bool:
    """Whether a trial waits whose settings have begun: it is paused or was interrupted, or repeats
    one that died.
    """
    repeats = trial.state == TrialState.WAITING and REPEATS in trial.user_attrs
    return repeats or is_paused(trial) or is_interrupted(trial)


def is_asked_for(trial: FrozenTrial) -> bool:
    """Whether a trial waits to begin that a person queued."""
    is_new = trial.state == TrialState.WAITING and not is_to_go_on(trial)
    return is_new and trial.user_attrs.get(SUGGESTED_BY) == BY_YOU


def count_begun(trials: Iterable[FrozenTrial]) -> int:
    """The number of settings with a result, or that wait to go on.

    Args:
        trials: As they all were at one moment. Between two looks a running trial may end, and be
            missed by both.
    """
    return sum(_is_finished(trial) or is_to_go_on(trial) for trial in trials)


def n_test_records(study: optuna.Study) -> int:
    """Records of the test split that are to be answered."""
    spec = study.user_attrs.get(SPEC, {})
    return n_records(study, "test") if spec.get("scoring", {}).get("test", True) else 0


def n_records(study: optuna.Study, split: str) -> int:
    """Records of a split; its fingerprint begins with their number."""
    prints = study.user_attrs.get(SPEC, {}).get("fingerprints", {})
    number, _, _ = str(prints.get(split, "0:")).partition(":")
    return int(number) if number.isdecimal() else 0


def record_test_opened(study: optuna.Study) -> None:
    """Count an opening of the test split; to be called before its first prompt is answered."""
    study.set_user_attr(TEST_OPENED, n_test_opened(study) + 1)


def n_test_opened(study: optuna.Study) -> int:
    """How often the test split was opened, also by workers that died while they answered it."""
    attrs = study.user_attrs
    said = (attrs.get(TEST) or {}).get("n_opened", 0)
    return max(int(attrs.get(TEST_OPENED, 0)), int(said))


def is_untested(study: optuna.Study, best: FrozenTrial) -> bool:
    """Whether the best trial is still to answer the test split."""
    return not was_tested(study, best.number) and n_test_records(study) > 0


def was_tested(study: optuna.Study, number: int) -> bool:
    """Whether the scores on the test split are those of this trial."""
    return (study.user_attrs.get(TEST) or {}).get("trial_number") == number


def misses_retention(study: optuna.Study, spec: SweepSpec, best: FrozenTrial | None) -> bool:
    """Whether the best trial is still to answer the questions of ``retention``."""
    if spec.retention is None or best is None:
        return False
    known = study.user_attrs.get(RETENTION) or {}
    asked = (best.number, spec.retention.data)
    return (known.get("trial_number"), known.get("data")) != asked


def read_test(study: optuna.Study) -> dict[str, Any] | None:
    """The scores on the test split, of which trial, and as ``n_opened`` how often it was opened;
    None before the first scores.
    """
    known = study.user_attrs.get(TEST)
    return None if known is None else {**known, "n_opened": n_test_opened(study)}
