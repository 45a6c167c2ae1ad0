"""Scores by the groups of a data set."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna

from hawsweep.files import read_json_lines
from hawsweep.layout import SAMPLE_FILES
from hawsweep.scoring.intervals import LEVEL, Interval, difference_interval
from hawsweep.study.baselines import base_dir_of, score_of
from hawsweep.study.confirm import winner
from hawsweep.study.place import Place
from hawsweep.study.trials import read_test
from hawsweep.text import counted

# Groups with fewer prompts are one row.
FEWEST_PROMPTS = 5


@dataclass(frozen=True)
class GroupRow:
    """The judged trial's gain over the base on the prompts of one group.

    Attributes:
        group: Its name; ``others (3 groups)`` for all groups of few prompts.
    """

    group: str
    n_prompts: int
    base: float
    trial: float
    gain: Interval


def groups(study: optuna.Study, place: Place) -> list[GroupRow]:
    """The base and the best trial by the records' ``group``, largest loss first.

    The prompts are those of the test split if it was opened, else the validation prompts.
    Without groups the list is empty.
    """
    test = read_test(study)
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
    """Samples of the same prompts by group, the largest loss first, groups of few prompts as one
    row at the end; empty without groups, or if the prompts differ.
    """
    pairs: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    if len(before) == len(after):
        for one, other in zip(before, after, strict=True):
            if one.get("group") is not None:
                pairs[one["group"]].append((score_of(one), score_of(other)))
    few = [group for group, scores in pairs.items() if len(scores) < FEWEST_PROMPTS]
    others = [each for group in few for each in pairs.pop(group)]
    # One of many is far off by chance.
    level = 1 - (1 - LEVEL) / max(1, len(pairs) + bool(others))
    rows = sorted((_row(*each, level) for each in pairs.items()), key=lambda row: row.gain.mean)
    if others:
        rows.append(_row(f"others ({counted(len(few), 'group')})", others, level))
    return rows


def _row(group: str, scores: Sequence[tuple[float, float]], level: float) -> GroupRow:
    first, second = np.array(scores).T
    gain = difference_interval(second, first, level=level)
    return GroupRow(group, len(scores), float(first.mean()), float(second.mean()), gain)
