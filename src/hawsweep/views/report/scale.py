"""The judged trial and its untuned model on the way from chance to right."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna

from hawsweep.results.verdict import untuned_text
from hawsweep.study.attributes import SELF_CHECK
from hawsweep.study.baselines import baselines, model_of, score_of
from hawsweep.study.confirm import winner
from hawsweep.study.trials import read_test
from hawsweep.text import score_range

_PER_CENT = 100.0


@dataclass(frozen=True)
class Mark:
    """A system on the scale, with places in percent of its width.

    Attributes:
        kind: ``trial``, ``few_shot`` or ``base``.
        range: The interval of the score in words; empty without one, as are then ``low_at`` and
            ``high_at`` the score's place.
    """

    kind: str
    name: str
    score: str
    range: str
    at: float
    low_at: float
    high_at: float


@dataclass(frozen=True)
class Scale:
    """Scores between what another prompt's reference scores and what the right one scores.

    Attributes:
        split: ``test`` if the trial was tested, else ``validation``.
        marks: The trial first.
    """

    split: str
    chance: str
    right: str
    chance_at: float
    right_at: float
    marks: tuple[Mark, ...]


def make_scale(study: optuna.Study) -> Scale | None:
    """The scale of a study; None before it has a self-check and a complete trial."""
    check, best = study.user_attrs.get(SELF_CHECK), winner(study)
    if best is None or not check or not check["ceiling"] > check["floor"]:
        return None
    untuned = [each for each in baselines(study) if each.model == model_of(study, best)]
    known = {each.kind: each.values for each in untuned}
    tested = read_test(study) or {}
    is_tested = tested.get("trial_number") == best.number
    values = tested if is_tested else {**known, "trial": {"score": best.value, **best.user_attrs}}
    names = {each.kind: system_name(each.label) for each in untuned}
    found = [
        (kind, name, values[kind])
        for kind, name in {"trial": f"trial {best.number}", **dict(reversed(names.items()))}.items()
        if values.get(kind)
    ]
    scores = [score_of(each) for *_, each in found]
    low, high = min(check["floor"], *scores), max(check["ceiling"], *scores)

    def at(value: float) -> float:
        share = min(1.0, max(0.0, (value - low) / (high - low)))
        return round(float(_PER_CENT * share), 2)

    def mark(kind: str, name: str, values: Mapping[str, Any]) -> Mark:
        score, ends = score_of(values), (values.get("low"), values.get("high"))
        text = score_range(*ends, is_short=False)
        low_at, high_at = (at(score if end is None else end) for end in ends)
        return Mark(kind, name, f"{score:.4f}", text, at(score), low_at, high_at)

    return Scale(
        "test" if is_tested else "validation",
        f"{check['floor']:.3f}",
        f"{check['ceiling']:.3f}",
        at(check["floor"]),
        at(check["ceiling"]),
        tuple(mark(*each) for each in found),
    )


def system_name(label: str) -> str:
    """A system's label in the words of the headline, without their article."""
    return untuned_text(label).removeprefix("the ")
