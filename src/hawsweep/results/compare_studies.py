"""The winners of two studies compared on the same prompts: another model, data or version."""

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from hawsweep.errors import ScoringError
from hawsweep.files import read_json_lines
from hawsweep.layout import SAMPLE_FILES
from hawsweep.results.compare_trials import Answers, Comparison, answers_of, compare_answers
from hawsweep.scoring.intervals import Interval, difference_interval
from hawsweep.spec.space import by_dotted_key
from hawsweep.spec.sweep import SweepSpec
from hawsweep.study.attributes import SPEC, VERSIONS
from hawsweep.study.baselines import score_of
from hawsweep.study.confirm import chosen_trial
from hawsweep.study.place import Place
from hawsweep.study.study import known_spec
from hawsweep.study.trials import n_records, train_of, was_tested

# The keys of ``scoring`` that decide a score besides the answer.
_METRIC_KEYS = ("metric", "embedder", "embedder_prompt")
_VERSIONS = ("hawsweep", "mlx", "mlx-lm")


def compare_studies(first: optuna.Study, second: optuna.Study, place: Place) -> Comparison:
    """Compare the second study's winner with the first's: on the validation prompts, and on the
    test prompts if both answered the same ones.

    Raises:
        ScoringError: Their metrics or validation prompts differ.
        StudyError: A study has no winner.
    """
    studies = (first, second)
    winners = [chosen_trial(study) for study in studies]
    _check_metrics(first, second)
    answers = [
        answers_of(study, place, trial.number)
        for study, trial in zip(studies, winners, strict=True)
    ]
    before, after = (each for _, each in answers)
    if _prompts(before) != _prompts(after):
        n_shared = len({*_prompts(before)} & {*_prompts(after)})
        raise ScoringError(
            f"{_names(first, second)} their validation prompts differ ({len(before)} and "
            f"{len(after)}, {n_shared} in both). Start both with the same data, seed and "
            "scoring.max_examples."
        )
    one, other = (
        f"{study.study_name} trial {trial.number}"
        for study, trial in zip(studies, winners, strict=True)
    )
    made = [_made_of(study, trial) for study, trial in zip(studies, winners, strict=True)]
    keys = {**made[0], **made[1]}
    pairs = {key: (made[0].get(key), made[1].get(key)) for key in keys}
    differing = {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
    test = _on_test(studies, winners, place)
    return compare_answers((one, before), (other, after), differing, test)


def _names(first: optuna.Study, second: optuna.Study) -> str:
    return f"Studies {first.study_name!r} and {second.study_name!r} cannot be compared:"


def _check_metrics(first: optuna.Study, second: optuna.Study) -> None:
    one, other = ({**_scoring(study)} for study in (first, second))
    for key, value in one.items():
        if value != other[key]:
            raise ScoringError(
                f"{_names(first, second)} {key} is {value} in the first and {other[key]} in the "
                "second."
            )


def _scoring(study: optuna.Study) -> dict[str, Any]:
    stored = study.user_attrs.get(SPEC, {})
    asked = stored.get("scoring", {})
    known = {f"scoring.{key}": asked.get(key) for key in _METRIC_KEYS}
    return {**known, "the metric's module": stored.get("fingerprints", {}).get("metric")}


def _prompts(answers: Answers) -> list[tuple[str, str]]:
    return [(each["source"], each["reference"]) for each in answers]


def _made_of(study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
    """What a winner was made of, by key."""
    versions = study.user_attrs.get(VERSIONS, {})
    known = {f"version of {name}": versions.get(name) for name in _VERSIONS}
    known["number of training records"] = n_records(study, "train")
    spec: SweepSpec | None = known_spec(study)
    if spec is None:
        return {**trial.params, **known}
    data = ", ".join(each.path for each in spec.data)
    train = train_of(spec, trial).model_dump(mode="json")
    return {"model": spec.model_of(trial.params), "data": data, **known, **by_dotted_key(train)}


def _on_test(
    studies: Sequence[optuna.Study], winners: Sequence[FrozenTrial], place: Place
) -> Interval | None:
    found: list[Answers] = []
    for study, trial in zip(studies, winners, strict=True):
        if not was_tested(study, trial.number):
            return None
        folder = place.trial_dir(study.study_name, trial.number)
        found.append(read_json_lines(folder / f"test_{SAMPLE_FILES['trial']}"))
    before, after = found
    if not before or _prompts(before) != _prompts(after):
        return None
    return difference_interval([*map(score_of, after)], [*map(score_of, before)])
