"""The study: its storage, opening and continuing it, and what it knows about its trials."""

import importlib.metadata
import json
import os
import shutil
import sqlite3
import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy.exc
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, MedianPruner, NopPruner, PercentilePruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError

from hawsweep.errors import SpecChangedError, StudyError
from hawsweep.spec import SweepSpec

DEFAULT_STUDIES_DIR = Path("studies")
_BUSY_TIMEOUT_S = 60
CONFIRM_SUFFIX = ".confirm"
# Names of what answered the validation prompts, in a study's folder ``base`` or a trial's; those of
# the test split have ``test_`` before them.
SAMPLE_FILES = {
    "base": "samples.jsonl",
    "few_shot": "few_shot_samples.jsonl",
    "trial": "samples.jsonl",
}
# The study's attribute by which predicted activations are multiplied, after trials that ran out.
MEMORY_FACTOR = "memory_factor"
_TIGHTENED = 1.15
# What a person can mend or must know of, among what a database raises.
_STORAGE_FAULTS = (
    sqlalchemy.exc.SQLAlchemyError,
    optuna.exceptions.StorageInternalError,
    sqlite3.Error,
)
_PACKAGES = ("hawsweep", "mlx", "mlx-lm", "optuna", "sentence-transformers", "transformers")


@dataclass(frozen=True)
class Place:
    """Where studies are kept.

    Attributes:
        studies_dir: Holds the database, unless ``storage_url`` names another, and a folder per
            study.
        storage_url: An Optuna RDB URL; it may hold a password and is shown to nobody.
    """

    studies_dir: Path = DEFAULT_STUDIES_DIR
    storage_url: str | None = None

    @property
    def database_path(self) -> Path | None:
        """The SQLite file, or None where the storage is another database."""
        if self.storage_url is None:
            return self.studies_dir / "hawsweep.db"
        scheme, _, path = self.storage_url.partition(":///")
        is_file = scheme == "sqlite" and path and "?" not in path and path != ":memory:"
        return Path(path) if is_file else None

    @property
    def url(self) -> str:
        """The URL Optuna opens."""
        return self.storage_url or f"sqlite:///{self.studies_dir / 'hawsweep.db'}"

    def study_dir(self, name: str) -> Path:
        """The folder of a study."""
        return self.studies_dir / name

    def trial_dir(self, name: str, number: int) -> Path:
        """The folder of a trial."""
        return self.study_dir(name) / "trials" / f"{number:04d}"

    def confirm_dir(self, name: str, number: int) -> Path:
        """The folder of a trial that trains the settings of another one again."""
        return self.study_dir(name) / "confirm" / f"{number:04d}"


def open_storage(place: Place, *, create: bool = False) -> RDBStorage:
    """Open the database; SQLite in WAL mode with a busy timeout.

    Args:
        create: Make it where it is missing.

    Raises:
        StudyError: It is missing, corrupt, read-only, or cannot be reached. Nothing is written
            over.
    """
    path = place.database_path
    if path is not None:
        _check_sqlite(path, create)
    options = {"connect_args": {"timeout": _BUSY_TIMEOUT_S}} if path is not None else {}
    try:
        return RDBStorage(place.url, engine_kwargs=options)
    except (*_STORAGE_FAULTS, RuntimeError, ImportError) as fault:
        if path is not None:
            raise StudyError(f"{path} cannot be opened: {_first_line(fault)}") from fault
        raise StudyError(
            f"the database given as storage cannot be opened: {_first_line(fault)}. Check that "
            "--storage is an Optuna RDB URL, that the database answers, and that its driver is "
            "installed."
        ) from fault


def study_names(storage: RDBStorage) -> list[str]:
    """The names of all studies, sorted, without those that confirm another."""
    return sorted(name for name in _all_names(storage) if not name.endswith(CONFIRM_SUFFIX))


def confirm_name(name: str) -> str:
    """The name of the study that confirms another."""
    return name + CONFIRM_SUFFIX


def _all_names(storage: RDBStorage) -> list[str]:
    return list(optuna.get_all_study_names(storage))


def create_study(
    storage: RDBStorage, place: Place, name: str, spec: SweepSpec, data: Mapping[str, str]
) -> tuple[optuna.Study, bool]:
    """Create a study, or open it to go on.

    Args:
        data: Fingerprints of the splits.

    Returns:
        The study, and whether it is new.

    Raises:
        SpecChangedError: It was made with another spec or other data.
        StudyError: The study's folder cannot be written.
    """
    folder = place.study_dir(name)
    asked = {**spec.fingerprint(), "fingerprints": dict(data)}
    if name in study_names(storage):
        study = load_study(storage, name, spec)
        changes = _changes(_spec_with_defaults(study), asked)
        if not changes:
            return study, False
        if not _is_untouched(study):
            raise SpecChangedError(
                f"Study {name!r} was made with another spec: {changes}. "
                "Start it under another name with --study, or restore the value."
            )
        # A start that failed before its first measurement leaves nothing to be true to.
        optuna.delete_study(study_name=name, storage=storage)
    try:
        for made_again in ("base", "data", "confirm"):  # of an earlier study of that name
            shutil.rmtree(folder / made_again, ignore_errors=True)
        (folder / "trials").mkdir(parents=True, exist_ok=True)
        header = json.dumps({"versions": versions(), "data": dict(data)})
        (folder / "spec.yaml").write_text(f"# {header}\n{spec.dump_yaml()}", encoding="utf-8")
    except OSError as fault:
        raise StudyError(
            f"{folder} cannot be written: {fault.strerror}. Choose another --studies-dir."
        ) from fault
    if confirm_name(name) in _all_names(storage):
        optuna.delete_study(study_name=confirm_name(name), storage=storage)
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        direction="maximize",
        sampler=make_sampler(spec, 0),
        pruner=make_pruner(spec),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([spec.scoring.metric.replace("_", " ")])
    for key, value in {
        "spec": asked,
        "versions": versions(),
        "description": spec.description,
    }.items():
        study.set_user_attr(key, value)
    return study, True


def load_study(storage: RDBStorage, name: str, spec: SweepSpec | None = None) -> optuna.Study:
    """Open a study; with ``spec``, to go on with its sampler and pruner.

    Raises:
        StudyError: There is none of this name; the message lists those there are.
    """
    try:
        if spec is None:
            return optuna.load_study(storage=storage, study_name=name)
        n_trials = storage.get_n_trials(storage.get_study_id_from_name(name))
        return optuna.load_study(
            storage=storage,
            study_name=name,
            sampler=make_sampler(spec, n_trials),
            pruner=make_pruner(spec),
        )
    except KeyError as fault:
        known = ", ".join(study_names(storage)) or "none"
        raise StudyError(
            f"There is no study {name!r}. Studies here: {known}. `hawsweep list` shows them."
        ) from fault


def make_sampler(spec: SweepSpec, n_trials: int) -> BaseSampler:
    """The sampler for the next proposal.

    Its seed depends on the spec's and on how many trials there are, so that a proposal does not
    depend on which process makes it, nor a restarted one repeat what the first proposed.
    """
    seed = (spec.seed * 1_000_003 + n_trials) % 2**32
    if spec.sampler.name == "random":
        return RandomSampler(seed=seed)
    return TPESampler(seed=seed, n_startup_trials=spec.sampler.n_startup_trials)


def make_pruner(spec: SweepSpec) -> BasePruner:
    """The pruner that ``pruning`` names."""
    asked = spec.pruning
    if asked.name == "none":
        return NopPruner()
    when = {
        "n_startup_trials": asked.n_startup_trials,
        "n_warmup_steps": asked.n_warmup_steps,
        "n_min_trials": asked.n_min_trials,
    }
    if asked.name == "median":
        return MedianPruner(**when)
    return PercentilePruner(asked.percentile, **when)


def count_finished(study: optuna.Study) -> int:
    """Trials that gave a result: complete, or pruned for another reason than memory."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    return sum(not trial.user_attrs.get("infeasible") for trial in trials)


def reap_running(
    study: optuna.Study,
    reason: str,
    worker: Mapping[str, Any] | None = None,
    *,
    repeat: bool = False,
) -> list[int]:
    """Mark trials left RUNNING as FAIL; those of one worker, or of any that is no longer alive on
    this machine.

    Args:
        repeat: Queue their settings again, see ``repeat_trial``.

    Returns:
        Their numbers.
    """
    reaped = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        owner = trial.user_attrs.get("worker")
        mine = owner == dict(worker) if worker is not None else _is_dead_here(owner)
        if mine:
            if repeat:
                repeat_trial(study, trial.number)
            study._storage.set_trial_user_attr(trial._trial_id, "reason", reason)
            study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
            reaped.append(trial.number)
    return reaped


def repeat_trial(study: optuna.Study, number: int) -> None:
    """Queue a trial's settings, once; the trial that gets them goes on where its state is."""
    trials = study.get_trials(deepcopy=False)
    if any(trial.user_attrs.get("repeats") == number for trial in trials):
        return  # a process was killed between queueing and saying that the trial ended
    attributes = {"repeats": number, **_carried(trials[number])}
    study.enqueue_trial(trials[number].params, user_attrs=attributes)


def _carried(trial: FrozenTrial) -> dict[str, Any]:
    """What makes a trial another one than its settings say, so that its repetition has it too."""
    return {key: trial.user_attrs[key] for key in ("confirms", "seed") if key in trial.user_attrs}


def ran_out_of_memory(study: optuna.Study, number: int) -> bool:
    """Note that a trial ran out of memory although its plan fitted: later plans leave more room,
    and its settings are queued once, for a plan that takes less.

    Returns:
        Whether it is tried again.
    """
    trial = study.get_trials(deepcopy=False)[number]
    plan = trial.user_attrs.get("plan")
    if plan is None or not plan["peak_bytes"]:
        return False
    factor = study.user_attrs.get(MEMORY_FACTOR, 1.0)
    study.set_user_attr(MEMORY_FACTOR, factor * _TIGHTENED)
    if "below_bytes" in trial.user_attrs:
        return False
    below = {"below_bytes": plan["peak_bytes"], "repeats": number, **_carried(trial)}
    study.enqueue_trial(trial.params, user_attrs=below)
    return True


def next_trial(study: optuna.Study, space: Mapping[str, BaseDistribution]) -> optuna.Trial:
    """The trial to run now: what was interrupted first, then what is queued, then a proposal."""
    for waiting in study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        if "repeats" not in waiting.user_attrs:
            continue
        # As Study.ask takes a waiting trial, where no other worker was faster.
        with suppress(optuna.exceptions.UpdateFinishedTrialError):
            if study._storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING):
                trial = optuna.Trial(study, waiting._trial_id)
                for name, distribution in space.items():
                    trial._suggest(name, distribution)
                return trial
    return study.ask(dict(space))


def this_worker() -> dict[str, Any]:
    """What a trial records of the process that runs it."""
    return {"host": os.uname().nodename, "pid": os.getpid()}


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


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """The complete trial with the highest value, the earlier of equals."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return max(complete, key=lambda t: (t.value, -t.number), default=None)


def spec_of(study: optuna.Study) -> SweepSpec:
    """The spec a study was made with; how many trials were asked for is not part of it."""
    content = {
        key: value for key, value in study.user_attrs["spec"].items() if key != "fingerprints"
    }
    return SweepSpec.model_validate(content)


def newest(storage: RDBStorage) -> str:
    """The name of the study started last.

    Raises:
        StudyError: There is none.
    """
    summaries = [
        each
        for each in optuna.get_all_study_summaries(storage, include_best_trial=False)
        if not each.study_name.endswith(CONFIRM_SUFFIX)
    ]
    if not summaries:
        raise StudyError("There are no studies yet. Start one: hawsweep start lr-rank")
    return str(max(summaries, key=lambda s: s._study_id).study_name)


def versions() -> dict[str, str]:
    """Versions of the packages that decide the numbers."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _check_sqlite(path: Path, create: bool) -> None:
    if not path.exists():
        if not create:
            raise StudyError(
                f"There are no studies in {path.parent}: {path} is missing. Start one: "
                "hawsweep start NAME."
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as fault:
            raise StudyError(
                f"{path.parent} cannot be made: {fault.strerror}. Choose another --studies-dir."
            ) from fault
    elif path.is_dir():
        raise StudyError(
            f"{path} is a folder, must be a database. Move it away or choose another --studies-dir."
        )
    if create and not os.access(path if path.exists() else path.parent, os.W_OK):
        raise StudyError(
            f"{path} cannot be written. Correct its permissions or choose another --studies-dir."
        )
    try:
        with closing(sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S)) as connection:
            names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
            # Another start may be making Optuna's tables: these two come first.
            if names and not names & {"studies", "version_info"}:
                raise StudyError(
                    f"{path} is a database of something else: it has no studies of Optuna. It was "
                    "left as it is: move it away, or choose another --studies-dir."
                )
            if create:
                connection.execute("PRAGMA journal_mode=WAL")
            if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("its pages are damaged")
    except sqlite3.Error as fault:
        raise StudyError(
            f"{path} is not a usable SQLite database: {fault}. It was left as it is: move it away, "
            "or restore it from a backup, or choose another --studies-dir."
        ) from fault


def _is_untouched(study: optuna.Study) -> bool:
    trials = study.get_trials(deepcopy=False)
    return "base" not in study.user_attrs and all(t.state == TrialState.WAITING for t in trials)


def _spec_with_defaults(study: optuna.Study) -> dict[str, Any]:
    """What a study was made with; keys that are newer than it have their defaults."""
    stored: dict[str, Any] = study.user_attrs.get("spec", {})
    try:
        return {**spec_of(study).fingerprint(), "fingerprints": stored.get("fingerprints")}
    except (KeyError, ValidationError):
        return stored


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs, each key with both values; empty where nothing does."""
    was, is_now = _flatten(before), _flatten(now)
    return "; ".join(
        f"{key} was {was.get(key, 'not set')}, is {is_now.get(key, 'not set')}"
        for key in sorted({**was, **is_now})
        if was.get(key) != is_now.get(key)
    )


def _flatten(content: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(content, Mapping):
        return {prefix: content}
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flatten(value, f"{prefix}.{key}" if prefix else key)
    return flat


def _is_dead_here(owner: Mapping[str, Any] | None) -> bool:
    import psutil

    if owner is None or owner.get("host") != os.uname().nodename:
        return False
    try:
        # Ended, but not yet waited for by whoever started it.
        return psutil.Process(owner["pid"]).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _first_line(fault: BaseException) -> str:
    lines: Sequence[str] = str(fault).strip().splitlines()
    return lines[0] if lines else type(fault).__name__
