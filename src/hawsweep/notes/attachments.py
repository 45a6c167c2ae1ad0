"""A study's files, offered as artifacts of optuna-dashboard."""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from hawsweep.layout import ADAPTER_DIR, CONFIG_FILE, CONFIRM_SUFFIX, LOG_FILE
from hawsweep.study.optuna_door import study_id
from hawsweep.study.place import Place

_TEXT = "text/plain; charset=utf-8"
_LINES = "application/jsonl; charset=utf-8"
# Below the width of a column in Optuna's tables, with room for a prefix.
_LONGEST_ID = 440


@dataclass(frozen=True)
class Offer:
    """A file that the dashboard offers.

    Attributes:
        filename: The name shown; the id is made from it.
        path: The file in the folder of the study or trial; with ``is_made``, its source.
    """

    filename: str
    mimetype: str
    path: str
    is_made: bool = False


TRANSLATIONS = Offer("translations.jsonl", _LINES, "samples.jsonl")
ADAPTER_CARD = Offer(
    "adapter.md", "text/markdown; charset=utf-8", f"{ADAPTER_DIR}/{CONFIG_FILE}", is_made=True
)
CONFIG = Offer("config.yaml", _TEXT, "config.yaml")
LOG = Offer(LOG_FILE, _TEXT, LOG_FILE)
OF_TRIALS = (TRANSLATIONS, ADAPTER_CARD, CONFIG, LOG)
REPORT = Offer("report.html", "text/html; charset=utf-8", "report.html")
OF_STUDIES = (
    Offer("sweep.yaml", _TEXT, "spec.yaml"),
    Offer("base-translations.jsonl", _LINES, "base/samples.jsonl"),
    REPORT,
)


def offers_of(study: optuna.Study, place: Place, trial: FrozenTrial | None) -> dict[str, Offer]:
    """The files of a study or of a trial that exist now, by artifact id."""
    name = study.study_name
    offered = OF_STUDIES if trial is None else _fitting(trial)
    if trial is None and name.endswith(CONFIRM_SUFFIX):
        return {}
    found = {}
    for offer in offered:
        artifact_id = _id(name, None if trial is None else trial.number, offer)
        path = folder_of(place, name, None if trial is None else trial.number) / offer.path
        if len(artifact_id) <= _LONGEST_ID and _is_of(path, trial):
            found[artifact_id] = offer
    return found


def address(study: optuna.Study, offer: Offer) -> str:
    """The path at which the dashboard serves a file of a study."""
    return f"/artifacts/{study_id(study)}/{_id(study.study_name, None, offer)}"


def _fitting(trial: FrozenTrial) -> tuple[Offer, ...]:
    if trial.state == TrialState.COMPLETE:
        return TRANSLATIONS, ADAPTER_CARD, CONFIG
    return (CONFIG, LOG) if trial.state == TrialState.FAIL else (CONFIG,)


def _is_of(path: Path, trial: FrozenTrial | None) -> bool:
    """Whether a file has content, and is not left from an earlier study of that name."""
    with suppress(OSError):
        found = path.stat()
        began = None if trial is None else trial.datetime_start
        return found.st_size > 0 and (began is None or found.st_mtime >= began.timestamp() - 1)
    return False


def _id(name: str, trial_number: int | None, offer: Offer) -> str:
    # The dashboard's addresses accept hexadecimal digits only.
    return json.dumps([name, trial_number, offer.filename]).encode().hex()


def folder_of(place: Place, name: str, trial_number: int | None) -> Path:
    """The folder of a trial's files; with None, of the study's."""
    study = name.removesuffix(CONFIRM_SUFFIX)
    if trial_number is None:
        return place.study_dir(study)
    trial_folder = place.trial_dir if study == name else place.confirm_dir
    return trial_folder(study, trial_number)
