"""Changes to a study while it runs, or before it goes on: a setting to try next, a trial to end,
more trials or more time. Its supervisor takes them up from the database.
"""

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from hawsweep.errors import SpecError, StudyError
from hawsweep.layout import STATE_FILE
from hawsweep.machine.processes import asking, supervisor_of
from hawsweep.running.status import start_command
from hawsweep.search.sampler import n_untried, setting_key, settings_of
from hawsweep.spec.read import check_settings
from hawsweep.spec.space import SearchValue, as_text
from hawsweep.spec.sweep import SweepSpec
from hawsweep.study.attributes import BY_YOU, EXTENDED, ITERS, STOPPED, SUGGESTED_BY
from hawsweep.study.optuna_door import storage_of, trial_id
from hawsweep.study.place import Place
from hawsweep.study.queue import end_waiting
from hawsweep.study.storage import open_storage
from hawsweep.study.study import known_spec, load_study, spec_of, spec_of_start
from hawsweep.study.trials import count_begun, is_to_go_on, state_of, train_of, trial_of
from hawsweep.units import parse_duration

_STOPPED_BY_YOU = "stopped by you"


@dataclass(frozen=True)
class Queued:
    """A setting that was queued.

    Attributes:
        trial: Its number.
        may_begin: Whether the sweep has trials left for it.
        command: What goes on with the study; empty where a process on this machine runs it.
    """

    study: str
    trial: int
    settings: Mapping[str, SearchValue]
    may_begin: bool
    command: str


def enqueue(name: str, place: Place, settings: Mapping[str, Any]) -> Queued:
    """Queue a setting of the search space, before any proposal. A key that is left out gets a value
    by chance.

    Raises:
        SpecError: It is not of the space.
        StudyError: There is no such study, or a trial had or has the setting.
    """
    study, spec = _open(name, place)
    settings = {key: as_text(value) for key, value in settings.items()}
    if faults := list(check_settings(settings, spec)):
        raise SpecError(faults[0], lines=faults[1:])
    with _alone(place, name):
        trials = study.get_trials(deepcopy=False)
        for trial in trials:
            if trial.state != TrialState.FAIL and _has(trial, settings):
                raise StudyError(
                    f"Trial {trial.number} has this setting already ({state_of(trial)}). Each is "
                    "tried once; the best are trained again with new seeds."
                )
        study.enqueue_trial(dict(settings), user_attrs={SUGGESTED_BY: BY_YOU})
    open_ones = [trial for trial in trials if not (trial.state.is_finished() or is_to_go_on(trial))]
    may_begin = count_begun(trials) + len(open_ones) < spec.trials
    is_running = supervisor_of(place.study_dir(name)) is not None
    command = "" if is_running else start_command(name, spec, place)
    return Queued(name, len(trials), settings, may_begin, command)


def stop_trial(name: str, place: Place, number: int) -> bool:
    """End a trial of a study that goes on: a running one at its next evaluation, a waiting one now.

    Returns:
        Whether it has ended.

    Raises:
        StudyError: There is no such trial, or it has ended or is trained already.
    """
    study, spec = _open(name, place)
    with _alone(place, name):
        trial = trial_of(study, number)
        if trial.state == TrialState.WAITING:
            state = TrialState.PRUNED if trial.intermediate_values else TrialState.FAIL
            if end_waiting(study, trial, state, _STOPPED_BY_YOU):
                (place.trial_dir(name, number) / STATE_FILE).unlink(missing_ok=True)
                return True
            trial = trial_of(study, number)  # another machine ended it in between
        if trial.state.is_finished():
            raise StudyError(f"Trial {number} has ended already ({state_of(trial)}).")
        _check_not_trained(spec, trial)
        storage_of(study).set_trial_user_attr(trial_id(trial), STOPPED, True)
        return False


def lengthen(name: str, place: Place, number: int, iters: int) -> None:
    """Give a trial that has not ended more iterations: a running one at its next evaluation. Where
    it may pause, and how others are judged, stays.

    Raises:
        SpecError: It has as many already, or its rate or order depends on how many it has.
        StudyError: There is no such trial, or it has ended or is trained already.
    """
    from hawsweep.training.checkpoints import can_be_extended

    study, spec = _open(name, place)
    with _alone(place, name):
        trial = trial_of(study, number)
        if trial.state.is_finished():
            raise StudyError(f"Trial {number} has ended already ({state_of(trial)}).")
        _check_not_trained(spec, trial)
        train = train_of(spec, trial)
        if iters <= train.iters:
            raise SpecError(
                f"--iters is {iters}, must be above {train.iters}, which trial {number} has."
            )
        if not can_be_extended(train):
            raise SpecError(
                f"Trial {number} cannot be longer: its learning rate or its order depends on "
                f"iters, or its {train.iters} end between two evaluations, reports or updates."
            )
        storage_of(study).set_trial_user_attr(trial_id(trial), ITERS, iters)


def _check_not_trained(spec: SweepSpec, trial: FrozenTrial) -> None:
    if (trial.last_step or 0) >= train_of(spec, trial).iters:
        raise StudyError(f"Trial {trial.number} is trained already, and is being scored.")


def extend(name: str, place: Place, trials: str | None, timeout: str | None) -> SweepSpec:
    """Add trials or time to a study that runs or runs again; give its spec from now on.

    Args:
        trials: As ``+5``.
        timeout: As ``+2h``.

    Raises:
        SpecError: Another form, or nothing to add.
        StudyError: There is no such study, or nothing in it that this would change.
    """
    study, _ = _open(name, place)
    with _alone(place, name):
        asked, spec = spec_of_start(study), spec_of(study)
        changes = _added(study, spec, trials, timeout)
        before = study.user_attrs.get(EXTENDED, {})
        added = {key: [getattr(asked, key), value] for key, value in changes.items()}
        study.set_user_attr(EXTENDED, {**before, **added})
    return spec.model_copy(update=changes)


def _added(
    study: optuna.Study, spec: SweepSpec, trials: str | None, timeout: str | None
) -> dict[str, float]:
    """The values from now on of the keys to which something is added."""
    name, changes = study.study_name, dict[str, float]()
    if trials is not None:
        if re.fullmatch(r"\+[1-9]\d{0,5}", trials) is None:
            raise SpecError(f"--trials is {trials!r}, must be trials to add, such as +5.")
        if not n_untried(spec, study.get_trials(deepcopy=False)):
            raise StudyError(f"Study {name!r} has tried each setting of its search space.")
        changes["trials"] = spec.trials + int(trials)
    if timeout is not None:
        if spec.timeout is None:
            raise StudyError(f"Study {name!r} has no timeout: nothing limits its time.")
        changes["timeout"] = spec.timeout + _seconds(timeout)
    return changes


def _seconds(text: str) -> float:
    try:
        if not text.startswith("+"):
            raise ValueError
        return parse_duration(text[1:])
    except ValueError as fault:
        raise SpecError(f"--timeout is {text!r}, must be a time to add, such as +2h.") from fault


def _open(name: str, place: Place) -> tuple[optuna.Study, SweepSpec]:
    study = load_study(open_storage(place, only_look=False), name)
    spec = known_spec(study)
    if spec is None:
        raise StudyError(f"Study {name!r} has no sweep: hawsweep did not start it.")
    return study, spec


def _alone(place: Place, name: str) -> AbstractContextManager[None]:
    """No trial begins on this machine meanwhile."""
    place.study_dir(name).mkdir(parents=True, exist_ok=True)
    return asking(place.study_dir(name))


def _has(trial: FrozenTrial, settings: Mapping[str, SearchValue]) -> bool:
    """Whether a trial has a setting, or was queued with it."""
    queued = trial.system_attrs.get("fixed_params", {})
    return setting_key(settings) in (setting_key(queued), setting_key(settings_of(trial)))
