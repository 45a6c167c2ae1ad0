"""A study's model, alone and with the adapter of a trial."""

from collections.abc import Iterator
from contextlib import contextmanager

import optuna

from hawsweep.models import resolve
from hawsweep.models.load import LoadedModel, load_model
from hawsweep.spec.space import apply_settings
from hawsweep.spec.sweep import SweepSpec
from hawsweep.study.place import Place
from hawsweep.study.study import date_of, spec_of
from hawsweep.study.trials import adapter_dir, trial_of
from hawsweep.text import SayProgress


def load_model_of(
    study: optuna.Study, spec: SweepSpec, progress: SayProgress = lambda _: None
) -> LoadedModel:
    """The untuned model of a study, with the date that its trials saw.

    Raises:
        ModelError: It cannot be loaded.
    """
    path = resolve.resolve_model(spec.model, progress)
    progress("loading the model")
    return load_model(path, trust_remote_code=spec.trust_remote_code, today=date_of(study))


@contextmanager
def adapted_model(
    study: optuna.Study, place: Place, number: int, progress: SayProgress = lambda _: None
) -> Iterator[LoadedModel]:
    """The model with the adapter that a trial kept, for answers and losses.

    Raises:
        StudyError: There is no such trial, or its adapter was not kept.
    """
    from hawsweep.training.adapters import adapted, load_adapter

    trial = trial_of(study, number)
    adapter = adapter_dir(study, place, number)
    spec = spec_of(study, trial, place)
    loaded = load_model_of(study, spec, progress)
    with adapted(loaded.model, apply_settings(spec.train, trial.params)):
        load_adapter(loaded.model, adapter)
        loaded.model.eval()
        yield loaded
