"""Trials whose worker has ended, or whose machine is not heard of: they are freed, to go on."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import optuna

from hawsweep.study.attributes import WORKER
from hawsweep.study.faults import GONE
from hawsweep.study.leases import Watched, elsewhere, silent
from hawsweep.study.queue import Ending, end_failed, orphans_here, reap_running

# For a worker without a supervisor to save its trial's state.
_GRACE_S = 60.0


class LeftTrials:
    """Looks for them from time to time.

    Args:
        joins: The process that leads the study looks after other machines.
    """

    def __init__(
        self,
        study: optuna.Study,
        confirming: optuna.Study,
        *,
        joins: bool,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._studies, self._now = (study, confirming), now
        others = () if joins else (study, confirming)
        self._elsewhere = [(each, Watched[int](now)) for each in others]
        self._orphans: dict[int, float] = {}

    def free(self) -> Iterator[tuple[int, Ending]]:
        """Free those that are found; give how each ended, by its number."""
        self._end_orphans()
        for study in self._studies:
            yield from reap_running(study, GONE).items()
        for study, watched in self._elsewhere:
            trials = study.get_trials(deepcopy=False)
            for number in watched.look(elsewhere(trials)):
                owner = trials[number].user_attrs[WORKER]
                if (end := end_failed(study, number, silent(owner), owner)) is not None:
                    yield number, end

    def _end_orphans(self) -> None:
        """End workers that have lost their supervisor without noticing, and still hold a trial."""
        orphans = [pid for study in self._studies for pid in orphans_here(study)]
        self._orphans = {pid: self._orphans.get(pid, self._now()) for pid in orphans}
        for pid, since in self._orphans.items():
            if self._now() - since > _GRACE_S:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
