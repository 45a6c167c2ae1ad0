"""A study beside another: the settings of one of its trials, trained on other records."""

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from hawsweep.spec.sweep import SweepSpec
from hawsweep.study.place import Place
from hawsweep.study.study import spec_of
from hawsweep.study.trials import train_of

SIZE = "max_train_samples"

# Sections of the study alone.
_OF_STUDY = {"timeout", "stop_when", "report_to", "retention"}


def companion_spec(
    study: optuna.Study,
    trial: FrozenTrial,
    place: Place,
    sizes: Sequence[int],
    n_seeds: int,
    *,
    description: str,
    train: Mapping[str, Any],
    **changes: Any,
) -> SweepSpec:
    """A sweep of a trial's settings on numbers of training examples, the largest first; it leaves
    the test split closed.

    Args:
        n_seeds: How often each is trained.
        train: Changes of the settings.
        changes: Of other sections.
    """
    spec = spec_of(study, trial, place)
    settings = train_of(spec, trial).model_dump(exclude_unset=True)
    content = spec.model_dump(exclude_unset=True, exclude=_OF_STUDY)
    return SweepSpec.model_validate(
        {
            **content,
            "train": {**settings, SIZE: None, **train},
            "scoring": {**content.get("scoring", {}), "test": False},
            "description": description,
            "search": {SIZE: {"choices": sizes}},
            "enqueue": [{SIZE: size} for size in reversed(sizes)],
            "trials": len(sizes),
            "pruning": {"name": "none"},
            "confirm": {"top": len(sizes) if n_seeds > 1 else 0, "seeds": max(1, n_seeds - 1)},
            **changes,
        }
    )
