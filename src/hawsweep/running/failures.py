"""When a sweep gives up: failures, or settings that do not fit, many in a row."""

import time
from collections.abc import Callable

from hawsweep.errors import MemoryBudgetError, WorkerError
from hawsweep.study.faults import DISPLAY_HELP, Kind
from hawsweep.study.place import Place

MAX_FAILURES_IN_A_ROW = 3
# And an hour since the first: until a display falls asleep, which its owner allows after minutes.
_MAX_WATCHDOGS_IN_A_ROW = 20
_WATCHDOGS_S = 3600.0
# After more a worker rests before it goes on: each death leaves a failed trial.
_WATCHDOGS_WITHOUT_REST, _REST_S = 6, 60.0
MAX_INFEASIBLE_IN_A_ROW = 50


class Failures:
    """Counts them, without a successful trial in between."""

    def __init__(
        self, name: str, place: Place, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name, self._place, self._clock = name, place, clock
        self._failures: list[Kind] = []
        self._since = 0.0  # the first of them
        self._n_infeasible = 0

    def count(self, kind: Kind | None, reason: str) -> None:
        """Count how a trial or worker ended.

        Args:
            kind: Of its fault; None without one.

        Raises:
            WorkerError: These are too many.
        """
        same = kind is not None and all(before == kind for before in self._failures)
        self._failures = [] if kind is None else [*(self._failures if same else []), kind]
        if len(self._failures) == 1:
            self._since = self._clock()
        is_watchdog = kind == "watchdog"
        if is_watchdog and self._clock() - self._since < _WATCHDOGS_S:
            return
        if len(self._failures) >= (
            _MAX_WATCHDOGS_IN_A_ROW if is_watchdog else MAX_FAILURES_IN_A_ROW
        ):
            raise WorkerError(
                f"{len(self._failures)} failures in a row, the last: {reason}. "
                f"Finished trials are kept. {f'{DISPLAY_HELP} ' if is_watchdog else ''}"
                f"Look at {self._place.study_dir(self._name)} for worker-*.log and "
                "trials/*/log.txt, "
                "then go on with the same command."
            )

    @property
    def rest_s(self) -> float:
        """Seconds that a new worker waits before it goes on."""
        is_often = len(self._failures) > _WATCHDOGS_WITHOUT_REST
        return _REST_S if is_often and self._failures[0] == "watchdog" else 0.0

    def count_infeasible(self, *, is_infeasible: bool) -> None:
        """Count whether a trial did not fit.

        Raises:
            MemoryBudgetError: These are too many.
        """
        self._n_infeasible = self._n_infeasible + 1 if is_infeasible else 0
        if self._n_infeasible >= MAX_INFEASIBLE_IN_A_ROW:
            raise MemoryBudgetError(
                f"{self._n_infeasible} proposals in a row do not fit into memory. Narrow the "
                f"search, or raise memory.budget; `hawsweep plan NAME --all` shows what fits."
            )
