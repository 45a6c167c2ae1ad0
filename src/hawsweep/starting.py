"""Starting a sweep, joining one that runs, stopping it from elsewhere."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
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
from hawsweep.errors import MemoryBudgetError
from hawsweep.notify import find_targets, telling
from hawsweep.peak import arrays_budget
from hawsweep.planning import MemoryModel, Workload
from hawsweep.processes import supervising, supervisor_of
from hawsweep.progress import joined_file, recording, telling_standing
from hawsweep.results import StudyResults
from hawsweep.shapes import read_config
from hawsweep.spec import HOW_IT_RUNS, SweepSpec
from hawsweep.standing import find_standing
from hawsweep.supervisor import POLL_S, Ended, Event, Listener, Supervisor

Progress = Callable[[str], None]
# Models that do not fit into memory: why, and by how many GB.
LeftOut = dict[str, tuple[str, float]]


@dataclass(frozen=True, eq=False)
class Outcome(StudyResults):
    """How a start ended, and what the study found.

    Attributes:
        ended: ``finished``; ``timeout``, where ``spec.timeout`` left trials over; or
            ``interrupted``, by Ctrl-C or ``hawsweep stop``. The last two go on when started again.
    """

    ended: Ended


def run_sweep(
    spec: SweepSpec,
    name: str,
    *,
    studies_dir: str | Path | None = None,
    storage: str | None = None,
    on_event: Listener | None = None,
    notify: str | Sequence[str] | None = None,
    accept_versions: bool = False,
) -> Outcome:
    """Start a study, or go on with it, until ``spec.trials`` trials are complete or pruned.

    Trials run in processes of their own. In the main thread Ctrl-C lets them save where they are,
    and ``interrupted`` is returned.

    Args:
        name: The study's name, also of its folder.
        studies_dir: Where studies are kept; see ``study.find_place``.
        storage: An Optuna RDB URL instead of the database there.
        on_event: Is told of every event, and with kind ``tick`` several times a second. What it
            raises ends the sweep, in such a way that it goes on when started again.
        notify: Where what ``spec.notify`` names is sent; see ``notify.find_targets``.
        accept_versions: See ``study.create_study``.

    Raises:
        StudyBusyError: Another process on this machine runs the study.
        HawsweepError: Something else is wrong that another trial would not mend. What was finished
            is kept.
    """
    study.check_name(name)
    place, targets = study.find_place(studies_dir, storage), find_targets(notify)
    listen = on_event or (lambda _: None)
    with ExitStack() as held:
        held.enter_context(_optuna_quiet())
        # What is read in a moment comes before a model is converted and measured.
        splits = data.load_data(spec.data, _preparing(listen))
        held.enter_context(supervising(place.study_dir(name), {"trials": spec.trials}))
        listen = held.enter_context(recording(listen, place.study_dir(name)))
        news = held.enter_context(telling(name, spec, targets, listen))
        held.enter_context(study.storage_faults_told(place))
        if spec.machine.keep_awake:
            held.enter_context(courtesy.keep_awake(_preparing(listen)))
        ended, opened = _run_sweep(spec, name, place, news, splits, accept_versions)
        outcome = Outcome(opened, place, ended)
        news.tell_end(ended, outcome)
        return outcome


def join_sweep(
    name: str, place: study.Place, listen: Listener, workers: int | Literal["auto"] = "auto"
) -> Outcome:
    """Run trials of a study that another process started, and maybe still runs, here too.

    Base, confirmation and test are left to the one that started it.

    Raises:
        StudyError: There is no such study.
    """
    preparing = _preparing(listen)
    storage = study.open_storage(place)
    opened = study.load_study(storage, name)
    spec = study.spec_of(opened).model_copy(update={"workers": workers})
    opened.set_user_attr(study.STOP, None)
    with ExitStack() as held:
        held.enter_context(_optuna_quiet())
        held.enter_context(study.storage_faults_told(place))
        listen = held.enter_context(recording(listen, place.study_dir(name), joined_file()))
        if spec.machine.keep_awake:
            held.enter_context(courtesy.keep_awake(preparing))
        paths = _resolve_models(spec, preparing)
        models.resolve_embedder(spec.scoring.embedder, preparing)
        n_workers, worker_bytes, left_out = _share_memory(spec, paths, place, preparing)
        place.study_dir(name).mkdir(parents=True, exist_ok=True)
        confirming = confirm.open_confirmation(storage, opened, spec)
        listen = _tell_study(listen, name, opened, spec, n_workers, is_new=False)
        _tell_left_out(left_out, listen)
        ended = Supervisor(
            spec,
            name,
            place,
            opened,
            confirming,
            n_workers,
            worker_bytes,
            listen,
            joins=True,
            left_out=left_out,
        ).run()
    return Outcome(study.load_study(storage, name), place, ended)


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


def _preparing(listen: Listener) -> Callable[[str], None]:
    return lambda text: listen(Event("preparing", values={"text": text}))


@contextmanager
def _optuna_quiet() -> Iterator[None]:
    """Without what Optuna logs of each trial, which events say better."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _run_sweep(
    spec: SweepSpec,
    name: str,
    place: study.Place,
    listen: Listener,
    splits: data.Splits,
    accept_versions: bool,
) -> tuple[Ended, optuna.Study]:
    preparing = _preparing(listen)
    recovery.check_database_not_lost(place)
    storage = study.open_storage(place, create=True)
    models.resolve_embedder(spec.scoring.embedder, preparing)
    paths = _resolve_models(spec, preparing)
    n_workers, worker_bytes, left_out = _share_memory(spec, paths, place, preparing)
    if name not in study.study_names(storage):
        recovery.check_trials_not_lost(name, place)
    first, *others = paths
    prints = provenance.fingerprints(
        spec, paths[first], splits.fingerprint(), {each: paths[each] for each in others}
    )
    opened, is_new = study.create_study(
        storage, place, name, spec, prints, accept_versions=accept_versions
    )
    if is_new:
        configs = {model: read_config(path) for model, path in paths.items()}
        for settings in space.first_of_models(spec, configs):
            opened.enqueue_trial(settings, user_attrs={"suggested_by": "published sweeps"})
    # These may change at each start.
    opened.set_user_attr("references", spec.scoring.references or {})
    opened.set_user_attr("how", spec.model_dump(mode="json", include=set(HOW_IT_RUNS)))
    opened.set_user_attr(study.STOP, None)
    confirming = confirm.open_confirmation(storage, opened, spec)
    for each in (opened, confirming):
        for number in trials.reap_running(each, deaths.GONE):
            listen(Event("reaped", values={"number": number}))
    listen = _tell_study(listen, name, opened, spec, n_workers, is_new=is_new)
    _tell_left_out(left_out, listen)
    ended = Supervisor(
        spec,
        name,
        place,
        opened,
        confirming,
        n_workers,
        worker_bytes,
        listen,
        left_out=left_out,
    ).run()
    return ended, study.load_study(storage, name)


def _resolve_models(spec: SweepSpec, preparing: Callable[[str], None]) -> dict[str, Path]:
    return {model: models.resolve_model(model, preparing) for model in spec.models}


def _tell_left_out(left_out: LeftOut, listen: Listener) -> None:
    for model, (reason, _) in left_out.items():
        listen(Event("left_out", values={"model": model, "reason": reason}))


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
    if (best := trials.best_trial(opened)) is not None:
        values |= {"best_trial": best.number, "best_score": best.value}
    listen(Event("study", values=values))
    return listen


def _share_memory(
    spec: SweepSpec, paths: Mapping[str, Path], place: study.Place, preparing: Progress
) -> tuple[int, float | None, LeftOut]:
    """How many workers there are, and what each may take; None where nothing can be predicted.
    And the models that do not fit, where others do.
    """
    machine = memory.this_machine()
    budget = memory.find_budget(spec.memory.budget, spec.memory.reserve, machine=machine)
    of_each = {model: spec.of_model(model) for model in paths}
    works = {model: sweepplan.workload(its) for model, its in of_each.items()}
    known: dict[str, MemoryModel | None] = {}
    left_out: LeftOut = {}
    for model, its in of_each.items():
        with _leaving_out(spec, model, left_out):
            known[model] = _measured(its, paths[model], works[model], budget, preparing)
    certain = {model: each for model, each in known.items() if each is not None}
    if len(certain) < len(known):
        preparing(
            "the memory of this architecture is not known: trials are executed as the sweep says"
        )
        return 1 if spec.workers == "auto" else min(spec.workers, spec.trials), None, left_out
    shares = [
        sweepplan.share(of_each[model], found, works[model], budget)[0]
        for model, found in certain.items()
    ]
    n_workers = min(shares, default=1)
    each = sweepplan.worker_bytes(budget, n_workers)
    for model, found in certain.items():
        keeping.check_space(of_each[model], found, place, n_workers)
        with _leaving_out(spec, model, left_out):
            arrays = arrays_budget(each, found.coefficients)
            sweepplan.check_fits(of_each[model], found, works[model], arrays)
    if len(left_out) == len(paths):
        reasons = "\n".join(f"  {model}: {reason}" for model, (reason, _) in left_out.items())
        raise MemoryBudgetError(f"No model of this sweep fits into memory:\n{reasons}")
    preparing(f"memory: {budget.how}; {each / 1e9:.1f} GB for each of {n_workers} workers")
    return n_workers, each, left_out


@contextmanager
def _leaving_out(spec: SweepSpec, model: str, left_out: LeftOut) -> Iterator[None]:
    """Note that one of several models does not fit; of the only one let it be known."""
    try:
        yield
    except MemoryBudgetError as fault:
        if not spec.searches_models:
            raise
        left_out[model] = str(fault), fault.short_bytes / 1e9


def _measured(
    spec: SweepSpec, model_path: Path, work: Workload, budget: memory.Budget, preparing: Progress
) -> MemoryModel | None:
    """What is known of a model's memory here, measured now where it never was; None where nothing
    can be predicted.
    """
    known = calibration.memory_model(model_path)
    if known is not None:
        exact = replace(known, coefficients=replace(known.coefficients, error=0.0))
        whole = arrays_budget(sweepplan.worker_bytes(budget, 1), known.coefficients)
        sweepplan.check_fits(spec, exact, work, whole)
    return calibration.ensure_calibrated(model_path, known, budget.total_bytes, preparing)
