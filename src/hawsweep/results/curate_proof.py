"""Whether a proposed data set is better: the same settings trained on both, with new seeds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna.trial import FrozenTrial

from hawsweep.data.columns import GROUP
from hawsweep.data.load import Splits
from hawsweep.errors import StudyError
from hawsweep.layout import LOSSES_FILE, SAMPLE_FILES
from hawsweep.results.companion import companion_spec
from hawsweep.scoring.intervals import Interval, difference_interval
from hawsweep.spec.space import apply_settings
from hawsweep.spec.sweep import SweepSpec
from hawsweep.study.baselines import scores_of
from hawsweep.study.confirm import confirming_study
from hawsweep.study.place import Place
from hawsweep.study.study import spec_of
from hawsweep.study.trials import complete_trials, n_records, train_of
from hawsweep.text import counted

# Far from the seeds of confirming runs.
_NEW_SEEDS = 1000


@dataclass(frozen=True)
class Proof:
    """The settings trained on the proposal, compared with those trained on all records.

    Attributes:
        n_seeds: Runs on each of both.
        val_losses: Of all records and of the proposal, the mean of the examples' losses.
        loss_gain: By how much the proposal lowers it.
        score_gain: By how much it raises the score.
    """

    n_seeds: int
    val_losses: tuple[float, float]
    loss_gain: Interval
    score_gain: Interval

    def sentences(self) -> list[str]:
        """The verdict, in words."""
        loss, score = self.loss_gain, self.score_gain
        if not loss.excludes_zero:
            verdict = "The proposal is not told apart from all records by validation loss"
        elif loss.mean > 0:
            verdict = "The proposal is better by validation loss"
        else:
            verdict = "The proposal is worse by validation loss: keep the data as they are"
        return [
            f"{verdict}: {self.val_losses[0]:.4f} with all, {self.val_losses[1]:.4f} with it "
            f"({self.n_seeds} seeds each).",
            f"It lowers the loss by {loss.mean:.4f} (95 % {loss.low:.4f} to {loss.high:.4f}) and "
            f"raises the score by {score.mean:.4f} ({score.low:.4f} to {score.high:.4f}).",
        ]


def proof_specs(
    study: optuna.Study,
    place: Place,
    trial: FrozenTrial,
    splits: Splits,
    folder: Path,
    n_removed: int,
    seeds: int,
    order: Mapping[str, str],
) -> dict[str, SweepSpec]:
    """The sweeps that train a trial's settings on all records and on the proposal, by their names:
    equal steps, new seeds, the same validation examples.

    Args:
        order: Keys of ``train`` by which the proposal's order counts.

    Raises:
        StudyError: The trial's losses are gone, or the proposal has no batch.
    """
    spec = spec_of(study, trial)
    n = n_records(study, "train")
    batch = apply_settings(spec.train, trial.params).batch_size
    if n - n_removed < batch:
        raise StudyError(
            f"The proposal has {counted(n - n_removed, 'record')}, and a batch is {batch}: it "
            "cannot be trained on."
        )
    losses = place.trial_dir(study.study_name, trial.number) / LOSSES_FILE
    if not losses.is_file():
        raise StudyError(
            f"Trial {trial.number} of study {study.study_name!r} has no {losses.name}, which says "
            "on how many examples it was validated. Name another by --trial."
        )
    new = {"seed": (spec.train.seed + _NEW_SEEDS) % 2**32, "early_stopping_patience": None}
    validation = {"validation": {"max_examples": len(np.load(losses))}}
    # Its texts are written as data.normalize asks already.
    key = splits.train[0].group_key
    proposal = {
        "path": str(folder.resolve()),
        "group": None if key == GROUP else key,
    }
    if train_of(spec, trial).augment.name != "none":
        proposal["prompt"] = spec.data[0].prompt  # its variants are made without it
    settings = f"The settings of trial {trial.number} of {study.study_name}"
    name = f"{study.study_name}-curated-{trial.number}"
    return {
        f"{name}-all": companion_spec(
            study,
            trial,
            place,
            [n],
            seeds,
            description=f"{settings} on all records.",
            train=new,
            **validation,
        ),
        name: companion_spec(
            study,
            trial,
            place,
            [n - n_removed],
            seeds,
            description=f"{settings} on the proposal of curate.",
            train={**new, **order},
            data=[proposal],
            **validation,
        ),
    }


def read_proof(everything: optuna.Study, proposal: optuna.Study, place: Place) -> Proof:
    """Compare the runs of two studies on the same validation examples.

    Raises:
        StudyError: One of them has no complete run, or their validation examples differ.
    """
    both, samples = (everything, proposal), SAMPLE_FILES["trial"]
    losses = [_by_example(each, place, LOSSES_FILE, np.load) for each in both]
    scores = [_by_example(each, place, samples, scores_of) for each in both]
    if losses[0].shape != losses[1].shape:
        raise StudyError(
            f"Studies {everything.study_name!r} and {proposal.study_name!r} have other validation "
            "examples or numbers of runs: they cannot be compared."
        )
    before, after = (each.mean(axis=0) for each in losses)
    score_before, score_after = (each.mean(axis=0) for each in scores)
    return Proof(
        len(losses[0]),
        (float(before.mean()), float(after.mean())),
        difference_interval(before, after),
        difference_interval(score_after, score_before),
    )


def _by_example(
    study: optuna.Study, place: Place, file: str, read: Callable[[Path], Any]
) -> npt.NDArray[np.float64]:
    """Values of each run and validation example, ``[runs, examples]``."""
    name, again = study.study_name, confirming_study(study)
    folders = [place.trial_dir(name, each.number) for each in complete_trials(study)]
    if again is not None:
        folders += [place.confirm_dir(name, each.number) for each in complete_trials(again)]
    if not folders:
        raise StudyError(f"Study {name!r} has no complete trial: there is nothing to compare.")
    return np.array([read(folder / file) for folder in folders], np.float64)
