"""Removes large files of ended trials."""

import shutil
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from hawsweep.layout import ADAPTER_DIR, CHECKPOINT_DIR, STATE_FILE
from hawsweep.spec.sweep import SweepSpec, keep_count
from hawsweep.study.confirm import confirmations, winner
from hawsweep.study.place import Place
from hawsweep.study.trials import repeated_by

# A trial's adapters and its resumable state; other files are small and always kept.
BULK = (ADAPTER_DIR, CHECKPOINT_DIR, STATE_FILE)


def remove_bulk(study: optuna.Study, place: Place, spec: SweepSpec) -> None:
    """Remove the adapters and states of ended trials that ``keep`` does not keep."""
    for number in not_kept(study, spec):
        for name in BULK:
            _remove(place.trial_dir(study.study_name, number) / name)


def not_kept(study: optuna.Study, spec: SweepSpec) -> list[int]:
    """The ended trials whose large files ``keep`` does not keep.

    The files of a trial that a queued one resumes are kept.
    """
    count = keep_count(spec.keep)
    if count is None:
        return []
    trials = study.get_trials(deepcopy=False)
    kept = _kept(trials, count, spec) | {each.trial_number for each in confirmations(study)}
    kept |= set() if (best := winner(study)) is None else {best.number}
    return [each.number for each in trials if each.state.is_finished() and each.number not in kept]


def kept_complete(study: optuna.Study, spec: SweepSpec) -> set[int]:
    """The complete trials whose adapters ``keep`` keeps."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return {trial.number for trial in complete}.difference(not_kept(study, spec))


def _kept(trials: list[FrozenTrial], count: int, spec: SweepSpec) -> set[int]:
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    best = sorted(complete, key=lambda trial: (-(trial.value or 0.0), trial.number))
    kept = {trial.number for trial in best[: max(count, spec.confirm.top)]}
    for trial in trials:
        if not trial.state.is_finished():
            kept.update(repeated_by(trial, trials))
    return kept


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
