"""What a study found, for a program: an Optuna study, and what hawsweep knows beside it."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import optuna
from optuna.trial import FrozenTrial

from hawsweep import confirm, leaderboard, trials
from hawsweep.baselines import base_dir, base_dir_of, score_of
from hawsweep.leaderboard import TrialRow
from hawsweep.spec import SweepSpec
from hawsweep.study import SAMPLE_FILES, Place, find_place, load_study, open_storage, spec_of
from hawsweep.verdict import Verdict

if TYPE_CHECKING:
    from hawsweep.scoring import Sample


@dataclass(frozen=True, eq=False)
class StudyResults:
    """A study and what it found, read anew at each question, so that a running one can be watched.

    Attributes:
        study: An ordinary Optuna study: its trials, parameters, and all that takes a study, such
            as ``optuna.visualization``.
        place: Where it is kept.
    """

    study: optuna.Study
    place: Place

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
        """The sweep as it was last started."""
        return spec_of(self.study)

    @property
    def best_trial(self) -> FrozenTrial | None:
        """The trial to use: the best by new seeds, before those by its own score.

        None before the first complete one. ``study.best_trial`` knows nothing of new seeds.
        """
        return confirm.winner(self.study)

    def leaderboard(self) -> list[TrialRow]:
        """All trials, best first, among them the base and what else is no trial.

        ``pandas.DataFrame(results.leaderboard())`` makes a frame of it.
        """
        return leaderboard.leaderboard(self.study)

    def verdict(self) -> Verdict | None:
        """What the scores allow to say, in ``sentences``; None before the first complete trial."""
        return leaderboard.judge_study(self.study, self.place)

    def trial_dir(self, number: int) -> Path:
        """The folder of a trial, with ``adapters/`` where they were kept.

        Raises:
            StudyError: There is no such trial.
        """
        trials.trial_of(self.study, number)
        return self.place.trial_dir(self.name, number)

    def samples(
        self,
        trial: int | Literal["base", "few_shot"],
        split: Literal["valid", "test"] = "valid",
    ) -> "list[Sample]":
        """What a trial or a baseline answered; empty where it was not asked.

        Args:
            trial: A baseline is that of the model which the best trial trained, where a study has
                several.
            split: Of ``test`` the winner and the baselines have answers.

        Raises:
            StudyError: There is no such trial.
        """
        from hawsweep.scoring import Sample

        kind = "trial" if isinstance(trial, int) else trial
        folder = self.trial_dir(trial) if isinstance(trial, int) else self._base_dir()
        name = SAMPLE_FILES[kind]
        lines = leaderboard.read_json_lines(folder / (name if split == "valid" else f"test_{name}"))
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
    """Open a study to look at, whether it runs or is done.

    Args:
        studies_dir: Where studies are kept; see ``study.find_place``.
        storage: An Optuna RDB URL instead of the database there.

    Raises:
        StudyError: There is no such study, or its database cannot be opened.
    """
    place = find_place(studies_dir, storage)
    return StudyResults(load_study(open_storage(place), name), place)
