"""Writes notes and links to files into the database, where optuna-dashboard reads them.

A note that a person changed in the dashboard stays. Machines that share a database need not share
files: a note made with a trial's files is not replaced by a note of the same state made without
them.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from hawsweep.notes.attachments import REPORT, Offer, offers_of
from hawsweep.notes.note import Note, study_note, trial_note
from hawsweep.study.attributes import (
    BASE,
    CONFIRMED,
    DESCRIPTION,
    FEW_SHOT,
    HOW,
    INFEASIBLE,
    RETENTION,
)
from hawsweep.study.optuna_door import read_once, storage_of, study_id, trial_id
from hawsweep.study.place import Place
from hawsweep.study.trials import read_test, state_of

logger = logging.getLogger(__name__)

_FORM = 3  # the version of the notes' form; a new one makes all notes anew
_MARK = "hawsweep:note:"
# Attributes of a finished trial cannot be set; the dashboard reads notes from here too.
_TRIAL_LINK, _STUDY_LINK = "dashboard:artifacts:{}:", "artifacts:"


def annotate_trials(
    study: optuna.Study, place: Place, numbers: Iterable[int], *, with_study: bool = True
) -> None:
    """Write the notes and the links of trials that ended, and the study's note.

    All notes of a study are read for it. An error costs the notes only.
    """
    with _only_told(study), read_once(study):
        attrs = _system_attrs(study)
        trials = study.get_trials(deepcopy=False)
        for number in numbers:
            _annotate_trial(study, place, trials[number], attrs)
        if with_study:
            _annotate_study(study, place, attrs, ended=False)


def annotate_study(study: optuna.Study, place: Place, *, ended: bool) -> None:
    """Write the missing or outdated notes and links of a study and its trials.

    Args:
        ended: Whether no process runs it.
    """
    with _only_told(study), read_once(study):
        attrs = _system_attrs(study)
        for trial in study.get_trials(deepcopy=False):
            if trial.state != TrialState.WAITING or state_of(trial) == "paused":
                _annotate_trial(study, place, trial, attrs)
        _annotate_study(study, place, attrs, ended=ended)


@contextmanager
def _only_told(study: optuna.Study) -> Iterator[None]:
    try:
        yield
    except Exception as fault:  # a note must not end a sweep
        # The fault's text could hold a storage's password.
        what = type(fault).__name__
        logger.warning("The notes of study %r are not all written: %s", study.study_name, what)


def _system_attrs(study: optuna.Study) -> dict[str, Any]:
    return storage_of(study).get_study_system_attrs(study_id(study))


def _set(study: optuna.Study, key: str, value: Any) -> None:
    storage_of(study).set_study_system_attr(study_id(study), key, value)


def _annotate_trial(
    study: optuna.Study, place: Place, trial: FrozenTrial, attrs: Mapping[str, Any]
) -> None:
    prefix = _TRIAL_LINK.format(trial_id(trial))
    _link(study, prefix, offers_of(study, place, trial), attrs)
    of = f"{_FORM} {trial.state.name} {bool(trial.user_attrs.get(INFEASIBLE))}"
    of += f" {trial.last_step}" if state_of(trial) == "paused" else ""
    mark = attrs.get(f"{_MARK}{trial_id(trial)}")
    if mark is None or mark["of"] != of or not mark["has_files"]:
        _write(study, trial_id(trial), trial_note(study, place, trial), of, attrs)


def _annotate_study(
    study: optuna.Study, place: Place, attrs: Mapping[str, Any], *, ended: bool
) -> None:
    offers = offers_of(study, place, None)
    _link(study, _STUDY_LINK, offers, attrs)
    of = f"{_FORM} {_fingerprint(study)} {ended}"
    if REPORT in offers.values():
        of += " report"  # a machine without the report keeps a note that links to it
    mark = attrs.get(_MARK)
    if mark is None or not mark["of"].startswith(of) or not mark["has_files"]:
        _write(study, None, study_note(study, place, ended=ended), of, attrs)


def _fingerprint(study: optuna.Study) -> str:
    """A hash of the facts in the study's note: how trials ended, test, confirming runs."""
    ended = [trial.state.value for trial in study.get_trials(deepcopy=False)]
    base, few_shot, *others = map(study.user_attrs.get, (BASE, FEW_SHOT, CONFIRMED, HOW))
    known = [base, few_shot, read_test(study), study.user_attrs.get(RETENTION), *others]
    return _digest(json.dumps([ended, known, study.user_attrs.get(DESCRIPTION)], sort_keys=True))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _link(
    study: optuna.Study, prefix: str, offers: Mapping[str, Offer], attrs: Mapping[str, Any]
) -> None:
    for artifact_id, offer in offers.items():
        if f"{prefix}{artifact_id}" not in attrs:  # a removed link is null
            link = {
                "artifact_id": artifact_id,
                "filename": offer.filename,
                "mimetype": offer.mimetype,
                "encoding": None,
            }
            _set(study, f"{prefix}{artifact_id}", json.dumps(link))


def _write(
    study: optuna.Study,
    trial_id: int | None,
    note: Note,
    of: str,
    attrs: Mapping[str, Any],
) -> None:
    """Write a note, unless a person wrote or removed it."""
    key = _MARK if trial_id is None else f"{_MARK}{trial_id}"
    mark, there = attrs.get(key), _note(trial_id, attrs)
    if _digest(there) != (_digest("") if mark is None else mark["body"]):
        return
    is_known = mark is not None and mark["of"].startswith(of)
    if mark is not None and is_known and mark["has_files"] >= note.has_files:
        return
    if note.body != there:
        _save_note(study, trial_id, note.body, attrs)
    mark = {"of": of, "body": _digest(note.body), "has_files": note.has_files}
    _set(study, key, mark)


# Like optuna_dashboard.save_note, whose import takes a second and loads scikit-learn.
_CHUNK = 2045


def _note_keys(trial_id: int | None) -> tuple[str, str]:
    of = "" if trial_id is None else f"{trial_id}:"
    return f"dashboard:{of}note_ver", f"dashboard:{of}note_str:"


def _note(trial_id: int | None, attrs: Mapping[str, Any]) -> str:
    _, prefix = _note_keys(trial_id)
    return "".join(attrs[f"{prefix}{n}"] for n in range(_n_chunks(prefix, attrs)))


def _n_chunks(prefix: str, attrs: Mapping[str, Any]) -> int:
    return next(n for n in range(len(attrs) + 1) if f"{prefix}{n}" not in attrs)


def _save_note(
    study: optuna.Study, trial_id: int | None, body: str, attrs: Mapping[str, Any]
) -> None:
    version, prefix = _note_keys(trial_id)
    chunks = [body[start : start + _CHUNK] for start in range(0, len(body), _CHUNK)]
    chunks += [""] * (_n_chunks(prefix, attrs) - len(chunks))  # clears the rest of a longer note
    values = {f"{prefix}{number}": chunk for number, chunk in enumerate(chunks)}
    for key, value in {version: attrs.get(version, 0) + 1, **values}.items():
        if attrs.get(key) != value:
            _set(study, key, value)
