"""Two systems of a study compared on the same prompts, item by item."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from hawsweep.errors import ScoringError
from hawsweep.files import read_json_lines
from hawsweep.layout import SAMPLE_FILES
from hawsweep.results.groups import GroupRow, by_group
from hawsweep.scoring.intervals import Interval, difference_interval
from hawsweep.study.baselines import base_dir_of, baseline_of, score_of
from hawsweep.study.confirm import chosen_trial
from hawsweep.study.place import Place
from hawsweep.study.trials import trial_of
from hawsweep.text import counted

Answers = list[dict[str, Any]]


@dataclass(frozen=True)
class Item:
    """One prompt and both answers; ``gain`` is the second's score minus the first's."""

    source: str
    reference: str
    outputs: tuple[str, str]
    scores: tuple[float, float]
    group: str | None
    gain: float


@dataclass(frozen=True)
class Comparison:
    """The second system compared with the first.

    Attributes:
        n_better: Items on which the second scores higher.
        n_worse: Items on which the second scores lower.
        items: The largest loss first, the largest gain last.
        differing: The settings that are not the same in both, by key; empty beside the base.
        test: The gain on the test prompts, between two studies whose winners answered them.
    """

    labels: tuple[str, str]
    gain: Interval
    n_better: int
    n_worse: int
    items: tuple[Item, ...]
    groups: tuple[GroupRow, ...]
    differing: Mapping[str, tuple[Any, Any]]
    test: Interval | None = None


def compare(
    study: optuna.Study, place: Place, first: int | None = None, second: int | None = None
) -> Comparison:
    """Compare two trials on the validation prompts.

    Args:
        first: A trial; None for the base.
        second: A trial; None for the best.

    Raises:
        ScoringError: One of them has not answered the prompts.
        StudyError: There is no such trial.
    """
    if second is None:
        second = chosen_trial(study).number
    one = _base_answers(study, place, second) if first is None else answers_of(study, place, first)
    differing = {} if first is None else _differing(study, first, second)
    return compare_answers(one, answers_of(study, place, second), differing)


def compare_answers(
    first: tuple[str, Answers],
    second: tuple[str, Answers],
    differing: Mapping[str, tuple[Any, Any]],
    test: Interval | None = None,
) -> Comparison:
    """Compare two systems, each a label and its answers to the validation prompts.

    Raises:
        ScoringError: They did not answer the same number of prompts.
    """
    (one, before), (other, after) = first, second
    if len(before) != len(after):
        raise ScoringError(
            f"{one} answered {counted(len(before), 'prompt')} and {other} {len(after)}: they "
            "cannot be paired."
        )
    pairs = zip(before, after, strict=True)
    items = sorted((_item(*pair) for pair in pairs), key=lambda item: item.gain)
    return Comparison(
        labels=(one, other),
        gain=difference_interval([*map(score_of, after)], [*map(score_of, before)]),
        n_better=sum(item.gain > 0 for item in items),
        n_worse=sum(item.gain < 0 for item in items),
        items=tuple(items),
        groups=tuple(by_group(before, after)),
        differing=differing,
        test=test,
    )


def _differing(study: optuna.Study, first: int, second: int) -> dict[str, tuple[Any, Any]]:
    one, other = (trial_of(study, number).params for number in (first, second))
    pairs = {key: (one.get(key), other.get(key)) for key in {**one, **other}}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _item(before: Mapping[str, Any], after: Mapping[str, Any]) -> Item:
    return Item(
        source=before["source"],
        reference=before["reference"],
        outputs=(before["output"], after["output"]),
        scores=(score_of(before), score_of(after)),
        group=before.get("group"),
        gain=score_of(after) - score_of(before),
    )


def _base_answers(study: optuna.Study, place: Place, trial_number: int) -> tuple[str, Answers]:
    """The answers of the untuned model that a trial trained."""
    untuned = baseline_of(study, trial_of(study, trial_number))
    label = "base" if untuned is None else untuned.label
    return _read(label, base_dir_of(study, place, trial_number) / SAMPLE_FILES["base"])


def answers_of(study: optuna.Study, place: Place, number: int) -> tuple[str, Answers]:
    """A trial's label, and its answers to the validation prompts.

    Raises:
        ScoringError: It has not answered them.
        StudyError: There is no such trial.
    """
    trial_of(study, number)
    folder = place.trial_dir(study.study_name, number)
    return _read(f"trial {number}", folder / SAMPLE_FILES["trial"])


def _read(label: str, path: Path) -> tuple[str, Answers]:
    found = read_json_lines(path)
    if not found:
        raise ScoringError(
            f"{label} has not answered the validation prompts: complete trials have, and the base "
            "once it is measured. `hawsweep status NAME` shows which those are."
        )
    return label, found
