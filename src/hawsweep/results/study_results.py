"""The results of a study: for Python programs, and for the end of a start."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import optuna
from optuna.trial import FrozenTrial

from hawsweep.files import read_json_lines
from hawsweep.layout import SAMPLE_FILES
from hawsweep.results.groups import GroupRow, groups
from hawsweep.results.html_table import results_html
from hawsweep.results.leaderboard import TrialRow, leaderboard
from hawsweep.results.verdict import Verdict, judge_study, without_verdict
from hawsweep.spec.sweep import SweepSpec
from hawsweep.study.attributes import SELF_CHECK
from hawsweep.study.baselines import base_dir, base_dir_of, score_of
from hawsweep.study.confirm import Confirmation, confirmations, winner
from hawsweep.study.place import Place, find_place
from hawsweep.study.storage import open_storage
from hawsweep.study.study import load_study, spec_of
from hawsweep.study.trials import read_test, trial_of

if TYPE_CHECKING:
    from hawsweep.scoring.score import Sample


@dataclass(frozen=True)
class EndOfStudy:
    """The values shown at the end of a start.

    Attributes:
        options: Of commands that look at the study; see ``Place.options``.
        test: The scores on the test split; None if it was not opened.
        self_check: See ``self_check.SelfCheck``; None if the base was not measured.
        samples: The answers of base and tested trial to the first test prompts, in pairs.
        best_trial: Its number; None, as ``trial_dir``, before the first complete trial.
    """

    name: str
    options: Sequence[str]
    rows: Sequence[TrialRow]
    test: Mapping[str, Any] | None
    verdict: Verdict | None
    confirmed: Sequence[Confirmation]
    groups: Sequence[GroupRow]
    self_check: Mapping[str, Any] | None
    samples: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]
    best_trial: int | None
    study_dir: Path
    trial_dir: Path | None


def end_of_study(study: optuna.Study, place: Place) -> EndOfStudy:
    """The values shown at the end of a start: leaderboard, test, samples of base and best trial."""
    test = read_test(study)
    samples: list[tuple[dict[str, Any], dict[str, Any]]] = []
    if test is not None:
        base = base_dir_of(study, place, test["trial_number"])
        tuned = place.trial_dir(study.study_name, test["trial_number"])
        before, after = (read_json_lines(folder / "test_samples.jsonl") for folder in (base, tuned))
        samples = list(zip(before, after, strict=False))[:5]
    best = winner(study)
    return EndOfStudy(
        name=study.study_name,
        options=place.options,
        rows=leaderboard(study),
        test=test,
        verdict=judge_study(study, place),
        confirmed=confirmations(study),
        groups=groups(study, place),
        self_check=study.user_attrs.get(SELF_CHECK),
        samples=samples,
        best_trial=None if best is None else best.number,
        study_dir=place.study_dir(study.study_name),
        trial_dir=None if best is None else place.trial_dir(study.study_name, best.number),
    )


@dataclass(frozen=True, eq=False)
class StudyResults:
    """A study and its results. Each call reads the database, so a running study can be watched.

    Attributes:
        study: An ordinary Optuna study, for functions such as those of
            ``optuna.visualization``.
        place: The folder and the database of the study.
    """

    study: optuna.Study
    place: Place

    def __str__(self) -> str:
        return f"{self.name}: {self.verdict() or without_verdict(self.study)}"

    def _repr_html_(self) -> str:
        verdict = self.verdict()
        recommendation = f"{self.name}: {without_verdict(self.study)}"
        if verdict is not None:
            recommendation = verdict.sentences[0]
        use = None if verdict is None else verdict.use
        return results_html(recommendation, self.leaderboard(), use)

    @property
    def name(self) -> str:
        """The study's name."""
        return str(self.study.study_name)

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return self.place.study_dir(self.name)

    @property
    def spec(self) -> SweepSpec:
        """The sweep of the last start."""
        return spec_of(self.study)

    @property
    def best_trial(self) -> FrozenTrial | None:
        """The trial to use: the best by new seeds; before these, the best by its own score.

        None before the first complete trial. ``study.best_trial`` does not use new seeds.
        """
        return winner(self.study)

    @property
    def best_value(self) -> float | None:
        """The score of the trial to use; None before the first complete trial."""
        return None if (best := self.best_trial) is None else best.value

    def leaderboard(self) -> list[TrialRow]:
        """All trials and baselines, best first.

        ``pandas.DataFrame(results.leaderboard())`` makes a frame of it.
        """
        return leaderboard(self.study)

    def verdict(self) -> Verdict | None:
        """The verdict, in words in ``sentences``; None before the first complete trial."""
        return judge_study(self.study, self.place)

    def trial_dir(self, number: int) -> Path:
        """The folder of a trial, with ``adapters/`` if they were kept.

        Raises:
            StudyError: There is no such trial.
        """
        trial_of(self.study, number)
        return self.place.trial_dir(self.name, number)

    def samples(
        self,
        trial: int | Literal["base", "few_shot"],
        split: Literal["valid", "test"] = "valid",
    ) -> "list[Sample]":
        """The answers of a trial or a baseline; empty without answers.

        Args:
            trial: A number or a baseline. In a study of several models the baseline is that of the
                best trial's model.
            split: On ``test`` only the winner and the baselines have answers.

        Raises:
            StudyError: There is no such trial.
        """
        from hawsweep.scoring.score import Sample

        kind = "trial" if isinstance(trial, int) else trial
        folder = self.trial_dir(trial) if isinstance(trial, int) else self._base_dir()
        name = SAMPLE_FILES[kind]
        lines = read_json_lines(folder / (name if split == "valid" else f"test_{name}"))
        known = [field.name for field in fields(Sample)]
        return [
            Sample(
                **{key: line[key] for key in known if key in line and key != "score"},
                score=score_of(line),
            )
            for line in lines
        ]

    def _base_dir(self) -> Path:
        best = self.best_trial
        if best is None:
            return base_dir(self.place, self.name)
        return base_dir_of(self.study, self.place, best.number)


def open_study(
    name: str, *, studies_dir: str | Path | None = None, storage: str | None = None
) -> StudyResults:
    """Open a study to read it; it may be running.

    Args:
        studies_dir: The folder of studies; see ``place.find_place``.
        storage: An Optuna RDB URL instead of the database there.

    Raises:
        StudyError: There is no such study, or its database cannot be opened.
    """
    place = find_place(studies_dir, storage)
    return StudyResults(load_study(open_storage(place), name), place)
