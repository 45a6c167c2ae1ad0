"""A trial's losses on the training references: each after its own source and after another's."""

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import optuna

from hawsweep.data.batches import lengths_of
from hawsweep.data.load import Splits
from hawsweep.data.records import Record
from hawsweep.data.tokens import encode
from hawsweep.errors import DataError
from hawsweep.files import cached_array
from hawsweep.models.load import LoadedModel
from hawsweep.spec.space import apply_settings
from hawsweep.spec.train import TrainSpec
from hawsweep.study.attributes import SPEC
from hawsweep.study.place import Place
from hawsweep.study.study import spec_of
from hawsweep.study.trials import trial_of
from hawsweep.text import SayProgress
from hawsweep.trial.adapted_model import adapted_model

_SEED = 0


@dataclass(frozen=True)
class PairLosses:
    """Losses of the training references in nats, over all tokens of each, ``[records]``.

    NaN where nothing of the reference is within ``max_seq_length``.

    Attributes:
        own: After the record's own source.
        other: After the source of another record. What it is higher is what the model reads of the
            reference in its own source: pointwise mutual information.
    """

    own: npt.NDArray[np.float64]
    other: npt.NDArray[np.float64]


def pair_losses(
    study: optuna.Study,
    place: Place,
    number: int,
    splits: Splits,
    progress: SayProgress = lambda _: None,
) -> PairLosses:
    """The losses by a trial's adapter, kept in the study's folder for the next time.

    Raises:
        StudyError: There is no such trial, or its adapter was not kept.
        DataError: The data have changed, a record has no answer, or one does not keep the
            template's contract.
    """
    known = study.user_attrs.get(SPEC, {}).get("fingerprints", {})
    if not splits.fingerprint().items() <= known.items():
        raise DataError(
            f"The data of study {study.study_name!r} has changed since. Restore it: the trial's "
            "losses are those of what it was trained on."
        )
    if any(each.reference is None for each in splits.train):
        raise DataError(
            "A training record has no answer. `hawsweep curate` takes records of a source and an "
            "answer."
        )
    trial = trial_of(study, number)
    # A trial that trains on gets another adapter.
    measured = (number, trial.datetime_start, trial.last_step, splits.train.fingerprint)
    digest = hashlib.sha256(repr(measured).encode()).hexdigest()[:12]

    def measure() -> npt.NDArray[np.float64]:
        train = apply_settings(spec_of(study, trial).train, trial.params)
        records = list(splits.train)
        with adapted_model(study, place, number, progress) as loaded:
            progress(f"losses of {len(records):,} references after their sources")
            own = _losses(loaded, records, train)
            progress(f"losses of {len(records):,} references after other sources")
            return np.array([own, _losses(loaded, with_other_sources(records), train)])

    path = place.study_dir(study.study_name) / f"pair_losses-{digest}.npy"
    return PairLosses(*cached_array(path, measure))


def with_other_sources(records: list[Record]) -> list[Record]:
    """Each reference after the source of another record, every source once."""
    order = np.random.default_rng(_SEED).permutation(len(records)).tolist()
    others = dict(zip(order, [*order[1:], order[0]], strict=True))

    def with_other(at: int) -> Record:
        asked = (records[others[at]].messages or [])[:-1]
        answer = (records[at].messages or [])[-1:]
        return replace(records[at], content={**records[at].content, "messages": asked + answer})

    return [with_other(at) for at in range(len(records))]


def _losses(
    loaded: LoadedModel, records: list[Record], train: TrainSpec
) -> npt.NDArray[np.float64]:
    from hawsweep.training.evaluation import make_evaluator

    encoded = encode(records, loaded.template, train.model_copy(update={"mask_prompt": True}))
    # As much as a training batch at most.
    most = train.batch_size * int(lengths_of(encoded.examples).max())
    evaluate = make_evaluator(loaded.model, encoded.examples, None, max_tokens=most)
    losses = np.full(len(records), np.nan)
    losses[encoded.record_indices] = evaluate(0).example_losses * encoded.examples.n_targets
    return losses
