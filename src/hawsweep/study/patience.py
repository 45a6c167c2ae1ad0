"""A shared storage whose calls are tried again while its connection is at fault, for ten minutes.

A call whose answer was lost may have been done: before it is made again it is found out whether it
was.
"""

import copy
import json
import logging
import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial, wraps
from typing import Any, TypeVar

import optuna
from optuna.storages import BaseStorage, GrpcStorageProxy, RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import OperationalError

from hawsweep.errors import StorageOutageError
from hawsweep.study.optuna_door import CALLED_BY_CACHE, trial_id

logger = logging.getLogger(__name__)

LONGEST_WAIT_S = 30.0
_FIRST_WAIT_S, _SLICE_S = 0.5, 0.25
# gRPC's codes of a connection at fault. All others come from the server's storage.
_LOST = {"UNAVAILABLE", "CANCELLED"}
# A trial's system attribute: the call that made it.
_CALL = "hawsweep:call"
_this_thread = threading.local()

T = TypeVar("T")
Kind = TypeVar("Kind", bound=type[BaseStorage])


class ConnectionLostError(Exception):
    """The connection to a database failed, and not the statement."""


class StorageAwayError(Exception):
    """A storage does not answer now; see ``at_once``."""


@contextmanager
def at_once() -> Iterator[None]:
    """Make each call of this thread once in the block; one without an answer raises
    ``StorageAwayError``.
    """
    before = getattr(_this_thread, "at_once", False)
    _this_thread.at_once = True
    try:
        yield
    finally:
        _this_thread.at_once = before


@contextmanager
def while_waiting(do: Callable[[], None]) -> Iterator[None]:
    """Call ``do`` several times a second while a call of this thread waits; it may raise."""
    before = getattr(_this_thread, "do", None)
    _this_thread.do = do
    try:
        yield
    finally:
        _this_thread.do = before


def outage_s() -> float:
    """Seconds for which what does not answer is asked again; shorter in tests."""
    return float(os.environ.get("HAWSWEEP_OUTAGE_S") or 600.0)


class Patience:
    """Tries calls of one storage again, with growing, jittered waits.

    Args:
        where: The database's host, for messages.
        now: A clock, in seconds.
    """

    def __init__(
        self,
        where: str,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._where, self._now, self._sleep = where, now, sleep
        self._longest_s = outage_s()
        self._since: float | None = None  # since when the storage has not answered
        # The user attribute that was set last: of which trial, its key and value.
        self.last_set: tuple[int, str, Any] | None = None

    def call(self, make: Callable[[], T], again: Callable[[], T] | None = None) -> T:
        """Make a call until it has an answer.

        Args:
            again: Makes it after a fault, where it may have been done.

        Raises:
            StorageOutageError: The storage has not answered for ten minutes.
            StorageAwayError: It does not answer, and this thread does not wait.
        """
        wait_s = _FIRST_WAIT_S
        while True:
            try:
                answer = make()
            except Exception as fault:
                if not is_connection_fault(fault):
                    raise
            else:
                self._since = None
                return answer
            make = again or make
            self._wait(wait_s * random.uniform(0.5, 1.0))
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def _wait(self, wait_s: float) -> None:
        now = self._now()
        if self._since is None:
            self._since = now
            logger.warning("The database at %s does not answer. It is tried again.", self._where)
        if now - self._since >= self._longest_s:
            raise StorageOutageError(
                f"The database at {self._where} did not answer for {_in_words(self._longest_s)}. "
                "Finished trials and the states of others are kept; the same command goes on."
            )
        if getattr(_this_thread, "at_once", False):
            raise StorageAwayError
        until = min(now + wait_s, self._since + self._longest_s)
        while (now := self._now()) < until:
            if (do := getattr(_this_thread, "do", None)) is not None:
                with at_once():
                    do()
            self._sleep(min(_SLICE_S, until - now))


def _in_words(seconds: float) -> str:
    return f"{seconds / 60:g} minutes" if seconds >= 120 else f"{seconds:g} seconds"


def is_connection_fault(fault: Exception) -> bool:
    """Whether a storage's connection is at fault, and not what was asked."""
    code = getattr(fault, "code", None)  # of a grpc.RpcError, a package that may be missing
    is_lost = callable(code) and getattr(code(), "name", None) in _LOST
    return is_lost or isinstance(fault, ConnectionLostError | ConnectionError)


def _patient(cls: Kind) -> Kind:
    """Have all calls of a storage made by its ``patience``."""
    repeatable = BaseStorage.__abstractmethods__ | {"get_trial_id_from_study_id_trial_number"}
    for name in {*repeatable, *CALLED_BY_CACHE}.difference(vars(cls)):
        if (method := getattr(cls, name, None)) is not None:
            setattr(cls, name, _tried_again(method, _AGAIN.get(name)))
    set_attr = "set_trial_user_attr"
    setattr(cls, set_attr, _noted(getattr(cls, set_attr)))
    return cls


def _tried_again(method: Callable[..., T], again: Callable[..., T] | None) -> Callable[..., T]:
    @wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> T:
        make = partial(method, self, *args, **kwargs)
        return self.patience.call(  # type: ignore[no-any-return]
            make, None if again is None else partial(again, self, make, *args, **kwargs)
        )

    return call


def _noted(method: Callable[[Any, int, str, Any], None]) -> Callable[[Any, int, str, Any], None]:
    @wraps(method)
    def set_trial_user_attr(self: Any, trial_id: int, key: str, value: Any) -> None:
        method(self, trial_id, key, value)
        self.patience.last_set = (trial_id, key, json.loads(json.dumps(value)))

    return set_trial_user_attr


def _create_study_again(
    storage: BaseStorage, make: Callable[[], int], directions: object, study_name: str
) -> int:
    try:
        return make()
    except optuna.exceptions.DuplicatedStudyError:
        return storage.get_study_id_from_name(study_name)


def _delete_study_again(_: BaseStorage, make: Callable[[], None], study_id: int) -> None:
    with suppress(KeyError):
        make()


def _set_state_again(
    storage: Any,
    make: Callable[[], bool],
    trial_id: int,
    state: TrialState,
    values: Sequence[float] | None = None,
) -> bool:
    known = storage.get_trial(trial_id)
    if known.state != state:
        return make()
    if state != TrialState.RUNNING:
        return True
    # A process that takes a trial writes its name before: if ours is the last, it is ours.
    of, key, value = storage.patience.last_set or (None, "", None)
    return of == trial_id and known.user_attrs.get(key) == value


_AGAIN: dict[str, Callable[..., Any]] = {
    "create_new_study": _create_study_again,
    "delete_study": _delete_study_again,
    "set_trial_state_values": _set_state_again,
}


def _marked(template: FrozenTrial | None) -> FrozenTrial:
    """A new trial with a mark of the call that makes it."""
    marked = create_trial(state=TrialState.RUNNING) if template is None else copy.copy(template)
    marked.system_attrs = {**marked.system_attrs, _CALL: uuid.uuid4().hex}
    return marked


def _find(storage: BaseStorage, study_id: int, marked: FrozenTrial) -> FrozenTrial | None:
    trials = storage.get_all_trials(study_id, deepcopy=False)
    of_call = (
        each for each in trials if each.system_attrs.get(_CALL) == marked.system_attrs[_CALL]
    )
    return next(of_call, None)


@_patient
class PatientDatabase(RDBStorage):
    """A shared database, opened."""

    def __init__(self, url: str, patience: Patience, **options: Any) -> None:
        self.patience = patience
        try:
            super().__init__(url, **options)
        except OperationalError as fault:
            raise ConnectionLostError(_first_line(fault)) from fault
        event.listen(self.engine, "handle_error", _tell_connection_faults)

    def _create_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None = None
    ) -> FrozenTrial:
        marked = _marked(template_trial)
        make = partial(super()._create_new_trial, study_id, marked)
        return self.patience.call(make, lambda: _find(self, study_id, marked) or make())


@_patient
class PatientProxy(GrpcStorageProxy):
    """The proxy of a storage, opened."""

    def __init__(self, host: str, port: int) -> None:
        self.patience = Patience(f"{host}:{port}")
        super().__init__(host=host, port=port)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """See ``BaseStorage``."""
        marked = _marked(template_trial)
        make = partial(super().create_new_trial, study_id, marked)

        def again() -> int:
            there = _find(self, study_id, marked)
            return make() if there is None else trial_id(there)

        return self.patience.call(make, again)


def _tell_connection_faults(context: ExceptionContext) -> None:
    """Raise another exception for a lost connection than for a wrong statement: Optuna repeats the
    making of a trial after all that SQLAlchemy raises, and would make it twice.
    """
    is_connecting = context.connection is None
    if (context.is_disconnect or is_connecting) and not context.is_pre_ping:
        raise ConnectionLostError(_first_line(context.original_exception))


def _first_line(fault: BaseException) -> str:
    return str(fault).strip().split("\n")[0]
