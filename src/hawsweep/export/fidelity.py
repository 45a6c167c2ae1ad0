"""Whether an export answers as the trial did.

It translates the trial's validation prompts again, in the same batches, and is compared with the
trial by the study's metric and letter for letter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from hawsweep.data.load import choose_subset, load_data
from hawsweep.errors import ExportError
from hawsweep.files import read_json_lines
from hawsweep.layout import SAMPLE_FILES
from hawsweep.models import resolve
from hawsweep.models.load import load_model
from hawsweep.scoring.metrics import chrf
from hawsweep.scoring.score import Scorer
from hawsweep.spec.sweep import SweepSpec
from hawsweep.study.attributes import SELF_CHECK, SPEC
from hawsweep.study.baselines import base_dir_of
from hawsweep.study.place import Place
from hawsweep.study.study import date_of, spec_of
from hawsweep.text import counted

# The largest change of the mean score of the same prompts, as a share of the metric's scale.
TOLERANCE = 0.01
# An answer with this chrF against the trial's answer, or more, counts as nearly identical.
NEAR_CHRF = 90.0
_SCALES = {"semantic_similarity": 1.0, "exact_match": 1.0, "chrf": 100.0, "bleu": 100.0}


@dataclass(frozen=True)
class Check:
    """The answers of an exported model to the validation prompts, compared with the trial's.

    Attributes:
        score: By the study's metric.
        expected: The trial's score; None for a checkpoint, which has no score of its own.
        tolerance: The largest difference of the two.
        identical: Share of answers equal to the trial's, character by character; None if the
            trial's answers are not kept.
        near: Share of answers with a chrF of ``NEAR_CHRF`` or more against the trial's.
        is_base: Whether the answers are more like the untuned model's than like the trial's.
    """

    score: float
    expected: float | None
    tolerance: float
    n_prompts: int
    identical: float | None = None
    near: float | None = None
    is_base: bool = False

    @property
    def holds(self) -> bool:
        """Whether its score agrees with the trial's."""
        moved = 0.0 if self.expected is None else abs(self.score - self.expected)
        return moved <= self.tolerance and not self.is_base

    def describe(self) -> str:
        """``0.6743 (trial 0.6743), 97 % of 40 answers identical, 100 % nearly``."""
        text = f"{self.score:.4f}"
        if self.expected is not None:
            text += f" (trial {self.expected:.4f})"
        if self.identical is not None and self.near is not None:
            text += f", {self.identical:.0%} of {counted(self.n_prompts, 'answer')} identical"
            text += "" if self.identical == 1 else f", {self.near:.0%} nearly"
        return text


class Judge:
    """Checks the exports of one trial.

    Args:
        is_checkpoint: The trial did not score this adapter; the first part checked is the
            reference for the others.

    Raises:
        ExportError: The validation split is not the trial's.
    """

    def __init__(
        self,
        study: optuna.Study,
        place: Place,
        trial: FrozenTrial,
        *,
        is_checkpoint: bool = False,
    ) -> None:
        self._spec, self._today = spec_of(study, trial, place), date_of(study)
        valid = load_data(self._spec.data).valid
        known = study.user_attrs[SPEC].get("fingerprints", {}).get("valid")
        if known is not None and known != valid.fingerprint:
            raise ExportError(
                f"The validation split has changed: it was {known}, is {valid.fingerprint}. An "
                "export is checked by the sentences the trial translated: restore the data."
            )
        scoring = self._spec.scoring
        self._records = list(choose_subset(valid, scoring.max_examples, self._spec.seed))
        embedder = resolve.resolve_embedder(scoring.embedder)
        self._scorer = Scorer(embedder, scoring, trust_remote_code=self._spec.trust_remote_code)
        self.tolerance = tolerance(self._spec, study.user_attrs, len(self._records))
        kind = SAMPLE_FILES["trial"]
        folder = place.trial_dir(study.study_name, trial.number)
        self._expected: float | None = None if is_checkpoint else trial.value
        self._answers = None if is_checkpoint else self._outputs(folder / kind)
        self._base = self._outputs(base_dir_of(study, place, trial.number) / kind)

    def __call__(self, model: Path, adapters: Path | None = None) -> Check:
        """Load a model anew, with an adapter or without, and let it answer."""
        trusted = self._spec.trust_remote_code
        loaded = load_model(model, adapters, trust_remote_code=trusted, today=self._today)
        score = self._scorer.score(loaded, self._records)
        outputs = [sample.output for sample in score.samples]
        check = Check(
            score.score,
            self._expected,
            self.tolerance,
            len(outputs),
            **compare_answers(outputs, self._answers, self._base),
        )
        if self._expected is None:
            self._expected, self._answers = score.score, outputs
        return check

    def _outputs(self, path: Path) -> list[str] | None:
        samples = read_json_lines(path)
        sources = [record.source for record in self._records]
        if [sample["source"] for sample in samples] != sources:
            return None  # not kept
        return [sample["output"] for sample in samples]


def compare_answers(
    outputs: Sequence[str], answers: Sequence[str] | None, base: Sequence[str] | None
) -> dict[str, Any]:
    """``identical``, ``near`` and ``is_base`` of a ``Check``."""
    if answers is None:
        return {}
    pairs = list(zip(answers, outputs, strict=True))
    likeness = np.array([_likeness(*pair) for pair in pairs])
    near = float((likeness >= NEAR_CHRF).mean())
    is_base = False
    if base is not None and near < 1:
        to_base = [_likeness(*pair) for pair in zip(base, outputs, strict=True)]
        is_base = float(np.mean(to_base)) > float(likeness.mean())
    identical = float(np.mean([one == other for one, other in pairs]))
    return {"identical": identical, "near": near, "is_base": is_base}


def tolerance(spec: SweepSpec, known: Mapping[str, Any], n_prompts: int) -> float:
    """The largest change of a mean score by rounding alone, for the study's metric.

    A custom metric has the scale that the self-check found. Exact match changes by whole prompts.
    """
    metric = spec.scoring.metric
    check = known.get(SELF_CHECK, {})
    scale = _SCALES.get(metric) or abs(check.get("ceiling", 1.0) - check.get("floor", 0.0))
    # The rounding of a score in the database, and one prompt for a metric that is 0 or 1.
    least = 1 / n_prompts if metric == "exact_match" else 0.0
    return max(TOLERANCE * scale, least) + 1e-6


def _likeness(one: str, other: str) -> float:
    return 100.0 if one == other else chrf("", one, other)
