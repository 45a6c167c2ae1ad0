"""A trial's losses on the training examples: the hardest and the easiest."""

from dataclasses import dataclass

import numpy as np
import optuna

from hawsweep.data.augment import augment
from hawsweep.data.batches import lengths_of
from hawsweep.data.load import load_data
from hawsweep.data.tokens import encode
from hawsweep.errors import DataError
from hawsweep.spec.space import apply_settings
from hawsweep.study.attributes import SPEC
from hawsweep.study.place import Place
from hawsweep.study.study import spec_of
from hawsweep.study.trials import trial_of
from hawsweep.text import SayProgress, counted
from hawsweep.trial.adapted_model import adapted_model


@dataclass(frozen=True)
class ExampleLoss:
    """A training example and its loss.

    Attributes:
        loss: By the trial's adapter, mean over its target tokens, in nats.
        where: File and line of its record.
    """

    loss: float
    source: str
    reference: str | None
    where: str


def hardest_and_easiest(
    study: optuna.Study,
    place: Place,
    number: int,
    n_each: int,
    progress: SayProgress = lambda _: None,
) -> tuple[list[ExampleLoss], list[ExampleLoss]]:
    """The examples that a trial trained on, of the highest loss by its adapter and of the lowest,
    both from the extreme on.

    Raises:
        StudyError: There is no such trial, or its adapter was not kept.
        DataError: The data is missing or has changed.
    """
    from hawsweep.training.evaluation import make_evaluator

    trial = trial_of(study, number)
    spec = spec_of(study, trial, place)
    train = apply_settings(spec.train, trial.params)
    with adapted_model(study, place, number, progress) as loaded:
        splits = load_data(spec.data, progress)
        if not splits.fingerprint().items() <= study.user_attrs[SPEC]["fingerprints"].items():
            raise DataError(
                f"The data of study {study.study_name!r} has changed since: its examples cannot be "
                "found. Restore the data to see them."
            )
        augmented = augment(spec, splits.train)
        encoded = encode(augmented.records, loaded.template, train)
        chosen = augmented.chosen(encoded.record_indices, train, spec.seed)
        examples = [encoded.examples[i] for i in chosen.tolist()]
        progress(f"losses of {counted(len(examples), 'training example')}")
        longest = int(lengths_of(examples).max())  # no batch needs more memory than it alone
        evaluate = make_evaluator(loaded.model, examples, None, max_tokens=longest)
        losses = evaluate(0).example_losses

    def describe(at: int) -> ExampleLoss:
        record = augmented.records[int(encoded.record_indices[chosen[at]])]
        text = record.source or str(record.content.get("text", ""))
        return ExampleLoss(float(losses[at]), text, record.reference, record.where)

    ranked = np.argsort(-losses, kind="stable")
    n_each = min(n_each, len(ranked) // 2)
    return [describe(at) for at in ranked[:n_each]], [describe(at) for at in ranked[::-1][:n_each]]
