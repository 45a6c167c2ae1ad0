"""The queue of trials: which trial is next, its worker, and the retry of failed ones."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from hawsweep.machine.processes import asking, is_alive_here, is_dead_here
from hawsweep.study.attributes import (
    BELOW_BYTES,
    CONFIRMS,
    FAULT,
    INFEASIBLE,
    INTERRUPTED,
    ITERS,
    MEMORY_CONSTRAINT,
    MEMORY_FACTOR,
    PLAN,
    REASON,
    REPEATS,
    RETRIED_AFTER,
    SEED,
    SMALLEST_VIOLATION,
    STOPPED,
    WORKER,
)
from hawsweep.study.faults import Fault
from hawsweep.study.leases import count_running
from hawsweep.study.optuna_door import (
    read_once,
    storage_of,
    study_id,
    suggest,
    trial_id,
    trial_to_run,
)
from hawsweep.study.trials import count_begun, is_interrupted, is_paused, repeats_running

# Gives the number of the paused trial that goes on, if one does.
Promote = Callable[[Sequence[FrozenTrial]], int | None]

_ALONE = nullcontext()
_TIGHTENED = 1.15
# How far from a step a value may be, in steps.
_ON_STEP = 1e-6
# Attributes that change a trial beside its settings, so its retry has them too.
_CARRIED = (CONFIRMS, SEED, ITERS, RETRIED_AFTER, BELOW_BYTES, STOPPED)


@dataclass(frozen=True)
class Ending:
    """How a trial ended: ``fail``, ``infeasible`` or ``paused``, as in events and tables; and the
    reason.
    """

    state: str
    reason: str


def reap_running(
    study: optuna.Study, fault: Fault, worker: Mapping[str, Any] | None = None
) -> dict[int, Ending]:
    """End trials left RUNNING: those of one worker, or those whose worker and supervisor have ended
    on this machine.

    Returns:
        How each ended, by its number.
    """
    reaped = {}
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        owner = trial.user_attrs.get(WORKER)
        is_meant = owner == dict(worker) if worker is not None else _is_left(owner)
        if is_meant and (ending := end_failed(study, trial.number, fault, owner)) is not None:
            reaped[trial.number] = ending
    return reaped


def _is_left(owner: Mapping[str, Any] | None) -> bool:
    return is_dead_here(owner) and not is_alive_here((owner or {}).get("parent"))


def end_failed(
    study: optuna.Study, number: int, fault: Fault, owner: Mapping[str, Any] | None = None
) -> Ending | None:
    """End a running trial according to its fault: it goes on later, its settings are queued again,
    or recorded as not fitting into memory.

    Args:
        owner: Its worker, where it was found some time ago: another may have it now.

    Returns:
        How it ended; None where another process ended it, or it goes on.
    """
    trial = study.get_trials(deepcopy=False)[number]
    if trial.state != TrialState.RUNNING:
        return None
    if owner is not None and trial.user_attrs.get(WORKER) != dict(owner):
        return None
    state, reason, storage = TrialState.FAIL, fault.text, storage_of(study)
    if fault.kind == "interrupted":
        try:
            storage.set_trial_user_attr(trial_id(trial), INTERRUPTED, True)
            storage.set_trial_state_values(trial_id(trial), TrialState.WAITING)
        except optuna.exceptions.UpdateFinishedTrialError:
            return None
        return Ending("paused", f"{reason}; it goes on at the next start")
    is_repeated = fault.remedy == "go on"
    if fault.remedy == "go on":
        repeat_trial(study, number)
        reason += "; its settings are tried again"
    elif fault.remedy == "later":
        is_repeated = _try_later(study, trial, fault)
        reason += "; tried once more" if is_repeated else "; not tried again"
    elif fault.remedy == "smaller":
        is_repeated = ran_out_of_memory(study, number)
        if is_repeated:
            reason += "; tried once more with a smaller plan"
        else:
            state, reason = TrialState.PRUNED, f"{reason}; there is no smaller way to execute it"
            _mark_infeasible(study, trial)
    try:
        # The fault first: by it a result that comes in between is known to have come so.
        storage.set_trial_user_attr(trial_id(trial), FAULT, fault.kind)
        storage.set_trial_user_attr(trial_id(trial), REASON, reason)
        storage.set_trial_state_values(trial_id(trial), state)
    except optuna.exceptions.UpdateFinishedTrialError:
        return None
    if is_repeated:
        _renew_retry(study, number)
    return Ending("infeasible" if state == TrialState.PRUNED else "fail", reason)


def _mark_infeasible(study: optuna.Study, trial: FrozenTrial) -> None:
    trial_to_run(study, trial.number).set_user_attr(INFEASIBLE, True)
    key = f"constraints:{MEMORY_CONSTRAINT}"
    if key not in trial.system_attrs or trial.system_attrs[key] <= 0:
        # Trial.set_constraint would keep the first value: that the plan was thought to fit.
        storage_of(study).set_trial_system_attr(trial_id(trial), key, SMALLEST_VIOLATION)


def _try_later(study: optuna.Study, trial: FrozenTrial, fault: Fault) -> bool:
    if RETRIED_AFTER in trial.user_attrs:
        return False
    repeat_trial(study, trial.number, {RETRIED_AFTER: fault.kind})
    return True


def repeat_trial(
    study: optuna.Study, number: int, attributes: Mapping[str, Any] | None = None
) -> None:
    """Queue a trial's settings, unless they are; the new trial resumes from its state.

    Args:
        attributes: The new trial's, beside those that it has from the one repeated.
    """
    trials = study.get_trials(deepcopy=False)
    if any(map(_counts, _retries(trials, number))):
        return  # a process was killed after queueing, before it ended the trial
    attributes = {REPEATS: number, **_carried(trials[number]), **(attributes or {})}
    # A trial that died while it got its settings has only some of them.
    settings = {**trials[number].system_attrs.get("fixed_params", {}), **trials[number].params}
    study.enqueue_trial(settings, user_attrs=attributes)


def _renew_retry(study: optuna.Study, number: int) -> None:
    """Queue a retry anew that another machine ended, since the trial had gone on for a moment."""
    retries = _retries(study.get_trials(deepcopy=False), number)
    if retries and not any(map(_counts, retries)):
        asked, attributes = retries[-1].system_attrs["fixed_params"], retries[-1].user_attrs
        kept = {key: value for key, value in attributes.items() if key != REASON}
        study.enqueue_trial(asked, user_attrs=kept)


def _retries(trials: Iterable[FrozenTrial], number: int) -> list[FrozenTrial]:
    return [trial for trial in trials if trial.user_attrs.get(REPEATS) == number]


def _counts(retry: FrozenTrial) -> bool:
    """Whether a retry waits or has begun, and was not ended in the queue."""
    return not retry.state.is_finished() or retry.datetime_start is not None


def _carried(trial: FrozenTrial) -> dict[str, Any]:
    return {key: trial.user_attrs[key] for key in _CARRIED if key in trial.user_attrs}


def ran_out_of_memory(study: optuna.Study, number: int) -> bool:
    """Record that a trial ran out of memory although its plan fitted: later plans leave more room,
    and its settings are queued once, for a smaller plan.

    Returns:
        Whether it is tried again.
    """
    trial = study.get_trials(deepcopy=False)[number]
    plan = trial.user_attrs.get(PLAN)
    if plan is None or not plan["peak_bytes"]:
        return False  # neither its memory nor a smaller plan is known
    factor = study.user_attrs.get(MEMORY_FACTOR, 1.0)
    study.set_user_attr(MEMORY_FACTOR, factor * _TIGHTENED)
    if BELOW_BYTES in trial.user_attrs:
        return False
    repeat_trial(study, number, {BELOW_BYTES: plan["peak_bytes"]})
    return True


def ask(
    study: optuna.Study,
    make_sampler: Callable[[int], BaseSampler],
    space: Mapping[str, BaseDistribution],
    folder: Path,
    worker: Mapping[str, Any],
    n_trials: int = 0,
    promote: Promote = lambda _: None,
    *,
    may_begin: bool = True,
    proposes: bool = True,
    turns: AbstractContextManager[None] = _ALONE,
) -> int | None:
    """Begin the next trial, with its settings; give its number, or None if there is none.

    Interrupted trials come first, then a promoted one, then queued ones, then a proposal. A retry
    waits until another trial has begun, so that the cause of its fault may have passed.

    One process at a time asks, on this machine by a lock of a file. SQLite has no ``SELECT FOR
    UPDATE``: without the lock, Optuna would let two processes read that a trial waits, and both
    would run it.

    Args:
        make_sampler: Gives the sampler of a proposal, of the number of trials before it.
        folder: The study's, which holds the lock.
        worker: The process that runs it. A running trial has it from the first moment, so that
            whenever that process or the asking one dies it is known whose the trial was.
        n_trials: The number to begin; a retry does not wait once they have begun.
        promote: Gives the number of the paused trial that goes on, if one does.
        may_begin: Whether a setting may begin that no trial had.
        proposes: Whether the sampler proposes one where none waits.
        turns: Waits for the turn among all machines; see ``leases.turn``.
    """
    with asking(folder), turns, read_once(study):
        trials = study.get_trials(deepcopy=False)
        study.sampler = make_sampler(len(trials))
        begun = max((t.number for t in trials if t.state != TrialState.WAITING), default=-1)
        # Another machine may have begun the last one since this was asked for.
        is_enough = count_begun(trials) + count_running(trials) >= n_trials
        may_begin = may_begin and not (n_trials and is_enough)
        is_last = not may_begin or is_enough  # no other will begin
        promoted = promote(trials)

        def turn(waiting: FrozenTrial) -> int | None:
            if repeats_running(waiting, trials):
                return None  # that one is just being ended, or ends itself
            if is_interrupted(waiting):
                return 0
            if is_paused(waiting):
                return 2 if waiting.number == promoted else None
            if RETRIED_AFTER in waiting.user_attrs:
                return 1 if is_last or begun > waiting.number else None
            if REPEATS in waiting.user_attrs:
                return 0
            return 3 if may_begin else None

        waiting = [
            (turn(trial), trial.number)
            for trial in trials
            if trial.state == TrialState.WAITING
            and not (_end_misfit(study, trial, space) or _end_needless(study, trial, trials))
        ]
        queued = sorted((at, number) for at, number in waiting if at is not None)
        taken = (number for _, number in queued if _take(study, trials[number], worker))
        number = next(taken, None)
        if number is None:
            if not may_begin or not proposes:
                return None
            number = _new_trial(study, worker)
        trial = trial_to_run(study, number)
        if INTERRUPTED in trial.user_attrs:
            trial.set_user_attr(INTERRUPTED, False)
        suggest(trial, space)
        return number


def pause(study: optuna.Study, number: int) -> None:
    """Let a running trial wait, under its number, until it is promoted."""
    trial = study.get_trials(deepcopy=False)[number]
    storage_of(study).set_trial_state_values(trial_id(trial), TrialState.WAITING)


def leave_behind(study: optuna.Study, last_of: Callable[[FrozenTrial], int]) -> list[int]:
    """End the paused trials, which are not promoted any more; give their numbers.

    Args:
        last_of: Gives a trial's ``iters``.
    """
    ended = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        if not is_paused(trial):
            continue
        reason = f"not promoted past {trial.last_step} of {last_of(trial)}"
        if end_waiting(study, trial, TrialState.PRUNED, reason):
            ended.append(trial.number)
    return ended


def end_waiting(study: optuna.Study, trial: FrozenTrial, state: TrialState, reason: str) -> bool:
    """End a waiting trial; give whether it was this call that did."""
    storage = storage_of(study)
    with suppress(optuna.exceptions.UpdateFinishedTrialError):  # it was ended from outside
        storage.set_trial_user_attr(trial_id(trial), REASON, reason)
        storage.set_trial_state_values(trial_id(trial), state)
        return True
    return False


def _end_misfit(
    study: optuna.Study, trial: FrozenTrial, space: Mapping[str, BaseDistribution]
) -> bool:
    """End a queued trial whose settings the space does not have; whether it was one.

    Any program may queue. Optuna would train outside of a range, and raise for other choices.
    """
    has_begun = REPEATS in trial.user_attrs or is_interrupted(trial)
    queued = {} if has_begun else trial.system_attrs.get("fixed_params", {})
    wrong = [key for key, value in queued.items() if not _is_allowed(space.get(key), value)]
    if not wrong:
        return False
    key = wrong[0]
    reason = f"{key} was queued as {queued[key]!r}, " + (
        f"which the search does not have: {space[key]}"
        if key in space
        else f"which is not searched; searched: {', '.join(space)}"
    )
    end_waiting(study, trial, TrialState.FAIL, reason)
    return True


def end_needless(study: optuna.Study) -> None:
    """End the queued retries of trials that did not fail after all, or that another one repeats.

    A machine that was not heard of may write its trial's result just while that is given up, and
    two may give it up at once.
    """
    trials = study.get_trials(deepcopy=False)
    for trial in trials:
        if trial.state == TrialState.WAITING:
            _end_needless(study, trial, trials)


def _end_needless(study: optuna.Study, trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> bool:
    """End a trial if it is a retry without need; whether it was one."""
    repeated = trial.user_attrs.get(REPEATS)
    if repeated is None:
        return False
    earlier = [each for each in _retries(trials[: trial.number], repeated) if _counts(each)]
    if earlier:
        reason = f"trial {earlier[0].number} repeats trial {repeated}, too"
    elif trials[repeated].state not in (TrialState.FAIL, TrialState.RUNNING):
        reason = f"trial {repeated} went on after all"
    else:
        return False
    end_waiting(study, trial, TrialState.FAIL, reason)
    return True


def _is_allowed(asked: BaseDistribution | None, value: Any) -> bool:
    if isinstance(asked, CategoricalDistribution):
        return value in asked.choices
    if not isinstance(asked, IntDistribution | FloatDistribution) or isinstance(value, bool):
        return False
    if not isinstance(value, int | float) or not asked.low <= value <= asked.high:
        return False
    steps = (value - asked.low) / (asked.step or 1)
    is_whole = isinstance(asked, IntDistribution) or asked.step is not None
    return not is_whole or abs(steps - round(steps)) < _ON_STEP


def _take(study: optuna.Study, trial: FrozenTrial, worker: Mapping[str, Any]) -> bool:
    """Give a waiting trial to this worker, unless another machine has taken it."""
    storage = storage_of(study)
    if storage.get_trial(trial_id(trial)).state != TrialState.WAITING:
        return False  # since the trials were read
    with suppress(optuna.exceptions.UpdateFinishedTrialError):
        # Set before it runs: if this process dies in between, the trial still waits.
        storage.set_trial_user_attr(trial_id(trial), WORKER, dict(worker))
        return storage.set_trial_state_values(trial_id(trial), TrialState.RUNNING)
    return False


def _new_trial(study: optuna.Study, worker: Mapping[str, Any]) -> int:
    """Begin a trial without settings; give its number.

    Study.ask would take a waiting trial out of turn.
    """
    new = create_trial(state=TrialState.RUNNING, user_attrs={WORKER: dict(worker)})
    storage = storage_of(study)
    return storage.get_trial_number_from_id(storage.create_new_trial(study_id(study), new))


def n_running_here(study: optuna.Study) -> int:
    """Trials that run now, in processes that live on this machine."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return sum(is_alive_here(trial.user_attrs.get(WORKER)) for trial in running)


def orphans_here(study: optuna.Study) -> list[int]:
    """Process ids of workers on this machine that run a trial without a supervisor."""
    owners = [
        trial.user_attrs.get(WORKER, {})
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    ]
    return [
        owner["pid"]
        for owner in owners
        if is_alive_here(owner) and is_dead_here(owner.get("parent"))
    ]
