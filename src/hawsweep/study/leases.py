"""Who runs a trial, and who a study, among several machines: counters that are raised, and watched.

No clocks are compared. Who watches a counter decides by its own clock when it has stood still too
long.
"""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar

import optuna
from optuna.trial import FrozenTrial, TrialState

from hawsweep.errors import StudyBusyError
from hawsweep.machine.processes import identity, is_alive_here, is_dead_here, is_here, machine_id
from hawsweep.study.attributes import LEASE, SUPERVISOR, TURN, WORKER
from hawsweep.study.faults import Fault
from hawsweep.study.optuna_door import storage_of, trial_id
from hawsweep.study.patience import at_once
from hawsweep.study.place import Place
from hawsweep.text import duration

K = TypeVar("K", bound=Hashable)

_POLL_S = 0.1
# Between two looks of a process that watches, where it was not away.
_LOOKS_S = 10.0
# In a turn: reading all trials and choosing settings takes seconds at most.
_TURN_S = 30.0
_NO_TURN = [False, 0, 0]
_LONGEST_POLL_S, _LOOKS_A_BEAT = 2.0, 3


def raise_s() -> float:
    """Seconds between two raises of a counter."""
    return float(os.environ.get("HAWSWEEP_LEASE_S") or 20.0)


def expire_s() -> float:
    """Seconds without a raise after which a counter's owner counts as gone."""
    return 6 * raise_s()


class Watched(Generic[K]):
    """Counters as this process has seen them, and which have stood still.

    Args:
        clock: In seconds; it stops where the machine sleeps.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[K, tuple[object, float]] = {}
        self._looked = clock()

    def look(self, counters: Mapping[K, object]) -> set[K]:
        """Take notice of all counters; give those that have stood still for ``expire_s``.

        After a time in which this process did not look, all count as just raised.
        """
        now = self._clock()
        was_away = now - self._looked > max(expire_s() / 2, _LOOKS_S)
        self._looked, before = now, self._seen
        self._seen = {
            key: before[key]
            if key in before and before[key][0] == value and not was_away
            else (value, now)
            for key, value in counters.items()
        }
        return {key for key, (_, since) in self._seen.items() if now - since > expire_s()}


@contextmanager
def _raising(raise_to: Callable[[int], None]) -> Iterator[None]:
    """Raise a counter from a thread, at once and then every ``raise_s``. A fault is tried again."""
    done = threading.Event()

    def run() -> None:
        n = 0
        while not done.is_set():
            n += 1
            with suppress(Exception), at_once():  # as a storage that does not answer
                raise_to(n)
            done.wait(raise_s())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(1.0)


@contextmanager
def leased(study: optuna.Study, number: int, lost: Callable[[], None]) -> Iterator[None]:
    """Hold a running trial during the block.

    Args:
        lost: Called, in a thread, where the trial has ended from outside.
    """
    its_id = trial_id(study.get_trials(deepcopy=False)[number])

    def raise_to(n: int) -> None:
        try:
            storage_of(study).set_trial_user_attr(its_id, LEASE, n)
        except (optuna.exceptions.UpdateFinishedTrialError, KeyError):
            lost()

    with _raising(raise_to):
        yield


def count_running(trials: Iterable[FrozenTrial]) -> int:
    """Of these trials those that run, on any machine; one of a process that has ended here, and one
    of another program, does not.
    """
    return sum(_is_run(trial) for trial in trials if trial.state == TrialState.RUNNING)


def _is_run(trial: FrozenTrial) -> bool:
    owner = trial.user_attrs.get(WORKER)
    return owner is not None and not is_dead_here(owner)


def elsewhere(trials: Iterable[FrozenTrial]) -> dict[int, object]:
    """The counters of trials that run on other machines, by their numbers."""
    return {
        trial.number: (trial.user_attrs[WORKER].get("pid"), trial.user_attrs.get(LEASE))
        for trial in trials
        if trial.state == TrialState.RUNNING
        and trial.user_attrs.get(WORKER) is not None
        and not is_here(trial.user_attrs[WORKER])
    }


def counters(study: optuna.Study) -> dict[int | str, object]:
    """The counters of all that runs a study on other machines."""
    trials = elsewhere(study.get_trials(deepcopy=False))
    found: dict[int | str, object] = dict(trials.items())
    leader = leader_of(study)
    if leader is not None and not is_here(leader):
        found["leader"] = leader.get("n")
    return found


def silent(owner: Mapping[str, Any]) -> Fault:
    """The fault of a trial whose machine is not heard of."""
    return Fault("silent", f"{_host(owner)} was not heard of for {duration(expire_s())}")


def leader_of(study: optuna.Study) -> dict[str, Any] | None:
    """The process that started a study and has not ended, as far as the study knows."""
    found: dict[str, Any] | None = study.user_attrs.get(SUPERVISOR)
    return None if found is None or is_dead_here(found) else found


class Lead:
    """The lead of a study, for the process that has it.

    Attributes:
        taken_over: Set where another process has it now.
        left_s: Gives the seconds until the sweep's timeout, which the others are told; None without
            one. A thread calls it.
    """

    def __init__(self) -> None:
        self.taken_over = threading.Event()
        self.left_s: Callable[[], float | None] = lambda: None


class Leader:
    """Whether a study's leader lives, for a process that joined.

    Args:
        clock: See ``Watched``.
    """

    def __init__(self, study: optuna.Study, clock: Callable[[], float] = time.monotonic) -> None:
        self._study, self._watched, self._clock = study, Watched[str](clock), clock
        self._was_seen = False
        self._said: tuple[object, float] = (None, 0.0)

    def lives(self) -> bool:
        """Whether the process that started the study runs it still."""
        found = leader_of(self._study)
        if found is None:
            return False
        self._was_seen = True
        return is_alive_here(found) or not self._watched.look({"leader": found.get("n")})

    def has_ended(self) -> bool:
        """Whether it has ended the sweep, and was not lost."""
        return self._was_seen and self._study.user_attrs.get(SUPERVISOR) is None

    def left_s(self) -> float | None:
        """The seconds until the sweep's timeout by what it last said; None if it says none."""
        found = self._study.user_attrs.get(SUPERVISOR) or {}
        if (left := found.get("left_s")) is None:
            return None
        said = (found.get("by"), found.get("n"))
        if self._said[0] != said:
            self._said = (said, self._clock())
        return float(left) - (self._clock() - self._said[1])


@contextmanager
def leading(study: optuna.Study, join: str, say: Callable[[str], None]) -> Iterator[Lead]:
    """Lead a study, as the one process on all machines, during the block.

    Args:
        study: An object of its own: a thread uses it.
        join: A command that runs trials beside the one that leads.
        say: Called with why this takes time.

    Raises:
        StudyBusyError: Another process leads it.
    """
    own, by, lead = identity(), os.urandom(8).hex(), Lead()
    _wait_for_lead(study, join, say)

    def raise_to(n: int) -> None:
        found = study.user_attrs.get(SUPERVISOR)
        if (found or {}).get("by") != by:
            lead.taken_over.set()
        else:
            about = {"by": by, "n": n, "left_s": lead.left_s()}
            study.set_user_attr(SUPERVISOR, {**own, **about})

    study.set_user_attr(SUPERVISOR, {**own, "by": by, "n": 0})
    try:
        with _raising(raise_to):
            yield lead
    finally:
        with suppress(Exception):  # else it is seen to stand still
            if (study.user_attrs.get(SUPERVISOR) or {}).get("by") == by:
                study.set_user_attr(SUPERVISOR, None)


def _wait_for_lead(study: optuna.Study, join: str, say: Callable[[str], None]) -> None:
    before = leader_of(study)
    if before is None:
        return
    if not is_alive_here(before):
        say(
            f"{_host(before)} runs this study, or was lost: whether it does is known in "
            f"{duration(expire_s())}"
        )
    watched, began = Watched[str](), time.monotonic()
    while (found := leader_of(study)) is not None:
        if is_alive_here(found) or found != before:
            raise StudyBusyError(
                f"Study {study.study_name!r} is being run by process {found['pid']} on "
                f"{_host(found)}. Run trials of it here, too: `{join}`."
            )
        if watched.look({"leader": found.get("n")}):
            return
        time.sleep(min(raise_s(), 5 * _POLL_S, time.monotonic() - began + _POLL_S))


@contextmanager
def turn(confirming: optuna.Study, name: str) -> Iterator[None]:
    """Wait for the right to ask a study for a trial: one process on all machines at a time.

    Optuna's storages have no lock, and no compare-and-set of an attribute. Lamport's bakery
    algorithm takes registers that are read and written ("A new solution of Dijkstra's concurrent
    programming problem", 1974): each takes a number above all others', and waits for the smaller
    ones. Who waits counts up a third value: a register that stands still for half a minute is of a
    process that has died, and is cleared.

    Args:
        confirming: The study whose attributes are the registers; the study's own are shown.
        name: Of the register, one for each folder of studies.
    """
    key = f"{TURN}{name}"
    confirming.set_user_attr(key, [True, 0, 0])
    number = 1 + max((n for _, n, _ in _turns(confirming).values()), default=0)
    confirming.set_user_attr(key, [False, number, 0])
    try:
        _wait_for_turn(confirming, key, number)
        yield
    finally:
        confirming.set_user_attr(key, _NO_TURN)


def _wait_for_turn(confirming: optuna.Study, key: str, number: int) -> None:
    seen: dict[str, tuple[list[Any], float]] = {}
    looked, beat = time.monotonic(), 0
    while True:
        others, now = _turns(confirming), time.monotonic()
        others.pop(key, None)
        was_away, looked = now - looked > _TURN_S / 2, now  # as while a database did not answer
        seen = {
            each: seen[each]
            if each in seen and seen[each][0] == value and not was_away
            else (value, now)
            for each, value in others.items()
            if value[0] or (value[1] and (value[1], each) < (number, key))
        }
        for each in [each for each, (_, since) in seen.items() if now - since > _TURN_S]:
            confirming.set_user_attr(each, _NO_TURN)
            del seen[each]
        if not seen:
            return
        beat += 1
        if beat % _LOOKS_A_BEAT == 0:
            confirming.set_user_attr(key, [False, number, beat])
        # Who waits for many looks less often: else a thousand would ask the database all the time.
        time.sleep(min(_POLL_S * len(seen), _LONGEST_POLL_S))


def register_of(place: Place) -> str:
    """The name of the register of a machine's folder of studies; see ``turn``."""
    where = f"{machine_id()} {os.uname().nodename} {place.studies_dir.resolve()}"
    return hashlib.sha256(where.encode()).hexdigest()[:12]


def _turns(confirming: optuna.Study) -> dict[str, list[Any]]:
    attrs = confirming.user_attrs
    return {key: value for key, value in attrs.items() if key.startswith(TURN)}


def _host(owner: Mapping[str, Any]) -> str:
    return str(owner.get("host") or "another machine")
