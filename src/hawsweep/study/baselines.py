"""The untuned models of a study: their measurements, labels, and folders of answers.

A study of one model keeps what was measured as its attributes ``base``, ``few_shot`` and
``self_check``. One of several keeps that of each under ``bases``, by model; those three are then of
the untuned model that scores best.
"""

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna.trial import FrozenTrial

from hawsweep.files import read_json_lines
from hawsweep.spec.space import MODEL
from hawsweep.spec.sweep import SweepSpec, short_names
from hawsweep.study.attributes import BASE, BASES, FEW_SHOT, SELF_CHECK
from hawsweep.study.place import Place
from hawsweep.study.study import spec_of
from hawsweep.study.trials import trial_of
from hawsweep.text import counted

# The last one shows that the measurement is complete.
_MEASURED = (SELF_CHECK, FEW_SHOT, BASE)


@dataclass(frozen=True)
class Baseline:
    """The measurements of an untuned model.

    Attributes:
        kind: ``base``, or ``few_shot``: with another prompt, such as one with examples.
        label: ``base``, ``4-shot base``, ``4-shot base, instruction 2``; with the model's name if
            the study has several models.
        model: Its name if the study has several models; else empty.
        values: The result of ``measure_base.measure_base``.
    """

    kind: str
    label: str
    model: str
    values: Mapping[str, Any]

    @property
    def score(self) -> float:
        """The score by the study's metric."""
        return score_of(self.values)


def score_of(known: Mapping[str, Any]) -> float:
    """The score of a summary or sample, by the study's metric; in an older study the similarity."""
    return float(known["score"] if "score" in known else known["similarity"])


def scores_of(path: Path) -> npt.NDArray[np.float64]:
    """The score of each answer in a file of samples, ``[answers]``; empty without the file."""
    return np.array([score_of(each) for each in read_json_lines(path)])


def baselines(study: optuna.Study) -> list[Baseline]:
    """The measured untuned models, each without and with examples in its prompt."""
    attributes = study.user_attrs
    if BASES not in attributes:
        return list(_of_one("", "", attributes))
    names = short_names(spec_of(study).models)
    return [
        each
        for model, measured in attributes[BASES].items()
        for each in _of_one(model, f" {names.get(model, model)}", measured)
    ]


def _of_one(model: str, suffix: str, measured: Mapping[str, Any]) -> Iterator[Baseline]:
    for kind in (BASE, FEW_SHOT):
        if kind in measured:
            yield Baseline(kind, prompt_label(measured[kind]) + suffix, model, measured[kind])


def prompt_label(prompt: Mapping[str, Any]) -> str:
    """The label of the untuned model with a prompt: ``4-shot base, instruction 2``."""
    n_examples, number = prompt.get("n_examples", 0), prompt.get("instruction", 0)
    shots = f"{n_examples}-shot base" if n_examples else "base"
    return f"{shots}, instruction {number}" if number else shots


def prompt_text(prompt: Mapping[str, Any]) -> str:
    """A prompt in words: ``4 examples and instruction 2``."""
    n_examples, number = prompt.get("n_examples", 0), prompt.get("instruction", 0)
    parts = [counted(n_examples, "example")] if n_examples else []
    return " and ".join([*parts, *([f"instruction {number}"] if number else [])])


def few_shot_values(study: optuna.Study, model: str) -> Mapping[str, Any]:
    """The measurements of an untuned model with its best prompt; empty without one.

    Args:
        model: Its name if the study has several; else empty.
    """
    found = (each for each in baselines(study) if (each.kind, each.model) == (FEW_SHOT, model))
    return next((each.values for each in found), {})


def model_of(study: optuna.Study, trial: FrozenTrial) -> str:
    """The model that a trial trained, if the study has several; else empty."""
    return spec_of(study, trial).model if BASES in study.user_attrs else ""


def baseline_of(study: optuna.Study, trial: FrozenTrial) -> Baseline | None:
    """The untuned model of a trial; None if it was not measured."""
    model = model_of(study, trial)
    found = baselines(study)
    return next((each for each in found if each.kind == "base" and each.model == model), None)


def base_values(study: optuna.Study, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The measurements of the untuned model for a trial with these settings; empty without them."""
    attributes = study.user_attrs
    measured = attributes.get(BASES, {}).get(settings.get(MODEL), {})
    values: Mapping[str, Any] = (measured if BASES in attributes else attributes).get(BASE, {})
    return values


def base_dir(place: Place, study_name: str, model: str = "") -> Path:
    """The folder of an untuned model's answers; ``model`` is needed if the study has several."""
    folder = place.study_dir(study_name) / "base"
    return folder / _folder_name(model) if model else folder


def base_dir_of(study: optuna.Study, place: Place, trial_number: int) -> Path:
    """The folder of the answers of a trial's untuned model."""
    model = model_of(study, trial_of(study, trial_number))
    return base_dir(place, study.study_name, model)


def unmeasured(study: optuna.Study, spec: SweepSpec, left_out: Collection[str] = ()) -> list[str]:
    """The models whose untuned measurement is missing.

    Args:
        left_out: Models that do not fit into memory.
    """
    if not spec.searches_models:
        return [] if BASE in study.user_attrs else [spec.model]
    known = study.user_attrs.get(BASES, {})
    return [each for each in spec.models if each not in known and each not in left_out]


def keep_base(
    study: optuna.Study,
    spec: SweepSpec,
    model: str,
    measured: Mapping[str, Any],
    left_out: Collection[str] = (),
) -> None:
    """Store the measurements of an untuned model in the study."""
    if spec.searches_models:
        known = {**study.user_attrs.get(BASES, {}), model: dict(measured)}
        study.set_user_attr(BASES, known)
        if unmeasured(study, spec, left_out):
            return
        best = max(known, key=lambda each: known[each][BASE]["score"])
        measured = {**known[best], BASE: {**known[best][BASE], "model": best}}
    for key in _MEASURED:
        if key in measured:
            study.set_user_attr(key, measured[key])


def best_other(study: optuna.Study, model: str) -> Baseline | None:
    """The best untuned model if it is another one than ``model``, with or without examples."""
    found = baselines(study)
    best = max(found, key=lambda each: (each.score, each.model == model), default=None)
    return None if best is None or best.model in ("", model) else best


def _folder_name(model: str) -> str:
    """A folder name for a model: readable, safe as a path, unique."""
    last = next(iter(short_names([model]).values()))
    digest = hashlib.sha256(model.encode()).hexdigest()[:6]
    return f"{re.sub(r'[^A-Za-z0-9_.-]', '-', last).lstrip('.-')[:80]}-{digest}"
