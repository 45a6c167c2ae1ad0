"""Starting a sweep, joining one that runs, stopping it from elsewhere."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import optuna

from hawsweep import (
    calibration,
    confirm,
    courtesy,
    data,
    deaths,
    keeping,
    memory,
    models,
    provenance,
    recovery,
    space,
    study,
    sweepplan,
    trials,
)
from hawsweep.peak import arrays_budget
from hawsweep.processes import supervising, supervisor_of
from hawsweep.progress import joined_file, recording, telling_standing
from hawsweep.shapes import read_config
from hawsweep.spec import HOW_IT_RUNS, SweepSpec
from hawsweep.standing import find_standing
from hawsweep.supervisor import POLL_S, Event, Listener, Supervisor, keep_record


@dataclass(frozen=True)
class Outcome:
    """How a start ended, and the study it left."""

    ended: Literal["finished", "timeout", "interrupted"]
    study: optuna.Study
    spec: SweepSpec


def run_sweep(
    spec: SweepSpec,
    name: str,
    place: study.Place,
    listen: Listener,
    *,
    accept_versions: bool = False,
) -> Outcome:
    """Start a study, or go on with it, until ``spec.trials`` trials are complete or pruned.

    Args:
        name: The study's name, also of its folder.
        listen: Is told of every event, and with kind ``tick`` several times a second.
        accept_versions: See ``study.create_study``.

    Raises:
        StudyBusyError: Another process on this machine runs the study.
        HawsweepError: Something else is wrong that another trial would not mend. What was finished
            is kept.
    """
    study.check_name(name)
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # events say it better

    def preparing(text: str) -> None:
        listen(Event("preparing", values={"text": text}))

    # What is read in a moment comes before a model is converted and measured.
    splits = data.load_data(spec.data, preparing)
    with ExitStack() as held:
        held.enter_context(supervising(place.study_dir(name), {"trials": spec.trials}))
        listen = held.enter_context(recording(listen, place.study_dir(name)))
        held.enter_context(study.storage_faults_told(place))
        if spec.machine.keep_awake:
            held.enter_context(courtesy.keep_awake(preparing))
        return _run_sweep(spec, name, place, listen, preparing, splits, accept_versions)


def join_sweep(
    name: str, place: study.Place, listen: Listener, workers: int | Literal["auto"] = "auto"
) -> Outcome:
    """Run trials of a study that another process started, and maybe still runs, here too.

    Base, confirmation and test are left to the one that started it.

    Raises:
        StudyError: There is no such study.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def preparing(text: str) -> None:
        listen(Event("preparing", values={"text": text}))

    storage = study.open_storage(place)
    opened = study.load_study(storage, name)
    spec = study.spec_of(opened).model_copy(update={"workers": workers})
    opened.set_user_attr(study.STOP, None)
    with ExitStack() as held:
        held.enter_context(study.storage_faults_told(place))
        listen = held.enter_context(recording(listen, place.study_dir(name), joined_file()))
        if spec.machine.keep_awake:
            held.enter_context(courtesy.keep_awake(preparing))
        model_path = models.resolve_model(spec.model, preparing)
        models.resolve_embedder(spec.scoring.embedder, preparing)
        n_workers, worker_bytes = _share_memory(spec, model_path, place, preparing)
        place.study_dir(name).mkdir(parents=True, exist_ok=True)
        confirming = confirm.open_confirmation(storage, opened, spec)
        listen = _tell_study(listen, name, opened, spec, n_workers, is_new=False)
        ended = Supervisor(
            spec, name, place, opened, confirming, n_workers, worker_bytes, listen, joins=True
        ).run()
    return Outcome(ended, study.load_study(storage, name), spec)


def ask_to_stop(
    name: str, place: study.Place, waiting: Callable[[], None], *, now: bool = False
) -> bool:
    """Have whoever runs a study stop: after the current evaluation, or now. Returns when it has.

    Args:
        waiting: Called several times a second meanwhile.

    Returns:
        Whether anybody here ran it; of other machines nobody knows.

    Raises:
        StudyError: There is no such study.
    """
    opened = study.load_study(study.open_storage(place), name)
    folder = place.study_dir(name)
    was_run = supervisor_of(folder) is not None or trials.n_running_here(opened) > 0
    opened.set_user_attr(study.STOP, 2 if now else 1)
    while supervisor_of(folder) is not None or trials.n_running_here(opened) > 0:
        waiting()
        time.sleep(POLL_S)
    return was_run


def _run_sweep(
    spec: SweepSpec,
    name: str,
    place: study.Place,
    listen: Listener,
    preparing: Callable[[str], None],
    splits: data.Splits,
    accept_versions: bool,
) -> Outcome:
    storage = study.open_storage(place, create=True)
    models.resolve_embedder(spec.scoring.embedder, preparing)
    model_path = models.resolve_model(spec.model, preparing)
    n_workers, worker_bytes = _share_memory(spec, model_path, place, preparing)
    if name not in study.study_names(storage):
        recovery.check_nothing_lost(name, place)
    prints = provenance.fingerprints(spec, model_path, splits.fingerprint())
    opened, is_new = study.create_study(
        storage, place, name, spec, prints, accept_versions=accept_versions
    )
    if is_new:
        for settings in space.first_settings(spec, read_config(model_path)):
            opened.enqueue_trial(settings, user_attrs={"suggested_by": "published sweeps"})
    # These may change at each start.
    opened.set_user_attr("references", spec.scoring.references or {})
    opened.set_user_attr("how", spec.model_dump(mode="json", include=set(HOW_IT_RUNS)))
    opened.set_user_attr(study.STOP, None)
    confirming = confirm.open_confirmation(storage, opened, spec)
    for each in (opened, confirming):
        for number in trials.reap_running(each, deaths.GONE):
            keep_record(each, place, number)
            listen(Event("reaped", values={"number": number}))
    listen = _tell_study(listen, name, opened, spec, n_workers, is_new=is_new)
    ended = Supervisor(spec, name, place, opened, confirming, n_workers, worker_bytes, listen).run()
    return Outcome(ended, study.load_study(storage, name), spec)


def _tell_study(
    listen: Listener,
    name: str,
    opened: optuna.Study,
    spec: SweepSpec,
    n_workers: int,
    *,
    is_new: bool,
) -> Listener:
    """Tell what is run; gives the listener that is told, from here on, how the study stands too."""
    listen = telling_standing(listen, lambda: find_standing(opened, spec).to_plain())
    values = {
        "name": name,
        "is_new": is_new,
        "finished": trials.count_finished(opened),
        "n_trials": spec.trials,
        "n_workers": n_workers,
        "timeout_s": spec.timeout,
    }
    listen(Event("study", values=values))
    return listen


def _share_memory(
    spec: SweepSpec, model_path: Path, place: study.Place, preparing: Callable[[str], None]
) -> tuple[int, float | None]:
    """How many workers there are, and what each may take; None where nothing can be predicted."""
    machine = memory.this_machine()
    budget = memory.find_budget(spec.memory.budget, spec.memory.reserve, machine=machine)
    known = calibration.memory_model(model_path)
    work = sweepplan.workload(spec)
    if known is not None:
        exact = replace(known, coefficients=replace(known.coefficients, error=0.0))
        whole = arrays_budget(budget.total_bytes, known.coefficients)
        sweepplan.check_fits(spec, exact, work, whole)
    known = calibration.ensure_calibrated(model_path, known, budget.total_bytes, preparing)
    if known is None:
        preparing(
            "the memory of this architecture is not known: trials are executed as the sweep says"
        )
        return 1 if spec.workers == "auto" else min(spec.workers, spec.trials), None
    n_workers, each = sweepplan.share(spec, known, work, budget)
    keeping.check_space(spec, known, place, n_workers)
    sweepplan.check_fits(spec, known, work, arrays_budget(each, known.coefficients))
    preparing(f"memory: {budget.how}; {each / 1e9:.1f} GB for each of {n_workers} workers")
    return n_workers, each
