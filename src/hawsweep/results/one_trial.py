"""One trial of a study: its settings, its losses beside the best trial's and the median's."""

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from hawsweep.errors import StudyError
from hawsweep.files import files_under, read_json_lines
from hawsweep.layout import METRICS_FILE, SAMPLE_FILES
from hawsweep.results.leaderboard import loss_curve, trial_row
from hawsweep.spec.space import MODEL
from hawsweep.study.attributes import CONTINUES, PLAN, TRIED
from hawsweep.study.baselines import base_dir_of, baselines, prompt_label, score_of
from hawsweep.study.confirm import confirmations, winner
from hawsweep.study.place import Place
from hawsweep.study.study import known_spec
from hawsweep.study.trials import trial_of


def describe_trial(study: optuna.Study, place: Place, number: int) -> dict[str, Any]:
    """All facts about a trial, as plain values.

    Raises:
        StudyError: There is no such trial.
    """
    trial = trial_of(study, number)
    folder = place.trial_dir(study.study_name, number)
    best = winner(study)
    again = {each.trial_number: each.mean for each in confirmations(study)}
    return {
        "study": study.study_name,
        **vars(replace(trial_row(trial), confirmed=again.get(number))),
        "plan": trial.user_attrs.get(PLAN),
        "continues": trial.user_attrs.get(CONTINUES),
        "evaluations": dict(loss_curve(trial)),
        "train_losses": _train_losses(folder / METRICS_FILE),
        "best": None
        if best is None
        else {
            "trial": best.number,
            "score": best.value,
            # Losses per token cannot be compared between models.
            "evaluations": dict(loss_curve(best)) if _same_model(best, trial) else {},
        },
        "median_evaluations": _median_losses(study, trial),
        "folder": str(folder),
        "files": [str(path.relative_to(folder)) for path in files_under(folder)],
        "samples": _samples(folder, base_dir_of(study, place, number))[:5],
    }


def describe_base(study: optuna.Study) -> dict[str, Any]:
    """The untuned models with each prompt that they were tried with, as plain values.

    Raises:
        StudyError: None was measured.
    """
    found = baselines(study)
    if not found:
        raise StudyError(f"Study {study.study_name!r} has no measured base yet. Start it first.")
    spec = known_spec(study)
    return {
        "study": study.study_name,
        "instructions": [] if spec is None else list(spec.scoring.prompt.instructions),
        "prompts": [
            {
                "label": prompt_label(prompt) + (f" {each.model}" if each.model else ""),
                "model": each.model,
                "n_examples": prompt.get("n_examples", 0),
                "instruction": prompt.get("instruction"),
                "is_chosen": prompt_label(prompt) == prompt_label(each.values),
                "score": score_of(prompt),
                "low": prompt.get("low"),
                "high": prompt.get("high"),
            }
            for each in found
            for prompt in each.values.get(TRIED, [each.values])
        ],
    }


def _samples(folder: Path, base: Path) -> list[dict[str, Any]]:
    """A trial's answers to the validation prompts, and its untuned model's as ``base_output``."""
    tuned = read_json_lines(folder / SAMPLE_FILES["trial"])
    before = read_json_lines(base / SAMPLE_FILES["base"]) if tuned else []
    outputs = {each.get("source"): each.get("output") for each in before}
    return [{**each, "base_output": outputs.get(each.get("source"))} for each in tuned]


def _same_model(one: FrozenTrial, other: FrozenTrial) -> bool:
    return bool(one.params.get(MODEL) == other.params.get(MODEL))


def _median_losses(study: optuna.Study, trial: FrozenTrial) -> dict[int, float]:
    """Median losses of two or more finished trials of the same model, by iteration."""
    losses: defaultdict[int, list[float]] = defaultdict(list)
    states = (TrialState.COMPLETE, TrialState.PRUNED)
    for each in study.get_trials(deepcopy=False, states=states):
        for step, loss in loss_curve(each) if _same_model(each, trial) else ():
            losses[step].append(loss)
    return {step: median(found) for step, found in sorted(losses.items()) if len(found) > 1}


def _train_losses(path: Path) -> dict[int, float | None]:
    """Training losses by iteration, up to a half-written line: the trial may be running."""
    found = {}
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    for line in text.splitlines():
        try:
            values = json.loads(line)
            if values["type"] == "train":
                found[int(values["iteration"])] = values["train_loss"]
        except (ValueError, KeyError, TypeError):
            continue
    return found
