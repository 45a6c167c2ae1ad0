"""What a worker is to do next, decided from what is known of the sweep and of nothing else."""

from dataclasses import dataclass
from typing import Literal

# ``queue``: queue what is to be confirmed, and ask again; ``wait``: until something changes. Where
# they are given, every worker that waits does ``confirm`` and ``finish``, which ends it.
Command = Literal["exit", "base", "trial", "wait", "queue", "confirm", "test", "finish"]


@dataclass(frozen=True)
class Work:
    """What is known of a sweep when a worker has nothing to do.

    Attributes:
        doing: What each worker does; None for one that waits.
        is_interrupted: The sweep is to end.
        joins: Another process sees to everything but trials.
        misses_base: An untuned model is to be measured yet.
        n_trials: How many are to be finished; ``n_finished`` are, and ``n_running`` run on this
            machine, in any process.
        time_left_s: Until the sweep's time is up; None where it has no end.
        confirm_s: About how long it takes to train the best trials again.
        n_to_confirm: Runs with new seeds that wait; None before what is wanted was queued.
        wants_test: The winner has not answered the test split.
    """

    doing: tuple[str | None, ...]
    n_trials: int
    n_finished: int
    n_running: int
    is_interrupted: bool = False
    joins: bool = False
    misses_base: bool = False
    time_left_s: float | None = None
    confirm_s: float = 0.0
    n_to_confirm: int | None = None
    wants_test: bool = False

    @property
    def wants_trials(self) -> bool:
        """Whether another trial is to begin, in time for the best to be trained again."""
        is_late = self.is_over(self.confirm_s)
        return not is_late and self.n_finished + self.n_running < self.n_trials

    @property
    def may_confirm(self) -> bool:
        """Whether this process confirms, and has the time."""
        return not self.joins and not self.is_over()

    def is_over(self, reserve_s: float = 0.0) -> bool:
        """Whether less time is left than ``reserve_s``."""
        return self.time_left_s is not None and self.time_left_s < reserve_s


def next_work(work: Work) -> Command:
    """What a worker that waits is to do."""
    if work.is_interrupted:
        return "exit"
    if work.misses_base and not work.joins and "base" not in work.doing:
        return "base"
    if work.wants_trials:
        return "trial"
    if work.joins:
        return "exit"
    if "base" in work.doing or "trial" in work.doing or work.n_running:
        return "wait"  # the last one sees what is to be confirmed
    if work.may_confirm:
        if work.n_to_confirm is None:
            return "queue"
        if work.n_to_confirm:
            return "confirm"
    if any(work.doing):
        return "wait"  # the last one tests
    return "test" if work.wants_test else "finish"
