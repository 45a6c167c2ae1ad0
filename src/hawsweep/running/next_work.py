"""The next command for a worker, decided from the state of the sweep only."""

from dataclasses import dataclass
from typing import Literal

# ``queue``: queue the confirming runs, and ask again; ``wait``: until something changes.
# ``confirm`` and ``finish``, which ends a worker, are for every waiting worker.
Command = Literal["exit", "base", "trial", "wait", "queue", "confirm", "test", "finish"]

_FEWEST_TO_CONFIRM = 2


@dataclass(frozen=True)
class Work:
    """The state of a sweep when a worker has no command.

    Attributes:
        doing: The command of each worker; None for a waiting one.
        is_exhausted: Whether each setting of the space was tried.
        is_settled: Whether more settings are not expected to bring what the sweep asks for.
        is_interrupted: Whether the sweep must end.
        joins: Another process started the sweep, measures the untuned model, queues the confirming
            runs and opens the test split.
        misses_base: Whether an untuned model must still be measured.
        is_led: For one that joins: whether the process that started the sweep lives.
        has_ended: For one that joins: whether that process has ended the sweep.
        n_trials: The number to begin; ``n_begun`` have a result or wait to go on, and ``n_running``
            run, in any process on any machine.
        n_complete: Trials that were trained whole.
        promotes: Whether a trial goes on that is paused, or repeats one that died.
        time_left_s: Until the sweep's timeout; None without one.
        confirm_s: About the seconds that the confirming runs take.
        was_late: Whether time was short for the confirming runs, which are under way.
        promote_s: Seconds before those in which no setting begins: paused trials go on.
        n_to_confirm: Confirming runs that wait; None before they are queued. ``n_confirming`` run.
        wants_test: The winner has not answered the test split.
    """

    doing: tuple[str | None, ...]
    n_trials: int
    n_begun: int
    n_running: int
    n_complete: int = 0
    promotes: bool = False
    is_exhausted: bool = False
    is_settled: bool = False
    is_interrupted: bool = False
    joins: bool = False
    is_led: bool = False
    has_ended: bool = False
    misses_base: bool = False
    time_left_s: float | None = None
    confirm_s: float = 0.0
    promote_s: float = 0.0
    was_late: bool = False
    n_to_confirm: int | None = None
    n_confirming: int = 0
    wants_test: bool = False

    @property
    def wants_trials(self) -> bool:
        """Whether another trial may begin or go on, and leave time for the confirming runs.

        Two are trained whole also in their time: else there is nothing to confirm.
        """
        is_late = self.was_late or self.is_over(self.confirm_s)
        if is_late and self.n_complete + self.n_running < _FEWEST_TO_CONFIRM:
            is_late = self.is_over()
        return not is_late and (self.promotes or self.may_begin)

    @property
    def may_begin(self) -> bool:
        """Whether another setting may begin."""
        return self._is_another_wanted and not self._is_late_to_begin

    @property
    def is_cut_short(self) -> bool:
        """Whether it is the time alone that keeps another setting from beginning."""
        return self._is_another_wanted and self._is_late_to_begin

    @property
    def _is_another_wanted(self) -> bool:
        is_enough = self.n_begun + self.n_running >= self.n_trials
        return not (is_enough or self.is_exhausted or self.is_settled)

    @property
    def _is_late_to_begin(self) -> bool:
        return self.was_late or self.is_over(self.confirm_s + self.promote_s)

    @property
    def may_confirm(self) -> bool:
        """Whether this process runs confirming runs, and has the time."""
        return not self.joins and not self.is_over()

    def is_over(self, reserve_s: float = 0.0) -> bool:
        """Whether less time is left than ``reserve_s``."""
        return self.time_left_s is not None and self.time_left_s < reserve_s


def next_work(work: Work) -> Command:
    """The next command of a waiting worker."""
    if work.is_interrupted or work.has_ended:
        return "exit"
    if work.misses_base and not work.joins and "base" not in work.doing:
        return "base"
    if work.wants_trials:
        return "trial"
    if work.joins:
        if work.n_to_confirm and not work.is_over():
            return "confirm"
        return "wait" if work.is_led else "exit"
    if "base" in work.doing or "trial" in work.doing or work.n_running:
        return "wait"  # the last worker queues the confirming runs
    if work.may_confirm:
        if work.n_to_confirm is None:
            return "queue"
        if work.n_to_confirm:
            return "confirm"
    if any(work.doing) or work.n_confirming:
        return "wait"  # the last worker runs the test
    return "test" if work.wants_test else "finish"
