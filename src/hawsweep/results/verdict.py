"""Verdicts: which trial to use, if any; made here once, and said by every surface in these words.

Every comparison is on the same items and has an interval. The winner was chosen by its score on the
validation items, so its gain there is too high by chance. If there is a test split, only its items
decide whether the winner is to be used.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna.trial import FrozenTrial, TrialState

from hawsweep.layout import SAMPLE_FILES
from hawsweep.results.retention import Retention, retention_of
from hawsweep.results.translations import translations
from hawsweep.scoring.intervals import LEVEL, Interval, difference_interval
from hawsweep.spec.space import MODEL, Choices, apply_settings, corners
from hawsweep.spec.sweep import SweepSpec, short_names
from hawsweep.study.attributes import ITERS, PLAN, SELF_CHECK
from hawsweep.study.baselines import base_dir, baselines, prompt_text, scores_of
from hawsweep.study.confirm import best_of_all, chosen_trial, winner
from hawsweep.study.place import Place
from hawsweep.study.study import known_spec
from hawsweep.study.trials import n_records, was_tested
from hawsweep.text import finite, setting, short_name

Scores = npt.NDArray[np.floating[Any]]
_BASELINE = re.compile(
    r"(?:(?P<n_examples>\d+)-shot )?base(?:, instruction (?P<instruction>\d+))?(?: (?P<model>.+))?"
)


@dataclass(frozen=True)
class Cost:
    """What a trial takes by its settings, which no clock decides.

    Attributes:
        n_examples: That it trains on, each as often as it comes.
        rank: Of its adapter.
        peak_bytes: As predicted; 0 where nothing was.
    """

    n_examples: int
    rank: int
    peak_bytes: int = 0

    def less_than(self, other: "Cost") -> str:
        """By how much it is less in words; empty where it is not, or more in something."""
        if self.n_examples > other.n_examples or self.rank > other.rank:
            return ""
        less = []
        if self.n_examples < other.n_examples:
            less.append(f"{1 - self.n_examples / other.n_examples:.0%} fewer examples")
        if self.rank < other.rank:
            less.append(f"rank {self.rank}, not {other.rank}")
        if less and 0 < self.peak_bytes < 0.95 * other.peak_bytes:
            less.append(f"{(other.peak_bytes - self.peak_bytes) / 1e9:.2g} GB less")
        return ", ".join(less)


@dataclass(frozen=True)
class Candidate:
    """A trial or baseline with its scores.

    Attributes:
        label: ``trial 7``, ``base``, ``4-shot base``.
        scores: On the validation items, ``[items]``.
        test_scores: On the test items; None if it was not tested.
        cost: None for a baseline, and where the settings are not known.
        model: Its base model, if the study has several; else empty.
        choices: Its values of the keys that the sweep chooses from.
    """

    label: str
    scores: Scores
    test_scores: Scores | None = None
    cost: Cost | None = None
    model: str = ""
    choices: Mapping[str, Any] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """The mean score on the validation items."""
        return float(np.mean(self.scores))


@dataclass(frozen=True)
class Lead:
    """The winner's lead over another candidate, on the same items.

    Attributes:
        model: The other's base model, if the study has several.
    """

    label: str
    gain: Interval
    on_test: bool
    model: str = ""


@dataclass(frozen=True)
class Verdict:
    """The conclusions from a study's scores.

    Attributes:
        winner: The label of the best trial: by new seeds, else by validation items.
        ships: Whether it is better than every baseline, and so the trial to use.
        baselines: The winner against each baseline of its own model, and against the best baseline
            of all if that is another model's.
        runner_up: The winner against the next trial, on the validation items; None without one.
        models: In a study of several models, the winner against the best trial of each other
            model, on the validation items, the best first.
        ties: Trials not told apart from the winner, best first.
        cheaper: The one of them that takes least by its settings, if that is less than the
            winner; else empty.
        sentences: The same in words. The first is the recommendation.
        retention: What the winner lost of what the untuned model could do; None where that was not
            asked, or not answered yet.
    """

    winner: str
    ships: bool
    baselines: tuple[Lead, ...]
    runner_up: Lead | None
    ties: tuple[str, ...]
    cheaper: str
    sentences: tuple[str, ...]
    models: tuple[Lead, ...] = ()
    retention: Retention | None = None

    def __str__(self) -> str:
        return " ".join(self.sentences)

    @property
    def use(self) -> int | None:
        """The number of the trial to use; None where none is better than the untuned model."""
        return int(self.winner.removeprefix("trial ")) if self.ships else None


def judge(
    trials: Sequence[Candidate],
    baselines: Sequence[Candidate],
    *,
    winner: str | None = None,
    n_chosen_from: int | None = None,
    advice: str = "",
    quality: Sequence[str] = (),
    preferred: str = "",
    retention: Retention | None = None,
) -> Verdict | None:
    """Compare the best trial with the baselines and with the other trials; None without a trial, or
    without the winner's answers.

    Args:
        winner: The label of the trial to judge; by default the one that is best on the validation
            items. Tests, where there are any, are of this one.
        n_chosen_from: The number of trials that the winner was chosen from, if it is larger than
            the number of ``trials``.
        advice: What to do where no trial is to be used, as a sentence.
        quality: Sentences on how many of the winner's answers are right.
        preferred: The label of the best trial, if the winner is preferred as it takes less.
    """
    ranked = sorted(trials, key=lambda each: -each.mean)
    best = next((each for each in ranked if winner in (None, each.label)), None)
    if best is None:
        return None
    others = [each for each in ranked if each is not best]
    n_trials = max(len(trials), n_chosen_from or 0)
    against = tuple(_against_baseline(best, each, n_trials) for each in _to_beat(best, baselines))
    with_trials = [
        Lead(
            each.label,
            difference_interval(best.scores, each.scores),
            on_test=False,
            model=each.model,
        )
        for each in others
    ]
    first_of_models = {each.model: each for each in reversed(with_trials)}
    first_of_models.pop(best.model, None)
    ties = tuple(each.label for each in with_trials if not each.gain.excludes_zero)
    cheaper, less = _cheapest(best, [each for each in others if each.label in ties])
    costlier = next((each for each in others if each.label == preferred), None)
    verdict = Verdict(
        best.label,
        bool(against) and all(each.gain.low > 0 for each in against),
        against,
        with_trials[0] if with_trials else None,
        ties,
        cheaper,
        (),
        tuple(each for each in with_trials if each is first_of_models.get(each.model)),
    )
    kept = [] if retention is None else [retention.sentence()]
    said = [*quality, *kept, *_preference(best, costlier)]
    sentences = _sentences(verdict, less, best.model, advice, said)
    sentences += _by_choice(best, zip(others, with_trials, strict=True))
    return replace(verdict, sentences=tuple(sentences), retention=retention)


def _cheapest(best: Candidate, tied: Sequence[Candidate]) -> tuple[str, str]:
    """The label of the trial that takes least of those not told apart from the best, if that is
    less than the best, and by how much; else empty.
    """
    if best.cost is None:
        return "", ""
    costs = [(each.cost, -each.mean, each.label) for each in tied if each.cost is not None]
    for cost, _, label in sorted(
        costs, key=lambda each: (each[0].n_examples, each[0].rank, each[1])
    ):
        if less := cost.less_than(best.cost):
            return label, less
    return "", ""


def _preference(chosen: Candidate, costlier: Candidate | None) -> Iterator[str]:
    if costlier is not None and chosen.cost is not None and costlier.cost is not None:
        yield (
            f"{chosen.label} is preferred to {costlier.label}, the best one, since it takes less: "
            f"{chosen.cost.less_than(costlier.cost)} (prefer: cheap)."
        )


def _to_beat(best: Candidate, baselines: Sequence[Candidate]) -> list[Candidate]:
    """The baselines of the winner's model, and the best of all: another may need no tuning."""
    strongest = max(baselines, key=lambda each: (each.mean, each.model == best.model), default=None)
    return [each for each in baselines if each.model == best.model or each is strongest]


def _against_baseline(best: Candidate, baseline: Candidate, n_trials: int) -> Lead:
    if best.test_scores is not None and baseline.test_scores is not None:
        gain = difference_interval(best.test_scores, baseline.test_scores)
        return Lead(baseline.label, gain, on_test=True)
    # It is the best of several by the same items: each could have been best by chance alone.
    level = 1 - (1 - LEVEL) / n_trials
    gain = difference_interval(best.scores, baseline.scores, level=level)
    return Lead(baseline.label, gain, on_test=False)


def _sentences(
    verdict: Verdict, less: str, model: str, advice: str, quality: Sequence[str]
) -> list[str]:
    said = [_recommendation(verdict)] if verdict.baselines else []
    said += [advice] if said and advice and not verdict.ships else []
    said += quality
    if verdict.ties:
        first, *more = verdict.ties
        others = f" and {len(more)} others" if len(more) > 1 else f" and {more[0]}" if more else ""
        text = f"{verdict.winner} is not told apart from {first}{others} by these prompts"
        if verdict.cheaper:
            text += f"; {verdict.cheaper} takes less: {less}"
        said.append(f"{text}.")
    elif verdict.runner_up is not None:
        gain, other = verdict.runner_up.gain, verdict.runner_up.label
        told = f"is better than {other}, the next one"
        if gain.high < 0:
            told = f"is best by new seeds; its first run scored lower than that of {other}"
        said.append(f"{verdict.winner} {told}: {gain_text(gain)}.")
    return [*said, *_by_model(verdict, model)]


def _by_model(verdict: Verdict, model: str) -> Iterator[str]:
    """Sentences on which base model to train, by the best trial of each."""
    names = short_names([model, *(each.model for each in verdict.models)])
    for each in verdict.models:
        told = "is better than" if each.gain.low > 0 else "is not told apart from"
        told = "is worse than" if each.gain.high < 0 else told
        yield (
            f"{names[model]} {told} {names[each.model]}: {gain_text(each.gain)} over its best, "
            f"{each.label}."
        )


def _by_choice(best: Candidate, others: Iterable[tuple[Candidate, Lead]]) -> Iterator[str]:
    """Sentences on each key that the sweep chooses from: the winner's value and the others, by the
    best trial of each.
    """
    pairs = [(each, lead.gain) for each, lead in others if each.model == best.model]
    for key, value in best.choices.items():
        gains: dict[Any, Interval] = {}
        for each, gain in pairs:
            if key in each.choices:
                gains.setdefault(each.choices[key], gain)
        gains.pop(value, None)
        told = {
            "is better than": [item for item in gains.items() if item[1].low > 0],
            "is worse than": [item for item in gains.items() if item[1].high < 0],
            "is not told apart from": [item for item in gains.items() if not item[1].excludes_zero],
        }
        parts = [
            f"{how} {'; '.join(f'{setting(other)}, {gain_text(gain)}' for other, gain in found)}"
            for how, found in told.items()
            if found
        ]
        if parts:
            said = "; it ".join(parts)
            yield f"{short_name(key)}: {setting(value)} {said}; by the best trial of each."


def _recommendation(verdict: Verdict) -> str:
    least = min(verdict.baselines, key=lambda each: each.gain.low)
    where = "on the test split" if least.on_test else "on the validation prompts it was chosen by"
    gain, untuned = gain_text(least.gain), untuned_text(least.label)
    if verdict.ships:
        return f"Use {verdict.winner}: it is better than {untuned}, {gain} {where}."
    if least.gain.high < 0:
        return f"Use no trial: {verdict.winner} is worse than {untuned}, {gain} {where}."
    told = "is not told apart from"
    return f"Use no trial yet: {verdict.winner} {told} {untuned}, {gain} {where}."


def untuned_text(label: str) -> str:
    """A baseline's label in words: ``the untuned model with 4 examples and instruction 2`` for
    ``4-shot base, instruction 2``.
    """
    found = _BASELINE.fullmatch(label)
    if found is None:
        return label
    name = f"untuned {found['model']}" if found["model"] else "the untuned model"
    prompt = {key: int(found[key] or 0) for key in ("n_examples", "instruction")}
    return f"{name} with {prompt_text(prompt)}" if any(prompt.values()) else name


def gain_text(gain: Interval) -> str:
    """``+0.31 (95 % 0.27 to 0.35)``; the interval's width decides the digits."""
    digits = 2 if gain.high - gain.low > 0.02 else 3 if gain.high - gain.low > 0.002 else 4
    ends = f"{gain.low:.{digits}f} to {gain.high:.{digits}f}"
    if math.isinf(gain.high):  # few prompts with nearly equal values
        digits = 3
        ends = f"at least {gain.low:.{digits}f}" if math.isfinite(gain.low) else "not known"
    elif math.isinf(gain.low):
        ends = f"at most {gain.high:.{digits}f}"
    return f"{gain.mean:+.{digits}f} ({100 * gain.level:.5g} % {ends})"


# The most trials that a verdict compares: thousands would take minutes.
_MOST_JUDGED = 50


def judge_study(study: optuna.Study, place: Place, *, alone: bool = False) -> Verdict | None:
    """The verdict on a study; None before its first complete trial, or where the winner's answers
    are not on this machine.

    The winner is compared with the next best trials only.

    Args:
        alone: Not with other trials at all, which takes less time.
    """
    name, chosen = study.study_name, winner(study)
    if chosen is None:
        return None
    is_tested = was_tested(study, chosen.number)
    untuned = [
        _candidate(
            each.label,
            base_dir(place, name, each.model),
            each.kind,
            is_tested=is_tested,
            model=each.model,
        )
        for each in baselines(study)
    ]
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    ranked = sorted(complete, key=lambda trial: -(trial.value or 0.0))
    best = {chosen.number}
    if not alone:
        best |= {trial.number for trial in ranked[:_MOST_JUDGED]}
        of_models = {trial.params.get(MODEL): trial.number for trial in reversed(ranked)}
        best |= set(of_models.values())  # the best of each model is compared too
    spec = known_spec(study)
    trials = [
        _candidate(
            f"trial {trial.number}",
            place.trial_dir(name, trial.number),
            "trial",
            is_tested=is_tested and trial.number == chosen.number,
            cost=None if spec is None else cost_of(spec, trial),
            model=trial.params.get(MODEL, ""),
            choices={} if spec is None else _choices(spec, trial),
        )
        for trial in complete
        if trial.number in best
    ]
    answers = None if alone else translations(study, place)
    n_prompts = max((len(each.scores) for each in (*trials, *untuned)), default=0)
    whole = [each for each in trials if len(each.scores) == n_prompts > 0]
    return judge(
        whole,
        [each for each in untuned if len(each.scores) == n_prompts],
        winner=f"trial {chosen.number}",
        n_chosen_from=len(complete),
        advice=_advice(study, spec),
        preferred=_costlier(study, chosen),
        quality=() if answers is None else answers.sentences(),
        retention=None if alone else retention_of(study, place, spec, chosen),
    )


def without_verdict(study: optuna.Study) -> str:
    """Why a study has no verdict, in a sentence."""
    if (best := winner(study)) is None:
        return "No trial is complete yet."
    return f"No verdict: the answers of trial {best.number}, the best, are not on this machine."


def _costlier(study: optuna.Study, chosen: FrozenTrial) -> str:
    """The label of the best trial, if another one is used in its place; else empty."""
    best = best_of_all(study)
    return "" if best is None or best.number == chosen.number else f"trial {best.number}"


def trial_to_use(study: optuna.Study, place: Place) -> int | None:
    """The number of the trial to use; None where no trial is better than the untuned model, or
    nothing tells.
    """
    verdict = judge_study(study, place, alone=True)
    return None if verdict is None else verdict.use


def recommended_or_best(study: optuna.Study, place: Place) -> tuple[int, bool]:
    """The number of the best trial, and whether it is to be used.

    Raises:
        StudyError: No trial is complete.
    """
    return chosen_trial(study, is_complete=False).number, trial_to_use(study, place) is not None


def cost_of(spec: SweepSpec, trial: FrozenTrial) -> Cost | None:
    """What a trial takes by its settings; None where they are not known or it has no rank."""
    if not trial.params.keys() >= spec.search.keys():  # of another program
        return None
    train = apply_settings(spec.train, {key: trial.params[key] for key in spec.search})
    if train.fine_tune_type == "full":  # without a rank to compare
        return None
    peak = (trial.user_attrs.get(PLAN) or {}).get("peak_bytes") or 0
    iters = trial.user_attrs.get(ITERS, train.iters)
    return Cost(iters * train.batch_size, train.lora_parameters.rank, int(peak))


def _choices(spec: SweepSpec, trial: FrozenTrial) -> dict[str, Any]:
    chosen = (key for key, asked in spec.search.items() if isinstance(asked, Choices))
    return {key: trial.params[key] for key in chosen if key != MODEL and key in trial.params}


def _advice(study: optuna.Study, spec: SweepSpec | None) -> str:
    """What may help where nothing is to be used, with the numbers of the self-check."""
    check, helps = study.user_attrs.get(SELF_CHECK) or {}, []
    needed, n_prompts = check.get("n_needed") or 0, check.get("n_prompts") or 0
    if needed > n_prompts:
        is_all = n_records(study, "valid") == n_prompts
        more = "more validation records" if is_all else "scoring.max_examples"
        helps.append(
            f"about {needed} prompts, which tell {check['wanted']:.3f} apart "
            f"({more}; here {n_prompts})"
        )
    iters = "" if spec is None else f" (here {max(_iters(spec))})"
    helps += ["more pairs", f"more iterations{iters}", "another model"]
    return f"What may help: {', '.join(helps[:-1])} or {helps[-1]}."


def _iters(spec: SweepSpec) -> list[int]:
    return [int(each.get("iters", spec.train.iters)) for each in corners(spec.search, ("iters",))]


def _candidate(
    label: str,
    folder: Path,
    kind: str,
    *,
    is_tested: bool,
    cost: Cost | None = None,
    model: str = "",
    choices: Mapping[str, Any] | None = None,
) -> Candidate:
    name = SAMPLE_FILES[kind]
    test_scores = scores_of(folder / f"test_{name}") if is_tested else np.empty(0)
    tested = test_scores if len(test_scores) else None
    return Candidate(label, scores_of(folder / name), tested, cost, model, choices or {})


def lead_text(lead: Interval) -> str:
    """A difference with its interval: ``+0.031 (+0.012 to +0.050)``."""
    low, high = finite(lead.low, lead.high)
    return f"{lead.mean:+.3f}" + ("" if low is None else f" ({low:+.3f} to {high:+.3f})")
