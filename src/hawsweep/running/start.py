"""Starting a sweep, and joining a running one."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.storages import BaseStorage

from hawsweep.data.load import BUNDLED as BUNDLED_DATA
from hawsweep.data.load import Splits, load_data
from hawsweep.data.prompt_file import read_retention
from hawsweep.errors import DataError, ModelError, StudyError
from hawsweep.machine import backend, mac
from hawsweep.machine.processes import supervising
from hawsweep.models import resolve
from hawsweep.models.config_file import read_config
from hawsweep.planning.check_settings import check_trackers, missing_trackers
from hawsweep.planning.disk_space import check_space
from hawsweep.planning.share_memory import WorkerShares, share_memory
from hawsweep.results.study_results import StudyResults
from hawsweep.results.what_is_left import find_remaining
from hawsweep.running.arrivals import arriving
from hawsweep.running.events import Ended, Event, Listener
from hawsweep.running.hosts import Host, check_tools, with_hosts
from hawsweep.running.keep_awake import keep_awake
from hawsweep.running.notify import find_targets, telling
from hawsweep.running.progress import joined_file, recording, telling_remaining
from hawsweep.running.report_to import reporting
from hawsweep.running.stop import study_and_database
from hawsweep.running.supervisor import Supervisor
from hawsweep.running.write_notes import writing_notes
from hawsweep.search.distributions import first_of_models
from hawsweep.search.rungs import told_without_rungs
from hawsweep.spec.scoring import BUNDLED_RETENTION
from hawsweep.spec.sweep import HOW_IT_RUNS, SweepSpec
from hawsweep.study import provenance
from hawsweep.study.artifact_stores import (
    BESIDE,
    artifacts_url,
    check_store,
    record_artifacts,
)
from hawsweep.study.attributes import ARTIFACTS, HOW, PATHS, REFERENCES, STOP, SUGGESTED_BY
from hawsweep.study.backup import check_database_not_lost, check_trials_not_lost
from hawsweep.study.confirm import open_confirmation
from hawsweep.study.faults import DISPLAY_HELP, GONE
from hawsweep.study.leases import Lead, leader_of, leading
from hawsweep.study.located import found_here, located, paths_of
from hawsweep.study.place import Place, check_case, check_name, find_place, synced_by
from hawsweep.study.presence import Presence, watching
from hawsweep.study.queue import reap_running
from hawsweep.study.storage import open_storage, storage_faults_told, study_names
from hawsweep.study.study import (
    check_same_here,
    create_study,
    extended,
    load_study,
    spec_of_start,
    spec_to_run,
)
from hawsweep.study.trials import best_trial, count_finished
from hawsweep.text import SayProgress


@dataclass(frozen=True, eq=False)
class Outcome(StudyResults):
    """How a start ended, and the study's results.

    Attributes:
        ended: ``finished``; ``timeout``, if ``spec.timeout`` left trials undone; or
            ``interrupted``, by Ctrl-C or ``hawsweep stop``. After the last two the same start
            goes on.
        presence: Looks whether the study is still there.
    """

    ended: Ended
    presence: Presence = field(repr=False)

    def __str__(self) -> str:
        return f"{self.ended}; {super().__str__()}"


def run_sweep(
    spec: SweepSpec,
    name: str,
    *,
    studies_dir: str | Path | None = None,
    storage: str | None = None,
    on_event: Listener | None = None,
    notify: str | Sequence[str] | None = None,
    accept_versions: bool = False,
    hosts: Sequence[Host] = (),
) -> Outcome:
    """Start a study, or go on with it, until ``spec.trials`` trials are complete or pruned.

    Trials run in worker processes. In the main thread, Ctrl-C lets them save their state, and
    ``interrupted`` is returned.

    Args:
        name: The study's name, also of its folder.
        studies_dir: The folder of studies; see ``place.find_place``.
        storage: An Optuna RDB URL instead of the database there.
        on_event: Called with every event, and with kind ``tick`` several times a second. An
            exception from it ends the sweep; the same start then goes on.
        notify: Where notifications go; see ``notify.find_targets``.
        accept_versions: See ``study.create_study``.
        hosts: Other machines that run trials, too.

    Raises:
        StudyBusyError: Another process on this machine runs the study.
        HawsweepError: Another fault that would stop every trial. Finished trials are kept.
    """
    name = check_name(name)
    place, targets = find_place(studies_dir, storage), find_targets(notify)
    listen = on_event or (lambda _: None)
    check_trackers(spec)
    if hosts:
        check_tools()
    with ExitStack() as held:
        held.enter_context(_optuna_quiet())
        held.enter_context(storage_faults_told(place))
        paths = _paths(spec, name, place)
        # Quick checks come before a model is converted and measured.
        splits = load_data(located(spec, paths, place).data, _preparing(listen))
        if (kept := located(spec, paths, place).retention) is not None:
            read_retention(kept)
        for path, columns in splits.columns.items():
            _preparing(listen)(f"columns of {path}: {columns}")
        held.enter_context(
            supervising(
                place.study_dir(name),
                {"trials": spec.trials, "of": study_and_database(name, place)},
                place.options,
            )
        )
        listen = held.enter_context(recording(listen, place.study_dir(name)))
        news = held.enter_context(telling(name, spec, targets, listen))
        if spec.machine.keep_awake:
            held.enter_context(keep_awake(_preparing(listen)))
        outcome = _run_sweep(spec, name, place, news, splits, paths, accept_versions, hosts)
        news.tell_end(outcome.ended, outcome)
        return outcome


def join_sweep(
    name: str,
    place: Place,
    listen: Listener,
    workers: int | Literal["auto"] = "auto",
    *,
    model: Path | None = None,
    data: Path | None = None,
    tied: bool = False,
) -> Outcome:
    """Run trials of a study here, beside the process that started it.

    The process that started it runs base, confirming runs and test.

    Args:
        model: Where the model is on this machine, if not where the sweep says.
        data: As ``model``, of the data.
        tied: By ``hosts``: the process that started it gets the events, and logs to trackers.

    Raises:
        StudyError: There is no such study.
        SpecChangedError: Model, data, metric or versions of libraries are others here.
    """
    storage = open_storage(place, only_look=False, patient=True)
    study = load_study(storage, name)
    spec = spec_of_start(study).model_copy(update={"workers": workers})
    if tied:
        spec = spec.model_copy(update={"report_to": ()})
    missing = missing_trackers(spec)
    installed = tuple(each for each in spec.report_to if each not in missing)
    spec = spec.model_copy(update={"report_to": installed})
    with ExitStack() as held:
        held.enter_context(_optuna_quiet())
        held.enter_context(storage_faults_told(place))
        listen = held.enter_context(recording(listen, place.study_dir(name), joined_file()))
        for tracker in missing:
            text = f"{tracker} is not installed here: it has no runs of the trials that run here"
            listen(Event("not_told", values={"text": text}))
        if spec.machine.keep_awake:
            held.enter_context(keep_awake(_preparing(listen)))
        if (url := artifacts_url(study)) is not None:
            check_store(url, place.study_dir(name))
        here = found_here(spec, model, data)
        paths = {**study.user_attrs.get(PATHS, {}), **here}
        try:
            prints = _fingerprints(spec, place, paths, _preparing(listen))
        except (ModelError, DataError) as fault:
            where = "If it is elsewhere on this machine, --model PATH and --data PATH say where."
            raise type(fault)(f"{fault} {where}") from fault
        check_same_here(study, prints)
        if not tied and leader_of(study) is None:
            study.set_user_attr(STOP, None)
        _, shares = _resolve(spec, place, paths, _preparing(listen))
        place.study_dir(name).mkdir(parents=True, exist_ok=True)
        presence = held.enter_context(watching(place, name))
        confirming = open_confirmation(storage, study, spec)
        ended = _supervise(
            spec,
            place,
            study,
            confirming,
            shares,
            listen,
            presence,
            here,
            is_new=False,
            joins=True,
            tied=tied,
        )
        return Outcome(load_study(storage, name), place, ended, presence)


def _preparing(listen: Listener) -> SayProgress:
    return lambda text: listen(Event("preparing", values={"text": text}))


@contextmanager
def _optuna_quiet() -> Iterator[None]:
    """Silence Optuna's log of each trial, because events report them."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _run_sweep(
    spec: SweepSpec,
    name: str,
    place: Place,
    listen: Listener,
    splits: Splits,
    paths: Mapping[str, str],
    accept_versions: bool,
    hosts: Sequence[Host],
) -> Outcome:
    check_database_not_lost(place)
    if spec.artifacts is not None:
        check_store(spec.artifacts, place.study_dir(name))
    elif place.database_path is None:
        text = "artifacts is not set: adapters stay on the machines that make them"
        listen(Event("not_told", values={"text": text}))
    storage = open_storage(place, create=True, patient=True)
    spec, changed = spec_to_run(storage, name, spec)
    for text in filter(None, (changed, told_without_rungs(spec))):
        _preparing(listen)(text)
    with watching(place, name) as presence:
        models, shares = _resolve(spec, place, paths, _preparing(listen))
        if name not in (others := study_names(storage)):
            check_case(name, others)
            check_trials_not_lost(name, place)
        first, *others = models
        prints = provenance.fingerprints(
            spec, models[first], splits.fingerprint(), {each: models[each] for each in others}
        )
        study, is_new = create_study(
            storage, place, name, spec, prints, accept_versions=accept_versions
        )
        hidden = place.storage_url and not place.storage_options
        join = place.command("worker", name) + (" --storage ..." if hidden else "")
        with leading(load_study(storage, name), join, _preparing(listen)) as lead:
            if is_new:
                configs = {model: read_config(path) for model, path in models.items()}
                _enqueue_first(study, spec, configs, len(splits.train))
            confirming = _record_start(study, storage, spec, paths, listen)
            ended = _supervise(
                spec,
                place,
                study,
                confirming,
                shares,
                listen,
                presence,
                {},
                is_new=is_new,
                joins=False,
                hosts=hosts,
                lead=lead,
            )
        return Outcome(load_study(storage, name), place, ended, presence)


def _enqueue_first(
    study: optuna.Study, spec: SweepSpec, configs: Mapping[str, Mapping[str, Any]], n_train: int
) -> None:
    begins = first_of_models(spec, configs, n_train)
    if spec.enqueue is None:
        begins = begins[: spec.trials]  # more would wait for ever
    # Those that differ in an ``iters`` that is no longer searched are one.
    for settings in (each for n, each in enumerate(begins) if each not in begins[:n]):
        study.enqueue_trial(settings, user_attrs={SUGGESTED_BY: "published sweeps"})


def _record_start(
    study: optuna.Study,
    storage: BaseStorage,
    spec: SweepSpec,
    paths: Mapping[str, str],
    listen: Listener,
) -> optuna.Study:
    """Record what may change at each start, and take up what the last one left; give the confirming
    study.
    """
    study.set_user_attr(PATHS, paths)
    study.set_user_attr(REFERENCES, spec.scoring.references or {})
    study.set_user_attr(HOW, spec.model_dump(mode="json", include=set(HOW_IT_RUNS)))
    study.set_user_attr(STOP, None)
    confirming = open_confirmation(storage, study, spec)
    record_artifacts((study, confirming), spec.artifacts)
    for each in (study, confirming):
        for number, end in reap_running(each, GONE).items():
            listen(Event("reaped", values={"number": number, "reason": end.reason}))
    return confirming


def _paths(spec: SweepSpec, name: str, place: Place) -> dict[str, str]:
    """The relative paths of model and data, as the study keeps them or is to keep them."""
    try:
        known = load_study(open_storage(place), name).user_attrs.get(PATHS, {})
    except StudyError:  # it is new; a database that cannot be opened is told below
        known = {}
    models = set(spec.models) - resolve.BUNDLED.keys()
    data = {each.path for each in spec.data}.difference(BUNDLED_DATA)
    asked = set() if spec.retention is None else {spec.retention.data} - {BUNDLED_RETENTION}
    return paths_of(models | data | asked, known, place)


def _fingerprints(
    spec: SweepSpec, place: Place, paths: Mapping[str, str], preparing: SayProgress
) -> dict[str, str]:
    """The fingerprints of a sweep's data, models and metric, as they are here."""
    models = {
        model: resolve.resolve_model(located(spec.of_model(model), paths, place).model, preparing)
        for model in spec.models
    }
    splits = load_data(located(spec, paths, place).data, preparing)
    first, *others = models
    return provenance.fingerprints(
        spec, models[first], splits.fingerprint(), {each: models[each] for each in others}
    )


def _resolve(
    spec: SweepSpec, place: Place, paths: Mapping[str, str], preparing: SayProgress
) -> tuple[dict[str, Path], WorkerShares]:
    """Fetch what the sweep needs: the models' folders, and what each worker may take.

    Raises:
        HawsweepError: Something cannot be fetched, or memory or a disk have no room for it.
    """
    backend.check_folders()
    if (cloud := synced_by(place.studies_dir)) is not None:
        preparing(
            f"{place.studies_dir} is synced by {cloud}, which may take files away while they are "
            "used: choose another --studies-dir"
        )
    if backend.device_here() == "metal" and (is_on := mac.is_display_on()) is not False:
        preparing(f"the display {'is' if is_on else 'may be'} on. {DISPLAY_HELP}")
    resolve.resolve_embedder(spec.scoring.embedder, preparing)
    folders = {}
    for model in spec.models:
        found = located(spec.of_model(model), paths, place).model
        folders[model] = resolve.resolve_model(found, preparing)
    data = located(spec, paths, place).data
    shares = share_memory(spec.model_copy(update={"data": data}), folders, preparing)
    for model, known in shares.known.items():
        check_space(spec.of_model(model), known, place, shares.n_workers)
    return folders, shares


def _supervise(
    spec: SweepSpec,
    place: Place,
    study: optuna.Study,
    confirming: optuna.Study,
    shares: WorkerShares,
    listen: Listener,
    presence: Presence,
    here: Mapping[str, str],
    *,
    is_new: bool,
    joins: bool,
    tied: bool = False,
    hosts: Sequence[Host] = (),
    lead: Lead | None = None,
) -> Ended:
    """Run the study; its notes, its progress and its trackers follow from the events."""
    name, from_now = study.study_name, extended(study, spec)
    presence.add_studies(study, confirming)
    listen = telling_remaining(
        listen, lambda: find_remaining(study, extended(study, spec)).to_plain()
    )
    listen = writing_notes(listen, study, confirming, place, joins=joins)
    values = {
        "name": name,
        "is_new": is_new,
        "finished": count_finished(study),
        "n_trials": from_now.trials,
        "n_workers": shares.n_workers,
        "timeout_s": from_now.timeout,
    }
    if (best := best_trial(study)) is not None:
        values |= {"best_trial": best.number, "best_score": best.value}
    listen(Event("study", values=values))
    for model, each in shares.left_out.items():
        listen(Event("left_out", values={"model": model, "reason": each.reason}))
    if hosts and artifacts_url(study) is None:
        for its_study in (study, confirming):
            its_study.set_user_attr(ARTIFACTS, BESIDE)
    with (
        reporting(from_now, study, place, listen, joins=joins) as listen,
        arriving(spec, study, confirming, place, listen, joins=joins) as listen,
        with_hosts(hosts, study, place, listen) as heard,
    ):
        supervisor = Supervisor(
            spec,
            name,
            place,
            study,
            confirming,
            shares,
            heard,
            presence,
            here,
            joins=joins,
            tied=tied,
            lead=lead,
        )
        heard.n_interrupts = lambda: supervisor.interrupts.n_asked
        return supervisor.run()
