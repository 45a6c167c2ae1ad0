"""What records of one source are worth in those of another, by curves of each and of all."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import optuna

from hawsweep.data.load import count_by_source
from hawsweep.errors import StudyError
from hawsweep.results.data_curve import (
    DataCurve,
    Source,
    loss_curve,
    lowest_losses,
    read_curve,
)
from hawsweep.scoring.intervals import LEVEL
from hawsweep.spec.sweep import DataSpec

# Beyond so many times the largest source a worth is no number that was seen.
_FURTHEST = 10


@dataclass(frozen=True)
class Worth:
    """The number of records of the largest source that lower the loss as much.

    Attributes:
        low: Of the interval (95 %); ``high`` is None where no number of records may be enough.
    """

    median: float | None
    low: float
    high: float | None

    def __str__(self) -> str:
        if self.median is None:
            return f"more than {_rounded(self.low)}"
        high = "any number" if self.high is None else _rounded(self.high)
        return f"{_rounded(self.median)} (95 % {_rounded(self.low)} to {high})"


@dataclass(frozen=True)
class SourceWorth:
    """One of a sweep's data sets.

    Attributes:
        name: Its reference.
        n: Its training records.
        curve: Of it alone; None of one with too few records for three sizes.
        alone: Its worth where it is all there is; None of the largest source.
        beside: What it adds to all records of the largest source, less these; None where a run does
            not see those.
    """

    name: str
    n: int
    curve: DataCurve | None
    alone: Worth | None = None
    beside: Worth | None = None


@dataclass(frozen=True)
class DataSources:
    """The sources of a sweep's data, the largest first."""

    study: str
    trial: int
    sources: tuple[SourceWorth, ...]

    def to_plain(self) -> dict[str, Any]:
        """As plain values, for ``--json``."""
        return {**asdict(self), "sentences": self.sentences()}

    def sentences(self) -> list[str]:
        """What the sources are worth, in words."""
        largest, *others = self.sources
        said = []
        for each in others:
            said.append(
                f"{each.n:,} of {each.name} alone are worth {each.alone} of {largest.name}, by "
                "validation loss."
            )
            if each.beside is not None:
                said.append(
                    f"Beside all {largest.n:,} of {largest.name} they are worth {each.beside} more "
                    "of it."
                )
        return said


def sources_of(data: Sequence[DataSpec], name: str) -> list[Source]:
    """For each data set the data with it as the only source. The others keep their validation and
    test records.

    Raises:
        StudyError: There is one data set only.
    """
    counts = count_by_source(data)
    if len(data) == 1:
        raise StudyError(
            f"The data of study {name!r} have one source, {data[0].path}. Sources are told apart "
            "where `data` is a list."
        )

    def only(at: int) -> tuple[DataSpec, ...]:
        return tuple(
            each.model_copy(update={"weight": 1.0 if place == at else 0.0})
            for place, each in enumerate(data)
        )

    return [Source(only(at), n) for at, n in enumerate(counts)]


def read_sources(
    runs: Sequence[optuna.Study],
    whole: optuna.Study,
    data: Sequence[DataSpec],
    counts: Sequence[int],
    name: str,
    trial: int,
) -> DataSources:
    """What each source is worth in records of the largest one.

    Args:
        runs: The studies of each source, in the order of ``data``.
        whole: The study of all data.
        counts: Training records of each source.
        name: Of the study with that trial.

    Raises:
        StudyError: Fewer than three sizes of the largest source are complete, or the run on all
            records of a source is not.
    """
    for at, run in enumerate(runs):
        if counts[at] not in {size for size, _ in lowest_losses(run)}:
            raise StudyError(
                f"The run on all {counts[at]:,} records of {data[at].path} is not complete. "
                f"Study {run.study_name!r} has the reason."
            )
    order = sorted(range(len(data)), key=lambda at: -counts[at])
    largest = order[0]
    curve = read_curve(runs[largest], name, trial)  # refused where it is none
    found = [SourceWorth(data[largest].path, counts[largest], curve)]
    for at in order[1:]:
        alone = worth(runs[largest], lowest_losses(runs[at]), counts[largest])
        beside = None
        is_whole = sum(counts) in {size for size, _ in lowest_losses(whole)}
        # Of more, the rest is more than the largest; what no run sees adds to nothing.
        if len(data) == 2 and is_whole and curve.more:
            beside = worth(runs[largest], lowest_losses(whole), counts[largest], less=curve.n_seen)
        try:
            of_it = read_curve(runs[at], name, trial)
        except StudyError:  # too few sizes, or none that make a curve
            of_it = None
        found.append(SourceWorth(data[at].path, counts[at], of_it, alone, beside))
    return DataSources(name, trial, tuple(found))


def worth(
    yardstick: optuna.Study, losses: Sequence[tuple[int, float]], n: int, less: int = 0
) -> Worth:
    """The records of the yardstick's source with which its curve reaches a loss.

    Args:
        losses: Of runs, by size; those of the largest size count.
        n: All records of the yardstick's source.
        less: What is taken off.
    """
    law = loss_curve(yardstick)
    most = max(size for size, _ in losses)
    reached = float(np.mean([loss for size, loss in losses if size == most]))
    sizes = np.minimum(law.size_at(reached), _FURTHEST * n) - less
    low, median, high = np.quantile(sizes, ((1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2))
    end = _FURTHEST * n - less
    return Worth(
        None if median >= end else float(median),
        float(low),
        None if high >= end else float(high),
    )


def _rounded(count: float) -> str:
    return f"{int(float(f'{count:.2g}')):,}"
