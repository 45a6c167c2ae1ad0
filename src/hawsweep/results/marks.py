"""Answers that a person marked right or wrong in a report, and whether the score separates them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from pydantic import TypeAdapter, ValidationError

from hawsweep.errors import ScoringError
from hawsweep.files import read_json_lines, read_regular
from hawsweep.layout import SAMPLE_FILES
from hawsweep.scoring.intervals import Interval, share_interval
from hawsweep.study.baselines import (
    base_dir_of,
    few_shot_values,
    model_of,
    prompt_text,
    score_of,
)
from hawsweep.study.place import Place
from hawsweep.study.trials import trial_of

# A stranger may have written the file.
_MOST_BYTES = 10_000_000


@dataclass(frozen=True)
class Mark:
    """An answer, and whether it is right."""

    source: str
    output: str
    right: bool


@dataclass(frozen=True)
class Marks:
    """A file of marks, as a report saves it."""

    study: str
    trial: int
    split: Literal["test", "validation"]
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class MarkedSystem:
    """The marked answers of one system.

    Attributes:
        share: Of those that are right.
    """

    name: str
    n_marked: int
    n_right: int
    share: Interval


@dataclass(frozen=True)
class Marking:
    """What marks say of a study.

    Attributes:
        systems: Those with marked answers. An answer that several give counts for each.
        n_unknown: Marks of answers that the study does not have.
        n_right: Different marked answers that are right; ``n_wrong``: that are wrong.
        separation: The share of pairs of a right and a wrong answer in which the right one has the
            higher score, ties as half (the area under the ROC curve); None without both kinds.
    """

    study: str
    trial: int
    split: str
    systems: tuple[MarkedSystem, ...]
    n_unknown: int
    n_right: int
    n_wrong: int
    separation: float | None

    def sentences(self) -> list[str]:
        """The same in words."""
        said = [
            f"{each.name}: {each.n_right} of {each.n_marked} marked {self.split} answers are "
            f"right, {100 * each.share.mean:.0f} % (95 % {100 * each.share.low:.0f} to "
            f"{100 * each.share.high:.0f} %)."
            for each in self.systems
        ]
        kinds = f"{self.n_right} right and {self.n_wrong} wrong answers"
        if self.separation is None:
            said.append(f"{kinds}: whether the score separates them takes both kinds.")
        else:
            said.append(
                f"In {100 * self.separation:.0f} % of the pairs of {kinds} the right one has the "
                "higher score; 50 % is chance, 100 % separates them."
            )
        if self.n_unknown:
            said.append(
                f"{self.n_unknown} mark{'s are' if self.n_unknown > 1 else ' is'} of answers that "
                "the study does not have now."
            )
        return said

    def to_plain(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "sentences": self.sentences()}


def read_marks(path: Path) -> Marks:
    """The marks of a file.

    Raises:
        ScoringError: It cannot be read, or is no file of marks.
    """
    try:
        found = TypeAdapter(Marks).validate_json(read_regular(path, _MOST_BYTES), strict=True)
    except OSError as fault:
        raise ScoringError(f"{path} cannot be read: {fault.strerror}.") from fault
    except ValidationError as fault:
        first = fault.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ScoringError(
            f"{path} is no file of marks: {where}: {first['msg'][:200]}. Save it in the report of "
            "a study, by `Save marks`."
        ) from fault
    if not found.marks:
        raise ScoringError(f"{path} has no marks. Mark answers in the report, and save them again.")
    return found


def score_marks(study: optuna.Study, place: Place, marks: Marks) -> Marking:
    """How many marked answers of each system are right, and whether their scores tell.

    Raises:
        ScoringError: None of the marks is of an answer of the study.
        StudyError: The study has no such trial.
    """
    right = {(each.source, each.output): each.right for each in marks.marks}
    scores: dict[tuple[str, str], float] = {}
    systems = []
    for name, samples in _answers(study, place, marks):
        found = {(each["source"], each["output"]): score_of(each) for each in samples}
        marked = [key for key in found if key in right]
        scores |= {key: found[key] for key in marked}
        if marked:
            n_right = sum(right[key] for key in marked)
            share = share_interval(n_right, len(marked))
            systems.append(MarkedSystem(name, len(marked), n_right, share))
    if not scores:
        raise ScoringError(
            f"None of the {len(right)} marked answers is one of study {marks.study!r}, trial "
            f"{marks.trial}, on the {marks.split} prompts. Mark the answers of its present report."
        )
    above = [score for key, score in scores.items() if right[key]]
    below = [score for key, score in scores.items() if not right[key]]
    return Marking(
        marks.study,
        marks.trial,
        marks.split,
        tuple(systems),
        len(right) - len(scores),
        len(above),
        len(below),
        _separation(above, below),
    )


def _answers(
    study: optuna.Study, place: Place, marks: Marks
) -> Iterator[tuple[str, Sequence[Mapping[str, Any]]]]:
    """The answers of each system, by its name."""
    base = base_dir_of(study, place, marks.trial)
    chosen = few_shot_values(study, model_of(study, trial_of(study, marks.trial)))
    prefix = "test_" if marks.split == "test" else ""
    for system, name, folder in (
        ("trial", f"trial {marks.trial}", place.trial_dir(study.study_name, marks.trial)),
        ("base", "untuned model", base),
        ("few_shot", f"untuned model with {prompt_text(chosen) or 'examples'}", base),
    ):
        yield name, read_json_lines(folder / f"{prefix}{SAMPLE_FILES[system]}")


def _separation(above: Sequence[float], below: Sequence[float]) -> float | None:
    from scipy.stats import mannwhitneyu

    if not above or not below:
        return None
    return float(mannwhitneyu(above, below).statistic) / (len(above) * len(below))
