"""What a study shows of its trials: as a leaderboard, one by one, and at its end."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from hawsweep.baselines import base_dir, base_dir_of, baselines, score_of
from hawsweep.confirm import confirmations, winner
from hawsweep.errors import StudyError
from hawsweep.intervals import Interval, difference_interval
from hawsweep.spec import MODEL
from hawsweep.study import SAMPLE_FILES, Place, read_trials, study_names
from hawsweep.trialfiles import METRICS_FILE
from hawsweep.trials import TARGETS_PER_BYTE, trial_of
from hawsweep.verdict import Candidate, Verdict, judge

# Trials that a verdict compares: reading and resampling thousands takes minutes.
_MOST_JUDGED = 50


@dataclass(frozen=True)
class TrialRow:
    """One line of a leaderboard; None where a trial has not come so far.

    Attributes:
        label: The trial's number, or ``base``.
        state: ``complete``, ``pruned``, ``infeasible`` (it does not fit into memory), ``fail``,
            ``running``, ``waiting``, ``base``, or ``reference`` (known from elsewhere).
        score: By ``scoring.metric``, with its 95 % interval from ``low`` to ``high``.
        confirmed: Mean score of its settings trained again with new seeds.
        faults: How many answers are empty, cut and so on.
        val_loss: Of the best evaluation, nats per token; ``best_iteration`` is where it was.
        similarity: Mean cosine on the validation prompts.
        time_s: From start to end.
        nats_per_byte: ``val_loss`` as trials of several models are compared by it; else None.
    """

    label: str
    state: str
    settings: Mapping[str, Any]
    val_loss: float | None = None
    best_iteration: int | None = None
    score: float | None = None
    low: float | None = None
    high: float | None = None
    similarity: float | None = None
    chrf: float | None = None
    bleu: float | None = None
    tokens_per_s: float | None = None
    peak_memory_bytes: int | None = None
    time_s: float | None = None
    faults: Mapping[str, int] | None = None
    confirmed: float | None = None
    reason: str | None = None
    nats_per_byte: float | None = None


def leaderboard(study: optuna.Study) -> list[TrialRow]:
    """All trials, best first, with the base where its similarity puts it.

    Complete trials rank by similarity, then pruned ones by validation loss, then the others.
    """
    again = {each.trial_number: each.mean for each in confirmations(study)}
    rows = [trial_row(trial) for trial in study.get_trials(deepcopy=False)]
    if again:
        rows = [replace(row, confirmed=again.get(int(row.label))) for row in rows]
    for each in baselines(study):
        known = _known(each.values)
        settings = {MODEL: each.model} if each.model else {}
        rows.append(TrialRow(each.label, "base", settings, **{**known, "score": each.score}))
    references = study.user_attrs.get("references", {})
    rows += [TrialRow(name, "reference", {}, score=value) for name, value in references.items()]
    order = ["complete", "base", "pruned", "fail", "infeasible", "running", "waiting"]

    def rank(row: TrialRow) -> tuple[int, float, float]:
        place = 0 if row.score is not None else order.index(row.state)
        losses = (row.nats_per_byte, row.val_loss, float("inf"))
        loss = next(each for each in losses if each is not None)
        return place, -(row.score or 0.0), loss

    return sorted(rows, key=rank)


def trial_row(trial: FrozenTrial) -> TrialRow:
    """A trial as a line of a leaderboard."""
    known = _known(trial.user_attrs)
    if trial.state == TrialState.COMPLETE:
        known["score"] = trial.value
    if trial.duration is not None:  # by the clock on the wall, which somebody may have set
        known.setdefault("time_s", max(0.0, trial.duration.total_seconds()))
    settings = trial.params or trial.system_attrs.get("fixed_params", {})  # the latter: waiting
    state = "infeasible" if trial.user_attrs.get("infeasible") else trial.state.name.lower()
    return TrialRow(str(trial.number), state, settings, **known)


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: values[key] for key in TrialRow.__dataclass_fields__ if key in values}


def list_studies(storage: RDBStorage) -> list[dict[str, Any]]:
    """Each study with its trials counted by state, its best similarity and the base's."""
    found = []
    for name in study_names(storage):
        # Whatever its name.
        study = read_trials(optuna.load_study(storage=storage, study_name=name))
        states = Counter(trial.state.name.lower() for trial in study.get_trials(deepcopy=False))
        best, base = winner(study), study.user_attrs.get("base")
        found.append(
            {
                "name": name,
                "description": study.user_attrs.get("description", ""),
                "trials": dict(states),
                "best_trial": None if best is None else best.number,
                "best_score": None if best is None else best.value,
                "base_score": None if base is None else score_of(base),
            }
        )
    return found


def describe_trial(study: optuna.Study, place: Place, number: int) -> dict[str, Any]:
    """All that is known of a trial, as plain values.

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
        "plan": trial.user_attrs.get("plan"),
        "continues": trial.user_attrs.get("continues"),
        "evaluations": dict(loss_curve(trial)),
        "train_losses": _train_losses(folder / METRICS_FILE),
        "best": None
        if best is None
        else {
            "trial": best.number,
            "score": best.value,
            # Losses per token do not compare with those of another model's tokens.
            "evaluations": dict(loss_curve(best)) if _same_model(best, trial) else {},
        },
        "median_evaluations": _median_losses(study, trial),
        "folder": str(folder),
        "files": sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()),
        "samples": read_json_lines(folder / "samples.jsonl")[:5],
    }


def loss_curve(trial: FrozenTrial) -> tuple[tuple[int, float], ...]:
    """A trial's iterations and the validation losses there, in nats per token."""
    per_byte = trial.user_attrs.get(TARGETS_PER_BYTE, 1.0)
    values = sorted(trial.intermediate_values.items())
    return tuple((step, -value / per_byte) for step, value in values)


def _same_model(one: FrozenTrial, other: FrozenTrial) -> bool:
    return bool(one.params.get(MODEL) == other.params.get(MODEL))


def _median_losses(study: optuna.Study, trial: FrozenTrial) -> dict[int, float]:
    """Of the finished trials of its model that came so far, where those are two or more."""
    losses: defaultdict[int, list[float]] = defaultdict(list)
    states = (TrialState.COMPLETE, TrialState.PRUNED)
    for each in study.get_trials(deepcopy=False, states=states):
        for step, loss in loss_curve(each) if _same_model(each, trial) else ():
            losses[step].append(loss)
    return {step: median(found) for step, found in sorted(losses.items()) if len(found) > 1}


def _train_losses(path: Path) -> dict[int, float | None]:
    """By iteration, as far as the file is whole: the trial may be writing it."""
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


def judge_study(study: optuna.Study, place: Place) -> Verdict | None:
    """What the study's scores allow to say; None before its first complete trial.

    The winner is compared with the next best trials, not with thousands of others.
    """
    name, tested = study.study_name, study.user_attrs.get("test", {}).get("trial_number")
    untuned = [
        _candidate(
            each.label,
            base_dir(place, name, each.model),
            each.kind,
            is_tested=tested is not None,
            model=each.model,
        )
        for each in baselines(study)
    ]
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    ranked = sorted(complete, key=lambda trial: -(trial.value or 0.0))
    best = {trial.number for trial in ranked[:_MOST_JUDGED]}
    of_models = {trial.params.get(MODEL): trial.number for trial in reversed(ranked)}
    best |= set(of_models.values())  # the best of each model is compared too
    trials = [
        _candidate(
            f"trial {trial.number}",
            place.trial_dir(name, trial.number),
            "trial",
            is_tested=trial.number == tested,
            cost=trial.user_attrs.get("train_time_s", 0.0),
            model=trial.params.get(MODEL, ""),
        )
        for trial in complete
        if trial.number in best or trial.number == tested
    ]
    n_prompts = max((len(each.scores) for each in (*trials, *untuned)), default=0)
    whole = [each for each in trials if len(each.scores) == n_prompts > 0]
    return judge(
        whole,
        [each for each in untuned if len(each.scores) == n_prompts],
        winner=None if tested is None else f"trial {tested}",
        n_chosen_from=len(complete) - len(trials) + len(whole),
    )


def _candidate(
    label: str, folder: Path, kind: str, *, is_tested: bool, cost: float = 0.0, model: str = ""
) -> Candidate:
    name = SAMPLE_FILES[kind]
    test_scores = _scores(folder / f"test_{name}") if is_tested else np.empty(0)
    tested = test_scores if len(test_scores) else None
    return Candidate(label, _scores(folder / name), tested, cost, model)


def _scores(path: Path) -> npt.NDArray[np.float64]:
    return np.array([score_of(each) for each in read_json_lines(path)])


@dataclass(frozen=True)
class GroupRow:
    """What the judged trial gains over the base on the prompts of one group."""

    group: str
    n_prompts: int
    base: float
    trial: float
    gain: Interval


def groups(study: optuna.Study, place: Place) -> list[GroupRow]:
    """The base and the best trial by the records' ``group``, largest loss first: on the test split
    where it was opened, else on the validation prompts. Empty where records have no groups.
    """
    test = study.user_attrs.get("test")
    best = winner(study)
    if best is None:
        return []
    number = best.number if test is None else test["trial_number"]
    name = SAMPLE_FILES["trial"] if test is None else f"test_{SAMPLE_FILES['trial']}"
    base = read_json_lines(base_dir_of(study, place, number) / name)
    tuned = read_json_lines(place.trial_dir(study.study_name, number) / name)
    return by_group(base, tuned)


def by_group(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]
) -> list[GroupRow]:
    """Samples of the same prompts by their group, largest loss first; empty where they have none,
    or are not of the same prompts.
    """
    pairs: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    if len(before) == len(after):
        for one, other in zip(before, after, strict=True):
            if one.get("group") is not None:
                pairs[one["group"]].append((score_of(one), score_of(other)))
    rows = []
    for group, scores in pairs.items():
        first, second = np.array(scores).T
        gain = difference_interval(second, first)
        rows.append(GroupRow(group, len(scores), float(first.mean()), float(second.mean()), gain))
    return sorted(rows, key=lambda row: row.gain.mean)


def end_of_study(study: optuna.Study, place: Place) -> dict[str, Any]:
    """What the end of a start shows: leaderboard, test, translations of base and best trial."""
    test = study.user_attrs.get("test")
    samples = []
    if test is not None:
        base = base_dir_of(study, place, test["trial_number"])
        tuned = place.trial_dir(study.study_name, test["trial_number"])
        pairs = (read_json_lines(folder / "test_samples.jsonl") for folder in (base, tuned))
        samples = list(zip(*pairs, strict=False))[:5]
    best = winner(study)
    return {
        "name": study.study_name,
        "options": place.options,
        "rows": leaderboard(study),
        "test": test,
        "verdict": judge_study(study, place),
        "confirmed": confirmations(study),
        "groups": groups(study, place),
        "self_check": study.user_attrs.get("self_check"),
        "samples": samples,
        "best_trial": None if best is None else best.number,
        "study_dir": place.study_dir(study.study_name),
        "trial_dir": None if best is None else place.trial_dir(study.study_name, best.number),
    }


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a JSON lines file; none where it is missing.

    Raises:
        StudyError: It is damaged.
    """
    if not path.is_file():
        return []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError) as fault:
        raise StudyError(
            f"{path} is damaged: {fault}. Restore it from a backup, or move it away."
        ) from fault
