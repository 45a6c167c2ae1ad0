"""The disk space of a study, and a check that it is free."""

import math
import shutil

from hawsweep.errors import StudyError
from hawsweep.files import existing_folder
from hawsweep.planning.check_settings import differing_trains
from hawsweep.planning.trial_plan import CostModel
from hawsweep.search.coordinates import most_trials
from hawsweep.spec.sweep import SweepSpec, keep_count
from hawsweep.study.place import Place

_SMALL_BYTES_A_TRIAL = 2_000_000
_SPARE_BYTES = 100_000_000
_VALUE_BYTES = 4


def check_space(spec: SweepSpec, known: CostModel, place: Place, n_workers: int) -> None:
    """Refuse a sweep for which the disk has no room.

    Raises:
        StudyError: The message has both figures and the remedies.
    """
    free = shutil.disk_usage(existing_folder(place.studies_dir)).free
    needed = bytes_to_write(spec, known, n_workers)
    if free >= needed + _SPARE_BYTES:
        return
    # Each trial may be paused at once, however few are kept afterwards.
    pauses = spec.pruning.name == "promote"
    less = ["ask for fewer trials or lower ranks" if pauses else "keep less (keep: best 1)"]
    less += ["lower train.keep_checkpoints"] * (spec.train.keep_checkpoints != 0)
    raise StudyError(
        f"This sweep writes up to {needed / 1e9:.2f} GB, but {free / 1e9:.2f} GB are free on the "
        f"disk that holds {place.studies_dir}. Make room, {', '.join(less)}, or choose another "
        "--studies-dir."
    )


def bytes_to_write(spec: SweepSpec, known: CostModel, n_workers: int) -> int:
    """The most bytes of a sweep's trials on disk at a time: of kept, paused and running ones."""
    most = max(known.shape.trained_parameters(train) for train in differing_trains(spec))
    asked = spec.train.keep_checkpoints
    _, most_iters = spec.ends_of("iters")
    n_evaluations = math.ceil(most_iters / spec.train.steps_per_eval)
    n_adapters = 1 + (n_evaluations if asked == "every" else min(asked, n_evaluations))
    # The adapter, two moments, and pending gradients.
    state = 4 * most * _VALUE_BYTES
    adapters = n_adapters * most * _VALUE_BYTES
    count = keep_count(spec.keep)
    n_trials = most_trials(spec)
    n_kept = n_trials if count is None else min(max(count, spec.confirm.top), n_trials)
    n_again = spec.confirm.top * spec.confirm.seeds
    running = n_workers * (2 * state + adapters)  # a new state is written beside the old one
    paused = n_trials if spec.pruning.name == "promote" else 0
    return (
        (max(n_kept, paused) + n_again) * (adapters + state)
        + running
        + (n_trials + n_again) * _SMALL_BYTES_A_TRIAL
    )
