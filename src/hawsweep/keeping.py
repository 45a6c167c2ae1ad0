"""What a study keeps of its trials on disk, and whether there is room for it."""

import math
import shutil
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from hawsweep.confirm import confirmations
from hawsweep.errors import StudyError
from hawsweep.planning import MemoryModel
from hawsweep.settings import apply_settings, corners
from hawsweep.spec import SweepSpec, keep_count
from hawsweep.study import Place
from hawsweep.trialfiles import ADAPTER_DIR, CHECKPOINT_DIR, STATE_FILE

# A trial's adapters and the state to go on from; all else is small and always kept.
_BULK = (ADAPTER_DIR, CHECKPOINT_DIR, STATE_FILE)
_SMALL_BYTES_A_TRIAL = 2_000_000
_SPARE_BYTES = 100_000_000
_SHAPE_KEYS = ("fine_tune_type", "num_layers", "lora_parameters.rank")
_VALUE_BYTES = 4


def remove_bulk(opened: optuna.Study, place: Place, spec: SweepSpec) -> None:
    """Remove the adapters and states of ended trials that ``keep`` does not keep.

    What is queued to go on where a trial was stopped keeps that trial's.
    """
    count = keep_count(spec.keep)
    if count is None:
        return
    trials = opened.get_trials(deepcopy=False)
    kept = _kept(trials, count, spec) | {each.trial_number for each in confirmations(opened)}
    for trial in trials:
        if trial.state.is_finished() and trial.number not in kept:
            folder = place.trial_dir(opened.study_name, trial.number)
            for name in _BULK:
                _remove(folder / name)


def check_space(spec: SweepSpec, known: MemoryModel, place: Place, n_workers: int) -> None:
    """Refuse a sweep that the disk has no room for.

    Raises:
        StudyError: The message has both figures, and what would help.
    """
    folder = place.studies_dir
    while not folder.is_dir():
        folder = folder.parent
    free, needed = shutil.disk_usage(folder).free, bytes_to_write(spec, known, n_workers)
    if free >= needed + _SPARE_BYTES:
        return
    raise StudyError(
        f"This sweep writes up to {needed / 1e9:.2f} GB, but {free / 1e9:.2f} GB are free on the "
        f"disk that holds {place.studies_dir}. Make room, keep less (keep: best 1, "
        "train.keep_checkpoints), or choose another --studies-dir."
    )


def bytes_to_write(spec: SweepSpec, known: MemoryModel, n_workers: int) -> int:
    """The most a sweep's trials take on disk at a time: kept adapters, and what runs."""
    most = max(
        known.shape.trained_parameters(apply_settings(spec.train, settings))
        for settings in corners(spec.search, _SHAPE_KEYS)
    )
    asked = spec.train.keep_checkpoints
    n_evaluations = math.ceil(_most_iters(spec) / spec.train.steps_per_eval)
    n_adapters = 1 + (n_evaluations if asked == "every" else min(asked, n_evaluations))
    # Adapter, two moments of it, its pending gradients.
    state = 4 * most * _VALUE_BYTES
    adapters = n_adapters * most * _VALUE_BYTES
    count = keep_count(spec.keep)
    n_kept = spec.trials if count is None else min(max(count, spec.confirm.top), spec.trials)
    n_again = spec.confirm.top * spec.confirm.seeds
    running = n_workers * (2 * state + adapters)  # a state is written beside the one before
    return (
        (n_kept + n_again) * (adapters + state)
        + running
        + (spec.trials + n_again) * _SMALL_BYTES_A_TRIAL
    )


def _most_iters(spec: SweepSpec) -> int:
    asked = [settings.get("iters") for settings in corners(spec.search, ("iters",))]
    return max([int(each) for each in asked if each is not None], default=spec.train.iters)


def _kept(trials: list[FrozenTrial], count: int, spec: SweepSpec) -> set[int]:
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    best = sorted(complete, key=lambda trial: (-(trial.value or 0.0), trial.number))
    kept = {trial.number for trial in best[: max(count, spec.confirm.top)]}
    for trial in trials:
        if not trial.state.is_finished() and "repeats" in trial.user_attrs:
            kept.add(trial.user_attrs["repeats"])
    return kept


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
