"""A trial's losses on its training examples: the hardest and the easiest."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import optuna

from hawsweep.data.load import load_data
from hawsweep.errors import DataError, StudyError
from hawsweep.files import replacing
from hawsweep.study.attributes import SPEC
from hawsweep.study.place import Place
from hawsweep.study.study import spec_of

if TYPE_CHECKING:
    from hawsweep.training.checkpoints import ExampleLosses


EXAMPLES_FILE = "train_losses.npz"


@dataclass(frozen=True)
class ExampleLoss:
    """A training example and its losses, in nats per target token, each time it was trained on.

    Attributes:
        count: How often that was.
        mean: Of all times.
        last: Of the last time.
        where: File and line of its record.
    """

    mean: float
    last: float
    count: int
    source: str
    reference: str | None
    where: str


def write_example_losses(
    folder: Path, losses: "ExampleLosses", records: npt.NDArray[np.int32]
) -> None:
    """Write a trial's losses on its training examples.

    Args:
        records: Which record of the split each example is, ``[examples]``.
    """
    with replacing(folder / EXAMPLES_FILE) as beside:
        np.savez(beside, records=records, **vars(losses))


def hardest_and_easiest(
    study: optuna.Study, place: Place, number: int, n_each: int
) -> tuple[list[ExampleLoss], list[ExampleLoss]]:
    """The examples of the highest mean loss, and those of the lowest, both from the extreme on.

    Raises:
        StudyError: The trial recorded none, because it did not train to its end.
        DataError: The data is missing or has changed.
    """
    path = place.trial_dir(study.study_name, number) / EXAMPLES_FILE
    if not path.is_file():
        raise StudyError(
            f"Trial {number} of study {study.study_name!r} has no {EXAMPLES_FILE}: only a trial "
            "that trained to its end has. `hawsweep status` shows which did."
        )
    with np.load(path) as saved:
        records, count, total, last = (saved[k] for k in ("records", "count", "total", "last"))
    seen = np.flatnonzero(count)
    mean = total[seen] / count[seen]
    ranked = seen[np.argsort(-mean, kind="stable")]
    splits = load_data(spec_of(study).data)
    if not splits.fingerprint().items() <= study.user_attrs[SPEC]["fingerprints"].items():
        raise DataError(
            f"The data of study {study.study_name!r} has changed since: its examples cannot be "
            "found. Restore the data to see them."
        )
    train = splits.train

    def describe(i: int) -> ExampleLoss:
        record = train[int(records[i])]
        text = record.source or str(record.content.get("text", ""))
        return ExampleLoss(
            float(total[i] / count[i]),
            float(last[i]),
            int(count[i]),
            text,
            record.reference,
            record.where,
        )

    n_each = min(n_each, len(ranked) // 2)
    hardest = [describe(i) for i in ranked[:n_each]]
    return hardest, [describe(i) for i in ranked[::-1][:n_each]]
