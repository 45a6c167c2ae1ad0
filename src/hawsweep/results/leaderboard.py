"""Leaderboards of studies, and the list of studies."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from hawsweep.errors import HawsweepError
from hawsweep.results.verdict import trial_to_use
from hawsweep.spec.space import MODEL
from hawsweep.study.attributes import BASE, DESCRIPTION, FAULT, REFERENCES, TARGETS_PER_BYTE
from hawsweep.study.baselines import baselines, score_of
from hawsweep.study.confirm import confirmations, winner
from hawsweep.study.place import Place
from hawsweep.study.storage import study_names
from hawsweep.study.study import read_trials
from hawsweep.study.trials import is_interrupted, state_of
from hawsweep.text import short_repr


@dataclass(frozen=True, repr=False)
class TrialRow:
    """One line of a leaderboard; values that a trial has not reached are None.

    Attributes:
        label: The trial's number, or ``base``.
        state: ``complete``, ``pruned``, ``infeasible`` (it does not fit into memory), ``fail``,
            ``running``, ``paused`` (trained in part), ``waiting``, ``base``, or ``reference``
            (known from elsewhere).
        score: By ``scoring.metric``, with its 95 % interval from ``low`` to ``high``.
        confirmed: Mean score of the same settings with new seeds.
        faults: The number of answers with each fault: empty, cut and so on.
        val_loss: Of the best evaluation, nats per token; ``best_iteration`` is its iteration.
        similarity: Mean cosine on the validation prompts.
        time_s: From start to end; ``train_time_s`` of that training alone.
        adapter_bytes: The size of its best adapter's file.
        nats_per_byte: ``val_loss`` per byte, if the study has several models; else None.
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
    footprint_bytes: int | None = None
    train_time_s: float | None = None
    adapter_bytes: int | None = None

    __repr__ = short_repr


def leaderboard(study: optuna.Study) -> list[TrialRow]:
    """All trials, best first, with the baselines placed by their scores.

    The winner is the first of the trials. The other complete ones rank by score, then paused and
    pruned ones by validation loss, then the others.
    """
    best = winner(study)  # before the rows are read: another machine may end a trial meanwhile
    again = {each.trial_number: each.mean for each in confirmations(study)}
    rows = [trial_row(trial) for trial in study.get_trials(deepcopy=False)]
    if again:
        rows = [replace(row, confirmed=again.get(int(row.label))) for row in rows]
    for each in baselines(study):
        known = _known(each.values)
        settings = {MODEL: each.model} if each.model else {}
        rows.append(TrialRow(each.label, "base", settings, **{**known, "score": each.score}))
    references = study.user_attrs.get(REFERENCES, {})
    rows += [TrialRow(name, "reference", {}, score=value) for name, value in references.items()]
    order = ["complete", "base", "paused", "pruned", "fail", "infeasible", "running", "waiting"]

    def rank(row: TrialRow) -> tuple[int, float, float]:
        place = 0 if row.score is not None else order.index(row.state)
        losses = (row.nats_per_byte, row.val_loss, float("inf"))
        loss = next(each for each in losses if each is not None)
        return place, -(row.score or 0.0), loss

    ordered = sorted(rows, key=rank)
    if best is not None:  # by new seeds, not by its own score
        first = next(at for at, row in enumerate(ordered) if row.state == "complete")
        at = next(at for at, row in enumerate(ordered) if row.label == str(best.number))
        ordered.insert(first, ordered.pop(at))
    return ordered


def trial_row(trial: FrozenTrial) -> TrialRow:
    """A trial as a line of a leaderboard."""
    known = _known(trial.user_attrs)
    if trial.state == TrialState.COMPLETE:
        known["score"] = trial.value
        if FAULT in trial.user_attrs:  # its result came just as it was given up
            known.pop("reason", None)
    if trial.duration is not None:  # by the system's clock, which may have been set
        known.setdefault("time_s", max(0.0, trial.duration.total_seconds()))
    settings = trial.params or trial.system_attrs.get("fixed_params", {})  # the latter: waiting
    state = state_of(trial)
    if state == "paused":
        at = f"at iteration {trial.last_step}"
        known["reason"] = "interrupted" if is_interrupted(trial) else at
    return TrialRow(str(trial.number), state, settings, **known)


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: values[key] for key in TrialRow.__dataclass_fields__ if key in values}


@dataclass(frozen=True)
class StudyRow:
    """One line of the list of studies.

    Attributes:
        trials: How many there are, by state.
        best_trial: Its number; ``best_score`` and ``base_score`` are by the study's metric. None
            where nothing was measured yet.
        use: The number of the trial to use; None where none is better than the untuned model.
    """

    name: str
    description: str
    trials: Mapping[str, int]
    best_trial: int | None
    best_score: float | None
    base_score: float | None
    use: int | None


def list_studies(storage: BaseStorage, place: Place) -> list[StudyRow]:
    """Each study with its trials counted, its best score and the base's."""
    found = []
    for name in study_names(storage):
        # Studies with any name.
        study = read_trials(optuna.load_study(storage=storage, study_name=name))
        states = Counter(map(state_of, study.get_trials(deepcopy=False)))
        best, base = winner(study), study.user_attrs.get(BASE)
        found.append(
            StudyRow(
                name=name,
                description=study.user_attrs.get(DESCRIPTION, ""),
                trials=dict(states),
                best_trial=None if best is None else best.number,
                best_score=None if best is None else best.value,
                base_score=None if base is None else score_of(base),
                use=None if best is None else _use(study, place),
            )
        )
    return found


def _use(study: optuna.Study, place: Place) -> int | None:
    try:
        return trial_to_use(study, place)
    except (HawsweepError, LookupError, TypeError, ValueError):
        return None  # a damaged file, or a name without a folder: commands that need them tell


def loss_curve(trial: FrozenTrial) -> tuple[tuple[int, float], ...]:
    """A trial's iterations and the validation losses there, in nats per token."""
    per_byte = trial.user_attrs.get(TARGETS_PER_BYTE, 1.0)
    values = sorted(trial.intermediate_values.items())
    return tuple((step, -value / per_byte) for step, value in values)
