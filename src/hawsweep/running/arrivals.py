"""The files of trials that end on other machines arrive here from the study's store, where ``keep``
then removes their archives.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import optuna

from hawsweep.errors import TravelError
from hawsweep.running.events import Event, Listener
from hawsweep.spec.sweep import SweepSpec
from hawsweep.study import travel
from hawsweep.study.artifact_stores import artifacts_url
from hawsweep.study.clean_up import not_kept, remove_bulk
from hawsweep.study.place import Place
from hawsweep.study.storage import is_storage_fault

# Seconds between looks for trials that have ended.
_LOOK_S = 5.0
# Seconds at the end of a sweep for files that are still to come.
_LAST_WAIT_S = 120.0


class _Arrivals(threading.Thread):
    """Fetches in a thread of its own: the sweep does not wait.

    Attributes:
        faults: In words, each once.
    """

    def __init__(
        self, spec: SweepSpec, study: optuna.Study, confirming: optuna.Study, place: Place
    ) -> None:
        super().__init__(daemon=True)
        self._spec, self._place = spec, place
        self._study, self._confirming = study, confirming
        self._done: set[tuple[str, int]] = set()
        self._removed: set[int] = set()  # their archives
        self._failed: set[object] = set()
        self._told: set[str] = set()
        self.faults: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._is_last = threading.Event()

    def run(self) -> None:
        """Look now and then, and once more at the end."""
        while not self._is_last.wait(_LOOK_S):
            self._look()
        self._look()

    def finish(self) -> None:
        """Wait for what is still to come, for two minutes at most."""
        self.stop()
        self.join(_LAST_WAIT_S)
        if self.is_alive():
            self.faults.put("files of trials are still in the store; commands fetch what they need")

    def stop(self) -> None:
        """Look once more, and no more then."""
        self._is_last.set()

    def _look(self) -> None:
        name, place = self._study.study_name, self._place
        try:
            if self._fetch(self._study) + self._fetch(self._confirming):
                remove_bulk(self._study, place, self._spec)
            trials = self._study.get_trials(deepcopy=False)
            for number in not_kept(self._study, self._spec):
                if (name, number) in self._done and number not in self._removed:
                    self._try(number, partial(travel.remove, self._study, place, trials[number]))
                    if number not in self._failed:
                        self._removed.add(number)
        except Exception as fault:
            if not is_storage_fault(fault):  # the sweep itself meets that, too
                raise

    def _fetch(self, study: optuna.Study) -> int:
        n_fetched = 0
        for trial in study.get_trials(deepcopy=False):
            key = (study.study_name, trial.number)
            if trial.state.is_finished() and key not in self._done:
                found = self._try(key, partial(travel.fetch, study, self._place, trial))
                if key not in self._failed:
                    self._done.add(key)
                n_fetched += bool(found)
        return n_fetched

    def _try(self, key: object, do: Callable[[], bool | None]) -> bool | None:
        """What failed is tried once more, at the end. Each reason is told once."""
        if key in self._failed and not self._is_last.is_set():
            return None
        self._failed.discard(key)
        try:
            return do()
        except TravelError as fault:
            self._failed.add(key)
            reason = str(fault.__cause__)
            if reason not in self._told:
                self._told.add(reason)
                self.faults.put(str(fault).removesuffix("."))
            return None


@contextmanager
def arriving(
    spec: SweepSpec,
    study: optuna.Study,
    confirming: optuna.Study,
    place: Place,
    listen: Listener,
    *,
    joins: bool,
) -> Iterator[Listener]:
    """Give a listener that sees to it that files arrive, before ``ended`` is passed on.

    Args:
        joins: Another process runs the study, and gets the files.
    """
    if joins or artifacts_url(study) is None:
        yield listen
        return
    arrivals = _Arrivals(spec, study, confirming, place)

    def tell(event: Event) -> None:
        if event.kind == "ended":
            arrivals.finish()
        while not arrivals.faults.empty():
            listen(Event("not_told", values={"text": arrivals.faults.get()}))
        listen(event)

    arrivals.start()
    try:
        yield tell
    finally:
        arrivals.stop()
