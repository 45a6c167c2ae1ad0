"""The status of a study: its trials, verdict, running processes, and remaining work."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import TrialState

from hawsweep.errors import HawsweepError, StudyError
from hawsweep.layout import SPEC_FILE
from hawsweep.machine.processes import is_dead_here, supervisor_of
from hawsweep.results.groups import GroupRow, groups
from hawsweep.results.importance import Insight, find_insight
from hawsweep.results.leaderboard import TrialRow, leaderboard, loss_curve
from hawsweep.results.price import PriceRow, prices
from hawsweep.results.review import Review, review_of
from hawsweep.results.verdict import Verdict, judge_study
from hawsweep.results.what_is_left import Remaining, find_remaining, seconds_left
from hawsweep.running.background import OUTPUT_FILE
from hawsweep.running.progress import SweepState, WorkerState, read_progress
from hawsweep.spec.read import find_sweep, read_sweep
from hawsweep.spec.sweep import HOW_IT_RUNS, SweepSpec
from hawsweep.study.attributes import (
    BASE,
    CONFIRMED,
    DESCRIPTION,
    HOW,
    RETENTION,
    SELF_CHECK,
    STARTS,
    WORKER,
)
from hawsweep.study.backup import check_study_not_lost
from hawsweep.study.confirm import Confirmation, confirmations
from hawsweep.study.place import Place
from hawsweep.study.storage import open_storage, study_names
from hawsweep.study.study import known_spec, load_study, newest, read_trials
from hawsweep.study.trials import read_test, train_of
from hawsweep.text import time_text


@dataclass(frozen=True)
class Status:
    """The status of a study.

    Attributes:
        rows: The leaderboard.
        verdict: None before the first complete trial.
        insight: Which settings mattered; ``groups``: base and winner by group; ``price``: what
            the trials cost. None if not asked for.
        running: The state of the running sweep; None if no process runs it.
        supervisor: The process that runs it on this machine, by its lock file; None without one.
        seconds_left: About the time that is left; None if it is not known.
        command: The command that goes on with it, or comes next.
        watch: The command that watches it.
    """

    study: str
    description: str
    test: Mapping[str, Any] | None
    self_check: Mapping[str, Any] | None
    rows: tuple[TrialRow, ...]
    verdict: Verdict | None
    confirmed: tuple[Confirmation, ...]
    review: Review | None
    insight: Insight | None
    groups: tuple[GroupRow, ...] | None
    price: tuple[PriceRow, ...] | None
    standing: Remaining
    command: str
    watch: str
    running: SweepState | None = None
    supervisor: Mapping[str, Any] | None = None
    seconds_left: float | None = None

    def to_plain(self) -> dict[str, Any]:
        """For JSON."""
        standing = self.standing
        return {
            "study": self.study,
            "description": self.description,
            "test": self.test,
            "self_check": self.self_check,
            "verdict": None if self.verdict is None else asdict(self.verdict),
            "confirmed": [asdict(each) for each in self.confirmed],
            "review": None if self.review is None else self.review.to_plain(),
            **({} if self.insight is None else {"why": asdict(self.insight)}),
            **({} if self.groups is None else {"groups": [asdict(row) for row in self.groups]}),
            **({} if self.price is None else {"price": [vars(row) for row in self.price]}),
            "known": None if standing.belief is None else asdict(standing.belief),
            "trials": [vars(row) for row in self.rows],
            "left": {
                "trials": standing.trials_left,
                "paused": standing.n_paused,
                "runs_with_new_seeds": standing.again_left,
                "test": standing.test_left,
                "retention": standing.retention_left,
                "seconds": self.seconds_left,
                "is_running": self.running is not None,
                "command": self.command,
            },
        }


class StatusReader:
    """Reads the status of a study, once or repeatedly; later calls read only changes.

    Between two calls it holds no connection.

    Args:
        name: The study's; default: the newest study.
        fetch: Brings the files that other machines have.

    Raises:
        HawsweepError: The study, or its database, is missing or cannot be read.
    """

    def __init__(
        self,
        place: Place,
        name: str | None,
        *,
        why: bool = False,
        by_group: bool = False,
        price: bool = False,
        fetch: Callable[[optuna.Study, Place], None] | None = None,
    ) -> None:
        self._place, self._name = place, name
        self._why, self._by_group, self._price = why, by_group, price
        self._fetch = fetch
        self._database: BaseStorage | None = None
        self._study: optuna.Study | None = None
        self._seen: object = None
        self._judged: tuple[Any, Verdict | None] = (None, None)
        self._last: Status | None = None

    def look(self) -> Status:
        """The status now."""
        seen = self._files()
        try:
            if self._last is None or seen is None or seen != self._seen:
                self._last, self._seen = self._look(), seen
            return self._with_running(self._last)
        except BaseException as fault:
            self._database = self._study = self._last = None  # the file may be replaced
            log = self._place.study_dir(self._name) / OUTPUT_FILE if self._name else None
            if isinstance(fault, StudyError) and log is not None and log.is_file():
                text = f"{fault} What its start in the background said is in {log}."
                raise StudyError(text) from fault
            raise
        finally:
            if isinstance(self._database, RDBStorage):
                self._database.remove_session()
                self._database.engine.dispose()

    def _files(self) -> object:
        """Values that change with the database; None if its changes cannot be seen."""
        path = self._place.database_path
        if path is None:
            return None
        found = []
        for each in (path, path.with_name(f"{path.name}-wal")):
            try:
                known = each.stat()
                found.append((known.st_ino, known.st_size, known.st_mtime_ns))
            except OSError:
                found.append((0, 0, 0))
        return tuple(found)

    def _look(self) -> Status:
        if self._database is None or self._study is None:
            self._database = open_storage(self._place)
            name = self._name or newest(self._database, self._place)
            check_study_not_lost(name, self._place, study_names(self._database))
            self._study = read_trials(load_study(self._database, name))
            if self._fetch is not None:
                self._fetch(self._study, self._place)
        study = self._study
        attributes = study.user_attrs
        rows = leaderboard(study)
        spec, verdict = known_spec(study), self._verdict(study)
        standing = find_remaining(study, spec, rows)
        return Status(
            study=study.study_name,
            description=attributes.get(DESCRIPTION) or "",
            test=read_test(study),
            self_check=attributes.get(SELF_CHECK),
            rows=tuple(rows),
            verdict=verdict,
            confirmed=tuple(confirmations(study)),
            review=review_of(study, self._place),
            insight=find_insight(study) if self._why else None,
            groups=tuple(groups(study, self._place)) if self._by_group else None,
            price=tuple(prices(rows)) if self._price else None,
            standing=standing,
            command="" if spec is None else _command(study, spec, self._place, standing, verdict),
            watch=self._place.command("status", study.study_name, "--watch"),
        )

    def _verdict(self, study: optuna.Study) -> Verdict | None:
        """The verdict, computed anew only after changes, because resampling takes a while."""
        attributes = study.user_attrs
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        known = map(attributes.get, (BASE, CONFIRMED, RETENTION, HOW))
        key = (len(complete), read_test(study), *known)
        if self._judged[0] != key:
            self._judged = (key, judge_study(study, self._place))
        return self._judged[1]

    def _with_running(self, known: Status) -> Status:
        assert self._study is not None
        folder = self._place.study_dir(known.study)
        here = read_progress(folder)
        elsewhere = _in_the_database(self._study, known.standing, is_run_here=here is not None)
        state = elsewhere
        if here is not None:
            told = {each.trial for each in here.workers}
            others = elsewhere.workers if elsewhere is not None else ()
            workers = (*here.workers, *(each for each in others if each.trial not in told))
            standing = here.standing or known.standing
            state = replace(here, workers=workers, standing=standing, n_workers=len(workers))
        now = state.updated if state is not None else 0.0
        left = _seconds_left(self._study, known.standing) if state is None else state.ends_in(now)
        holder = supervisor_of(folder) if folder.is_dir() else None
        return replace(known, running=state, supervisor=holder, seconds_left=left)


def _seconds_left(study: optuna.Study, standing: Remaining) -> float | None:
    spec = known_spec(study)
    n_workers = 1 if spec is None or spec.workers == "auto" else spec.workers
    return seconds_left(standing, [], n_workers)


def _in_the_database(
    study: optuna.Study, standing: Remaining, *, is_run_here: bool
) -> SweepState | None:
    """Running trials by the database; only other machines' if this machine's states are known."""
    workers: list[WorkerState] = []
    spec = known_spec(study)
    here = os.uname().nodename
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        owner = trial.user_attrs.get(WORKER) or {}
        host = owner.get("host", "")
        if is_dead_here(owner) or (is_run_here and host in (here, "")):
            continue
        host = "" if host == here else host
        start = trial.datetime_start if not host else None  # by the clock of that machine
        curve = loss_curve(trial)
        iters = train_of(spec, trial).iters if spec is not None else trial.params.get("iters", 0)
        workers.append(
            WorkerState(
                number=sum(each.host == host for each in workers),
                doing="trial",
                trial=str(trial.number),
                settings=trial.params,
                since=start.timestamp() if start else 0.0,
                iteration=max((step for step, _ in curve), default=0),
                iters=int(iters),
                curve=curve,
                host=host,
            )
        )
    if not workers:
        return None
    starts = study.user_attrs.get(STARTS) or [{}]
    started = float(starts[-1].get("time", 0.0))
    return SweepState(
        name=study.study_name,
        started=started,
        updated=started,
        n_trials=standing.n_trials,
        n_workers=len(workers),
        workers=tuple(workers),
        standing=standing,
        best_score=max(
            (row.score for row in standing.rows if row.state == "complete" and row.score),
            default=None,
        ),
    )


def _command(
    study: optuna.Study,
    spec: SweepSpec,
    place: Place,
    standing: Remaining,
    verdict: Verdict | None,
) -> str:
    """The command that goes on with a study, or that follows it."""
    name = study.study_name
    if standing.is_done:
        follows = ["export", name, "--fuse"] if verdict and verdict.ships else ["compare", name]
        return place.command(*follows) if verdict else ""
    return start_command(name, spec, place)


def start_command(name: str, spec: SweepSpec, place: Place) -> str:
    """The command that goes on with a study."""
    return place.command("start", *_sweep_of(name, spec, place))


def _sweep_of(name: str, spec: SweepSpec, place: Place) -> list[str]:
    """The sweep of the study's name, if the study was made with it, else its stored spec file; and
    what was asked otherwise than it says.
    """
    kept: Path = place.study_dir(name) / SPEC_FILE
    stored = [str(kept), f"--study={name}"]
    for words in ([name], stored):
        try:
            found = read_sweep(find_sweep(words[0]))
        except HawsweepError:
            continue
        if found.fingerprint() == spec.fingerprint():
            return [*words, *_asked_otherwise(found, spec)]
    return stored if kept.exists() else [name]  # it is on the machine that made the study


def _asked_otherwise(found: SweepSpec, spec: SweepSpec) -> Iterator[str]:
    """The options of a start that asks as ``spec`` does."""
    kept, asked = (
        each.model_dump(mode="json", exclude_none=True, include=set(HOW_IT_RUNS))
        for each in (found, spec)
    )
    for key in HOW_IT_RUNS:
        value = asked.get(key)
        if value == kept.get(key):
            continue
        if key == "timeout" and value is not None:
            yield f"--timeout={f'{value:g}s' if value % 60 else time_text(value)}"
        elif key in ("trials", "workers"):
            yield f"--{key}={value}"
        else:
            yield f"--set={key}={json.dumps(value)}"
