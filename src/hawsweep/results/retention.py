"""What the winner lost of what its untuned model could do, by the questions of ``retention``."""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import optuna
from optuna.trial import FrozenTrial

from hawsweep.layout import SAMPLE_FILES
from hawsweep.scoring.intervals import Interval, mean_interval, share_interval
from hawsweep.spec.scoring import BUNDLED_RETENTION
from hawsweep.spec.sweep import SweepSpec
from hawsweep.study.attributes import RETENTION
from hawsweep.study.baselines import base_dir_of, few_shot_values, model_of, prompt_text, scores_of
from hawsweep.study.place import Place
from hawsweep.text import counted


@dataclass(frozen=True)
class Retention:
    """A trial's answers against its untuned model's own, by the study's metric.

    Attributes:
        n_prompts: Questions that the untuned model answered.
        most: The loss that is accepted.
        lost: The share of the untuned model's score that the trial lost, with its interval over
            the questions.
        prompted: What the untuned model itself lost with its best prompt; None without one.
        outcome: ``lost`` where the loss is larger than ``most``, ``kept`` where it is not,
            ``not told`` where the interval holds ``most``.
    """

    trial: int
    data: str
    n_prompts: int
    most: float
    lost: Interval
    prompted: Interval | None
    prompt: str
    outcome: Literal["lost", "kept", "not told"]

    def sentence(self) -> str:
        """The same in words."""
        kind = "everyday question" if self.data == BUNDLED_RETENTION else "question"
        verb, told = _WORDS[self.outcome]
        text = (
            f"Trial {self.trial} {verb}: on {counted(self.n_prompts, kind)} it loses "
            f"{_share(self.lost)} of the untuned model's score against its own answers, {told} "
            f"the {100 * self.most:.3g} % of retention.most"
        )
        if self.prompted is not None:
            text += f"; with {self.prompt} in its prompt the untuned model loses "
            text += _share(self.prompted)
        return f"{text}."


_WORDS = {
    "lost": ("forgets", "more than"),
    "kept": ("keeps what the untuned model could do", "within"),
    "not told": ("may forget", "not told apart from"),
}


def _share(lost: Interval) -> str:
    low, mean, high = (100 * each for each in (lost.low, lost.mean, lost.high))
    return f"{mean:.0f} % (95 % {low:.0f} to {high:.0f} %)"


def retention_of(
    study: optuna.Study, place: Place, spec: SweepSpec | None, trial: FrozenTrial
) -> Retention | None:
    """What a trial lost; None where it did not answer the questions of the sweep."""
    known = study.user_attrs.get(RETENTION) or {}
    asked = None if spec is None else spec.retention
    if asked is None or (known.get("trial_number"), known.get("data")) != (
        trial.number,
        asked.data,
    ):
        return None
    base = base_dir_of(study, place, trial.number)
    own = scores_of(base / f"retention_{SAMPLE_FILES['base']}")
    tuned = scores_of(
        place.trial_dir(study.study_name, trial.number) / f"retention_{SAMPLE_FILES['trial']}"
    )
    if len(own) != len(tuned) or not len(own) or own.mean() <= 0:
        return None
    prompted = scores_of(base / f"retention_{SAMPLE_FILES['few_shot']}")
    lost = _lost(own, tuned)
    outcome: Literal["lost", "kept", "not told"] = "not told"
    if lost.low > asked.most:
        outcome = "lost"
    elif lost.high <= asked.most:
        outcome = "kept"
    return Retention(
        trial.number,
        asked.data,
        len(own),
        asked.most,
        lost,
        _lost(own, prompted) if len(prompted) == len(own) else None,
        prompt_text(few_shot_values(study, model_of(study, trial))),
        outcome,
    )


def _lost(own: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> Interval:
    """With ends also where all or most answers lost everything or nothing, of which the bootstrap
    knows none, or takes them for certain: values from 0 to 1 vary no more than shares do.
    """
    lost = (own - other) / own.mean()
    found = mean_interval(lost)
    shares = share_interval(float(np.clip(lost, 0, 1).sum()), len(lost))
    varies = found.low < found.high
    low = found.low if varies and math.isfinite(found.low) else shares.low
    high = found.high if varies and math.isfinite(found.high) else shares.high
    return replace(found, low=min(low, found.mean), high=max(high, found.mean))  # by rounding
