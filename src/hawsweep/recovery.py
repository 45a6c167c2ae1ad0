"""What a study's folder keeps of the database, and a database made anew out of it.

Beside each trial's files lies ``trial.json``, beside the study's ``study.json``: what the database
knows of them. The confirming study keeps its own in the folder ``confirm``.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from pydantic import BaseModel, NaiveDatetime
from sqlalchemy.exc import SQLAlchemyError

from hawsweep.errors import SpecError, StudyError
from hawsweep.files import replace_text
from hawsweep.study import Place, confirm_name, open_storage
from hawsweep.sweepfile import read_sweep
from hawsweep.trialfiles import ADAPTER_DIR, WEIGHTS_FILE

TRIAL_FILE = "trial.json"
STUDY_FILE = "study.json"
NOTHING_KEPT = "nothing of it was kept when the database was rebuilt"
# As ``study.Place`` names them.
_TRIALS, _CONFIRM = "trials", "confirm"


class TrialRecord(BaseModel):
    """What the database knows of a finished trial, as ``trial.json`` holds it.

    Attributes:
        study_began: When the study's first trial started: a folder may also hold trials of an
            earlier study of its name.
        system_attrs: Optuna's own, constraints among them.
    """

    study_began: NaiveDatetime
    number: int
    state: Literal["COMPLETE", "PRUNED", "FAIL"]
    value: float | None
    params: dict[str, Any]
    distributions: dict[str, Any]
    intermediate_values: dict[int, float]
    user_attrs: dict[str, Any]
    system_attrs: dict[str, Any]
    datetime_start: NaiveDatetime
    datetime_complete: NaiveDatetime

    def to_trial(self) -> FrozenTrial:
        """The trial, as Optuna has it.

        Raises:
            ValueError: Its values contradict each other.
        """
        trial = FrozenTrial(
            number=self.number,
            trial_id=-1,  # the database's
            state=TrialState[self.state],
            value=self.value,
            values=None,
            datetime_start=self.datetime_start,
            datetime_complete=self.datetime_complete,
            params=self.params,
            distributions={
                name: json_to_distribution(json.dumps(each))
                for name, each in self.distributions.items()
            },
            user_attrs=self.user_attrs,
            system_attrs=self.system_attrs,
            intermediate_values=self.intermediate_values,
        )
        trial._validate()
        return trial


class StudyRecord(BaseModel):
    """What the database knows of a study beside its trials, as ``study.json`` holds it.

    Attributes:
        study_began: As in ``TrialRecord``; None before the first trial.
    """

    study_began: NaiveDatetime | None
    name: str
    direction: Literal["minimize", "maximize"]
    metric_names: list[str] | None
    user_attrs: dict[str, Any]


def write_record(study: optuna.Study, trial_number: int, folder: Path) -> None:
    """Write what the database knows of a finished trial into the trial's folder."""
    trials = study.get_trials(deepcopy=False)
    trial = trials[trial_number]
    record = {
        "study_began": _began(trials),
        "number": trial.number,
        "state": trial.state.name,
        "value": trial.value,
        "params": trial.params,
        "distributions": {
            name: json.loads(distribution_to_json(each))
            for name, each in trial.distributions.items()
        },
        "intermediate_values": trial.intermediate_values,
        "user_attrs": trial.user_attrs,
        "system_attrs": trial.system_attrs,
        "datetime_start": trial.datetime_start,
        "datetime_complete": trial.datetime_complete,
    }
    _write(folder / TRIAL_FILE, TrialRecord.model_validate(record))


def write_study_record(study: optuna.Study, folder: Path) -> None:
    """Write what the database knows of a study, beside its trials, into the study's folder; of a
    confirming one into its folder ``confirm``.
    """
    record = StudyRecord(
        study_began=_began(study.get_trials(deepcopy=False)),
        name=study.study_name,
        direction="maximize" if study.direction.name == "MAXIMIZE" else "minimize",
        metric_names=study.metric_names,
        user_attrs=study.user_attrs,
    )
    _write(folder / STUDY_FILE, record)


def _began(trials: Sequence[FrozenTrial]) -> datetime | None:
    # By number, not the earliest: a clock may be set back.
    return next((each.datetime_start for each in trials if each.datetime_start), None)


def _write(path: Path, record: BaseModel) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record.model_dump(), default=datetime.isoformat, indent=1)
    replace_text(path, f"{text}\n")


@dataclass(frozen=True)
class Recoverable:
    """What a study's folder could give back.

    Attributes:
        n_trials: Folders of trials, with or without a record.
        n_records: Trials that can be rebuilt.
        n_unreadable: Records that are damaged, or of an earlier study of that name.
        n_adapters: Trials whose best adapter is there.
        n_confirming: Records of the runs that confirm, which can be rebuilt too.
        best_score: Of the trials with records; None where none is complete.
        last: When the last of them ended.
    """

    name: str
    n_trials: int
    n_records: int
    n_unreadable: int
    n_adapters: int
    n_confirming: int
    best_score: float | None
    last: datetime | None


@dataclass(frozen=True)
class _Kept:
    """What a folder holds of one study.

    Attributes:
        trials: By number.
        began: See ``TrialRecord.study_began``.
    """

    name: str
    study: StudyRecord | None = None
    trials: Mapping[int, FrozenTrial] = field(default_factory=dict)
    n_unreadable: int = 0
    began: datetime | None = None


def survey(studies_dir: Path) -> list[Recoverable]:
    """What each study's folder could give back, by name. Nothing is written."""
    found = []
    for folder in _study_dirs(studies_dir):
        kept, confirming = _read(folder)
        complete = [t.value for t in kept.trials.values() if t.state == TrialState.COMPLETE]
        ends = [t.datetime_complete for t in kept.trials.values() if t.datetime_complete]
        trial_dirs = list((folder / _TRIALS).glob("*/"))
        found.append(
            Recoverable(
                name=folder.name,
                n_trials=len(trial_dirs),
                n_records=len(kept.trials),
                n_unreadable=kept.n_unreadable + confirming.n_unreadable,
                n_adapters=sum(
                    (each / ADAPTER_DIR / WEIGHTS_FILE).is_file() for each in trial_dirs
                ),
                n_confirming=len(confirming.trials),
                best_score=max((v for v in complete if v is not None), default=None),
                last=max(ends, default=None),
            )
        )
    return found


def check_nothing_lost(name: str, place: Place) -> None:
    """Refuse to begin a study where its folder has records of trials that no database knows.

    Raises:
        StudyError: It has; the message says how to get them back.
    """
    kept, _ = _read(place.study_dir(name))
    if kept.trials:
        raise StudyError(
            f"{place.study_dir(name)} has records of {len(kept.trials)} trials, but the database "
            "knows no such study. Get them back with `hawsweep doctor --rebuild`, or move that "
            "folder away, or start under another name with --study."
        )


def rebuild(studies_dir: Path, new_database_path: Path) -> list[str]:
    """Make a new database out of the records.

    Trials have the numbers they had; those of which nothing was kept are failed trials that say so.

    Returns:
        The names of the studies in it, the oldest first, without those that confirm another.

    Raises:
        StudyError: There is nothing to rebuild, or the file is there already or cannot be written.
    """
    kept = [pair for pair in map(_read, _study_dirs(studies_dir)) if pair[0].trials]
    if not kept:
        raise StudyError(
            f"Nothing can be rebuilt: no study's folder in {studies_dir} holds a readable "
            f"{_TRIALS}/*/{TRIAL_FILE}. Restore a backup of the database."
        )
    try:
        new_database_path.open("xb").close()
    except FileExistsError as fault:
        raise StudyError(
            f"{new_database_path} is there already and is not written over. Move it away first."
        ) from fault
    except OSError as fault:
        raise StudyError(f"{new_database_path} cannot be written: {fault.strerror}.") from fault
    kept.sort(key=lambda pair: (pair[0].began or datetime.max, pair[0].name))
    try:
        storage = open_storage(Place(studies_dir, f"sqlite:///{new_database_path}"))
        for main, confirming in kept:
            _add(storage, main)
            if confirming.trials:
                _add(storage, confirming)
        storage.remove_session()
        storage.engine.dispose()
    except BaseException as fault:
        new_database_path.unlink()  # half a database must not be taken for a whole one
        if isinstance(fault, optuna.exceptions.StorageInternalError | SQLAlchemyError):
            raise StudyError(
                f"{new_database_path} cannot be written: {fault.__cause__ or fault}. Is there room "
                "for it?"
            ) from fault
        raise
    return [main.name for main, _ in kept]


def _add(storage: RDBStorage, kept: _Kept) -> None:
    direction = "maximize" if kept.study is None else kept.study.direction
    study = optuna.create_study(storage=storage, study_name=kept.name, direction=direction)
    if kept.study is not None:
        if kept.study.metric_names is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.set_metric_names(kept.study.metric_names)
        for key, value in kept.study.user_attrs.items():
            study.set_user_attr(key, value)
    for number in range(max(kept.trials) + 1):
        study.add_trial(kept.trials.get(number) or _lost_trial(kept))


def _lost_trial(kept: _Kept) -> FrozenTrial:
    """In place of a trial of which nothing was kept, so that the others keep their numbers."""
    trial = create_trial(state=TrialState.FAIL, user_attrs={"reason": NOTHING_KEPT})
    trial.datetime_start = trial.datetime_complete = kept.began
    return trial


def _study_dirs(studies_dir: Path) -> list[Path]:
    return sorted(path.parent for path in studies_dir.glob(f"*/{_TRIALS}/"))


def _read(folder: Path) -> tuple[_Kept, _Kept]:
    """The study that a folder is of, and the one that confirms it."""
    main = _read_trials(folder.name, folder / _TRIALS)
    confirming = _read_trials(confirm_name(folder.name), folder / _CONFIRM)
    return (
        replace(main, study=_read_study(folder, main.began) or _study_of_spec(folder)),
        replace(confirming, study=_read_study(folder / _CONFIRM, confirming.began)),
    )


def _read_trials(name: str, folder: Path) -> _Kept:
    found: list[tuple[TrialRecord, FrozenTrial]] = []
    paths = sorted(folder.glob(f"*/{TRIAL_FILE}"))
    for path in paths:
        with suppress(OSError, ValueError):  # pydantic's and json's are ValueErrors
            record = TrialRecord.model_validate(json.loads(path.read_text(encoding="utf-8")))
            if path.parent.name == f"{record.number:04d}":
                found.append((record, record.to_trial()))
    # The newest says which study it is.
    newest = max((record for record, _ in found), key=lambda r: r.datetime_complete, default=None)
    began = None if newest is None else newest.study_began
    trials = {record.number: trial for record, trial in found if record.study_began == began}
    return _Kept(name, trials=trials, n_unreadable=len(paths) - len(trials), began=began)


def _read_study(folder: Path, began: datetime | None) -> StudyRecord | None:
    with suppress(OSError, ValueError):
        text = (folder / STUDY_FILE).read_text(encoding="utf-8")
        record = StudyRecord.model_validate(json.loads(text))
        return record if record.study_began == began else None
    return None


def _study_of_spec(folder: Path) -> StudyRecord | None:
    """What ``study.create_study`` put into a study, out of its ``spec.yaml``: enough to go on."""
    path = folder / "spec.yaml"
    with suppress(OSError, ValueError, LookupError, TypeError, SpecError):
        header = json.loads(path.read_text(encoding="utf-8").splitlines()[0].removeprefix("#"))
        spec = read_sweep(path)
        return StudyRecord(
            study_began=None,
            name=folder.name,
            direction="maximize",
            metric_names=[spec.scoring.metric.replace("_", " ")],
            user_attrs={
                "spec": {**spec.fingerprint(), "fingerprints": header["fingerprints"]},
                "versions": header["versions"],
                "description": spec.description,
            },
        )
    return None
