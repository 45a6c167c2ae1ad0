"""What a study shows of its trials: as a leaderboard, one by one, and at its end."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from hawsweep.errors import StudyError
from hawsweep.study import Place, best_trial, load_study, study_names


@dataclass(frozen=True)
class TrialRow:
    """One line of a leaderboard; None where a trial has not come so far.

    Attributes:
        label: The trial's number, or ``base``.
        state: ``complete``, ``pruned``, ``infeasible`` (it does not fit into memory), ``fail``,
            ``running``, ``waiting``, or ``base``.
        val_loss: Of the best evaluation, nats per token; ``best_iteration`` is where it was.
        similarity: Mean cosine on the validation prompts.
        time_s: From start to end.
    """

    label: str
    state: str
    settings: Mapping[str, Any]
    val_loss: float | None = None
    best_iteration: int | None = None
    similarity: float | None = None
    chrf: float | None = None
    bleu: float | None = None
    tokens_per_s: float | None = None
    peak_memory_bytes: int | None = None
    time_s: float | None = None
    reason: str | None = None


def leaderboard(study: optuna.Study) -> list[TrialRow]:
    """All trials, best first, with the base where its similarity puts it.

    Complete trials rank by similarity, then pruned ones by validation loss, then the others.
    """
    rows = [trial_row(trial) for trial in study.get_trials(deepcopy=False)]
    base = study.user_attrs.get("base")
    if base is not None:
        known = {key: value for key, value in base.items() if key in TrialRow.__dataclass_fields__}
        rows.append(TrialRow("base", "base", {}, **known))
    order = ["complete", "base", "pruned", "fail", "infeasible", "running", "waiting"]

    def rank(row: TrialRow) -> tuple[int, float, float]:
        place = 0 if row.similarity is not None else order.index(row.state)
        loss = float("inf") if row.val_loss is None else row.val_loss
        return place, -(row.similarity or 0.0), loss

    return sorted(rows, key=rank)


def trial_row(trial: FrozenTrial) -> TrialRow:
    """A trial as a line of a leaderboard."""
    keys = (
        "val_loss",
        "best_iteration",
        "similarity",
        "chrf",
        "bleu",
        "tokens_per_s",
        "peak_memory_bytes",
        "reason",
    )
    known = {key: trial.user_attrs.get(key) for key in keys}
    duration = trial.duration.total_seconds() if trial.duration is not None else None
    settings = trial.params or trial.system_attrs.get("fixed_params", {})  # the latter: waiting
    state = "infeasible" if trial.user_attrs.get("infeasible") else trial.state.name.lower()
    return TrialRow(str(trial.number), state, settings, time_s=duration, **known)


def list_studies(storage: RDBStorage) -> list[dict[str, Any]]:
    """Each study with its trials counted by state, its best similarity and the base's."""
    found = []
    for name in study_names(storage):
        study = load_study(storage, name)
        states = Counter(trial.state.name.lower() for trial in study.get_trials(deepcopy=False))
        best = best_trial(study)
        found.append(
            {
                "name": name,
                "description": study.user_attrs.get("description", ""),
                "trials": dict(states),
                "best_trial": None if best is None else best.number,
                "best_similarity": None if best is None else best.value,
                "base_similarity": study.user_attrs.get("base", {}).get("similarity"),
            }
        )
    return found


def describe_trial(study: optuna.Study, place: Place, number: int) -> dict[str, Any]:
    """All that is known of a trial, as plain values.

    Raises:
        StudyError: There is no such trial.
    """
    trials = study.get_trials(deepcopy=False)
    if not 0 <= number < len(trials):
        there = f"it has 0 to {len(trials) - 1}" if trials else "it has none"
        raise StudyError(f"Study {study.study_name!r} has no trial {number}; {there}.")
    folder = place.trial_dir(study.study_name, number)
    return {
        "study": study.study_name,
        **vars(trial_row(trials[number])),
        "evaluations": {step: -value for step, value in trials[number].intermediate_values.items()},
        "folder": str(folder),
        "files": sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()),
        "samples": read_json_lines(folder / "samples.jsonl")[:5],
    }


def end_of_study(study: optuna.Study, place: Place) -> dict[str, Any]:
    """What the end of a start shows: leaderboard, test, translations of base and best trial."""
    test = study.user_attrs.get("test")
    samples = []
    if test is not None:
        base = place.study_dir(study.study_name) / "base"
        tuned = place.trial_dir(study.study_name, test["trial_number"])
        pairs = (read_json_lines(folder / "test_samples.jsonl") for folder in (base, tuned))
        samples = list(zip(*pairs, strict=False))[:5]
    best = best_trial(study)
    return {
        "name": study.study_name,
        "rows": leaderboard(study),
        "test": test,
        "samples": samples,
        "best_trial": None if best is None else best.number,
        "study_dir": place.study_dir(study.study_name),
        "trial_dir": None if best is None else place.trial_dir(study.study_name, best.number),
    }


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a JSON lines file; none where it is missing."""
    if not path.is_file():
        return []
    return [
        json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()
    ]
