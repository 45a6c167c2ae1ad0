"""The study: its storage, opening and continuing it, and what it knows about its trials."""

import gc
import json
import os
import shutil
import sqlite3
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy.exc
from optuna.pruners import BasePruner, MedianPruner, NopPruner, PercentilePruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError

from hawsweep.credentials import parse_storage_url, with_password, without_secrets
from hawsweep.deaths import is_disk_fault
from hawsweep.errors import SpecChangedError, StudyError
from hawsweep.files import replace_text
from hawsweep.optuna_door import study_id
from hawsweep.provenance import start_record, versions
from hawsweep.spec import SweepSpec, without_gone_keys

DEFAULT_STUDIES_DIR = Path("studies")
STUDIES_DIR_VARIABLE, STORAGE_VARIABLE = "HAWSWEEP_STUDIES_DIR", "HAWSWEEP_STORAGE"
_BUSY_TIMEOUT_S = 60
CONFIRM_SUFFIX = ".confirm"
# Names of what answered the validation prompts, in a study's folder ``base`` or a trial's; those of
# the test split have ``test_`` before them.
SAMPLE_FILES = {
    "base": "samples.jsonl",
    "few_shot": "few_shot_samples.jsonl",
    "trial": "samples.jsonl",
}
# The study's attribute with what was measured of several untuned models; see baselines.
BASES = "bases"
# The study's attribute by which another process asks the supervisor to stop: how urgently.
STOP = "stop"
_MOST_STARTS = 100
# What a person can mend or must know of, among what a database raises.
STORAGE_FAULTS = (
    sqlalchemy.exc.SQLAlchemyError,
    optuna.exceptions.StorageInternalError,
    sqlite3.Error,
)
_OPENING_FAULTS = (*STORAGE_FAULTS, RuntimeError, ImportError)


@dataclass(frozen=True)
class Place:
    """Where studies are kept.

    Attributes:
        studies_dir: Holds the database, unless ``storage_url`` names another, and a folder per
            study.
        storage_url: An Optuna RDB URL; it may hold a password and is shown to nobody.
    """

    studies_dir: Path = DEFAULT_STUDIES_DIR
    storage_url: str | None = field(default=None, repr=False)

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

    @property
    def options(self) -> list[str]:
        """What a command needs beside a study's name to find it here: mostly nothing."""
        is_known = self.studies_dir == DEFAULT_STUDIES_DIR or STUDIES_DIR_VARIABLE in os.environ
        return [] if is_known else [f"--studies-dir={self.studies_dir}"]

    def study_dir(self, name: str) -> Path:
        """The folder of a study, inside ``studies_dir``.

        Raises:
            StudyError: Its name could be that of a folder elsewhere; another program may have given
                it.
        """
        return self.studies_dir / _folder_name(name)

    def trial_dir(self, name: str, number: int) -> Path:
        """The folder of a trial."""
        return self.study_dir(name) / "trials" / f"{number:04d}"

    def confirm_dir(self, name: str, number: int) -> Path:
        """The folder of a trial that trains the settings of another one again."""
        return self.study_dir(name) / "confirm" / f"{number:04d}"


def find_place(studies_dir: str | Path | None = None, storage: str | None = None) -> Place:
    """Where studies are: as said, else as the environment says, else in ``studies`` here.

    Args:
        studies_dir: Else ``HAWSWEEP_STUDIES_DIR``.
        storage: Else ``HAWSWEEP_STORAGE``. A password that is missing in it is looked for; see
            ``credentials.with_password``.

    Raises:
        StudyError: The storage is no URL, or the keyring cannot be read.
    """
    folder = studies_dir or os.environ.get(STUDIES_DIR_VARIABLE) or DEFAULT_STUDIES_DIR
    url = storage or os.environ.get(STORAGE_VARIABLE)
    return Place(Path(folder).expanduser(), with_password(url) if url else None)


def check_name(name: str) -> None:
    """Refuse a name that a new study cannot have.

    Raises:
        StudyError: It has other characters than letters, digits, ``-``, ``_`` and ``.``, or is that
            of a study that confirms another.
    """
    if name.endswith(CONFIRM_SUFFIX):
        raise StudyError(
            f"A study cannot be named {name!r}: names that end in {CONFIRM_SUFFIX} are those of "
            "runs that confirm another. Choose another name."
        )
    _folder_name(name)


def _folder_name(name: str) -> str:
    """A study's name, where it can be that of its folder."""
    if not name or name[0] in ".-" or not all(c.isalnum() or c in "-_." for c in name):
        raise StudyError(
            f"A study cannot be named {name!r}, as its folder has its name. Use letters, digits, "
            "'-', '_' and '.', a letter or digit first."
        )
    return name


def printable(name: str) -> str:
    """A name for a terminal, which characters in another program's names could steer."""
    return name if name.isprintable() else repr(name)


def open_storage(place: Place, *, create: bool = False) -> RDBStorage:
    """Open the database; SQLite in WAL mode with a busy timeout.

    Args:
        create: Make it where it is missing.

    Raises:
        StudyError: It is missing, corrupt, read-only, or cannot be reached. Nothing is written
            over.
    """
    path = place.database_path
    if path is None:
        return _open_given(place.url)
    _check_sqlite(path, create)
    try:
        return RDBStorage(place.url, engine_kwargs={"connect_args": {"timeout": _BUSY_TIMEOUT_S}})
    except _OPENING_FAULTS as fault:
        raise StudyError(f"{path} cannot be opened: {_first_line(fault)}") from fault


def _open_given(url: str) -> RDBStorage:
    parse_storage_url(url)
    try:
        return RDBStorage(url)
    except _OPENING_FAULTS as fault:
        said = without_secrets(_first_line(fault), url)
    # Without its cause, whose text may hold the password.
    raise StudyError(
        f"the database given as storage cannot be opened: {said}. Check that --storage is an "
        "Optuna RDB URL, that the database answers, and that its driver is installed."
    )


@contextmanager
def storage_faults_told(place: Place) -> Iterator[None]:
    """Make a StudyError of what a database raises while it is used, or a disk that takes nothing
    any more.
    """
    try:
        yield
    except (*STORAGE_FAULTS, OSError) as fault:
        if is_disk_fault(fault):
            raise disk_fault(place) from None
        if isinstance(fault, OSError):
            raise
        path, said = place.database_path, _first_line(fault)
        where = "the database given as storage" if path is None else str(path)
        if place.storage_url is not None:
            said = without_secrets(said, place.storage_url)
        # Without its cause, whose text may hold a password.
        raise StudyError(
            f"{where} cannot be used: {said}. What finished is kept; the same command goes on."
        ) from None


def disk_fault(place: Place) -> StudyError:
    """The error of a disk that has no room left, or takes nothing any more."""
    return StudyError(
        f"The disk that holds {place.studies_dir} is full or cannot be written. What finished is "
        "kept. Make room, then go on with the same command."
    )


def study_names(storage: RDBStorage) -> list[str]:
    """The names of all studies, sorted, without those that confirm another."""
    return sorted(name for name in _all_names(storage) if not name.endswith(CONFIRM_SUFFIX))


def confirm_name(name: str) -> str:
    """The name of the study that confirms another."""
    return name + CONFIRM_SUFFIX


def _all_names(storage: RDBStorage) -> list[str]:
    return list(optuna.get_all_study_names(storage))


def create_study(
    storage: RDBStorage,
    place: Place,
    name: str,
    spec: SweepSpec,
    fingerprints: Mapping[str, str],
    *,
    accept_versions: bool = False,
) -> tuple[optuna.Study, bool]:
    """Create a study, or open it to go on; either way what started it is noted.

    Args:
        fingerprints: Of the splits, the model and the metric; see ``provenance.fingerprints``.
        accept_versions: Go on also where libraries are others than those it was made with.

    Returns:
        The study, and whether it is new.

    Raises:
        SpecChangedError: It was made with another spec, other data, another model or other
            versions.
        StudyError: The study's folder cannot be written.
    """
    folder = place.study_dir(name)
    asked = {**spec.fingerprint(), "fingerprints": dict(fingerprints)}
    if name in study_names(storage):
        study = load_study(storage, name, spec)
        changes = _changes(_spec_with_defaults(study, asked), asked)
        known = study.user_attrs.get("versions", {})
        others = "" if accept_versions else _changes(known, {**known, **versions()})
        if not changes and not others:
            _note_start(study)
            return study, False
        if not _is_untouched(study):
            raise SpecChangedError(
                f"Study {name!r} was made with another spec: {changes}. "
                "Start it under another name with --study, or restore the value."
                if changes
                else f"Study {name!r} was made with other versions, so that its numbers and new "
                f"ones may not compare: {others}. Start it under another name with --study, "
                "install those versions, or go on all the same with --accept-versions."
            )
        # A start that failed before its first measurement leaves nothing to be true to.
        optuna.delete_study(study_name=name, storage=storage)
    try:
        for made_again in ("base", "data", "confirm"):  # of an earlier study of that name
            shutil.rmtree(folder / made_again, ignore_errors=True)
        (folder / "trials").mkdir(parents=True, exist_ok=True)
        header = json.dumps({"versions": versions(), "fingerprints": dict(fingerprints)})
        replace_text(folder / "spec.yaml", f"# {header}\n{spec.dump_yaml()}")
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
    name_metric(study, spec.scoring.metric.replace("_", " "))
    for key, value in {
        "spec": asked,
        "versions": versions(),
        "description": spec.description,
    }.items():
        study.set_user_attr(key, value)
    _note_start(study)
    return study, True


def name_metric(study: optuna.Study, name: str) -> None:
    """Name the score, as Optuna's dashboard and plots show it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([name])


def _note_start(study: optuna.Study) -> None:
    before = study.user_attrs.get("starts", [])
    study.set_user_attr("starts", [*before, start_record()][-_MOST_STARTS:])


def load_study(storage: RDBStorage, name: str, spec: SweepSpec | None = None) -> optuna.Study:
    """Open a study; with ``spec``, to go on with its sampler and pruner.

    Raises:
        StudyError: There is none of this name; the message lists those there are. Or the name is
            not one that hawsweep gives.
    """
    _folder_name(name)
    try:
        study = optuna.load_study(storage=storage, study_name=name)
    except KeyError as fault:
        known = ", ".join(map(printable, study_names(storage))) or "none"
        raise StudyError(
            f"There is no study {name!r}. Studies here: {known}. `hawsweep list` shows them."
        ) from fault
    if spec is not None:
        study.pruner = make_pruner(spec)
        renew_sampler(study, spec)
    return study


def read_trials(study: optuna.Study) -> optuna.Study:
    """Read a study's trials now, at once; those that ended are not read again.

    Python would look for garbage again and again among what is only being made: a third of the
    time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        study.get_trials(deepcopy=False)
    finally:
        if was_enabled:
            gc.enable()
    return study


def renew_sampler(study: optuna.Study, spec: SweepSpec) -> None:
    """Give a study the sampler for its next proposal; what was read of its trials is kept."""
    study.sampler = make_sampler(spec, len(study.get_trials(deepcopy=False)))


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


def stop_asked(study: optuna.Study) -> int:
    """Whether the study is to stop: 0 no, 1 after the current evaluation, 2 now."""
    return study.user_attrs.get(STOP) or 0


def spec_of(study: optuna.Study, trial: FrozenTrial | None = None) -> SweepSpec:
    """The spec a study was made with, and how it was last asked to run; of a trial, as if the model
    it trained were the only one.
    """
    attributes = study.user_attrs
    content = {key: value for key, value in attributes["spec"].items() if key != "fingerprints"}
    spec = SweepSpec.model_validate(without_gone_keys({**content, **attributes.get("how", {})}))
    if trial is None:
        return spec
    queued = trial.system_attrs.get("fixed_params", {})
    return spec.of_model(spec.model_of({**queued, **trial.params}))


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
    return str(max(summaries, key=study_id).study_name)


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
            f"{path} is not a usable SQLite database: {fault}. It was left as it is: "
            "`hawsweep doctor` says whether there is a backup to put back. Or move it away, or "
            "choose another --studies-dir."
        ) from fault


def _is_untouched(study: optuna.Study) -> bool:
    trials = study.get_trials(deepcopy=False)
    is_measured = study.user_attrs.keys() & {"base", BASES}
    return not is_measured and all(t.state == TrialState.WAITING for t in trials)


def _spec_with_defaults(study: optuna.Study, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What a study was made with; keys that are newer than it have their defaults, and
    fingerprints what they are now.
    """
    stored: dict[str, Any] = study.user_attrs.get("spec", {})
    known = {**asked["fingerprints"], **stored.get("fingerprints", {})}
    try:
        return {**spec_of(study).fingerprint(), "fingerprints": known}
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


def _first_line(fault: BaseException) -> str:
    lines: Sequence[str] = str(fault).strip().splitlines()
    return lines[0] if lines else type(fault).__name__
