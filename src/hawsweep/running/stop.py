"""Stopping the processes that run a study, from another process."""

import math
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hawsweep.machine.processes import is_alive_here, supervisor_of
from hawsweep.running.status import start_command
from hawsweep.running.supervisor import POLL_S
from hawsweep.study.attributes import STOP
from hawsweep.study.credentials import without_password
from hawsweep.study.leases import Watched, counters
from hawsweep.study.place import Place
from hawsweep.study.queue import n_running_here
from hawsweep.study.storage import open_storage, study_names
from hawsweep.study.study import known_spec, load_study

# After which a start that prepares is ended, if being interrupted does not end it.
_INTERRUPTED_S = 10.0


def ask_to_stop(
    name: str, place: Place, waiting: Callable[[], None], *, now: bool = False
) -> str | None:
    """Stop the processes that run a study, after the current evaluation or now; wait for their end.

    Args:
        waiting: Called several times a second meanwhile.

    Returns:
        The command that goes on with it; None if its first start still prepared, which makes no
        study; empty if no process ran it, on any machine. One that is not heard of for two minutes
        does not.

    Raises:
        StudyError: There is no such study.
    """
    folder, watched = place.study_dir(name), Watched[int | str]()
    if (pid := _preparing_here(name, place)) is not None:
        _end_preparing(pid, folder, waiting)
        return None
    study = load_study(open_storage(place, only_look=False), name)

    def is_run() -> bool:
        if supervisor_of(folder) is not None or n_running_here(study) > 0:
            return True
        others = counters(study)
        return bool(others.keys() - watched.look(others))

    def process() -> object:
        return (supervisor_of(folder) or {}).get("pid")

    was_run, begun = is_run(), process()
    study.set_user_attr(STOP, 2 if now else 1)
    while is_run():
        # Cleared by the start that was preparing, not by one that came since.
        if study.user_attrs.get(STOP) is None and process() == begun:
            study.set_user_attr(STOP, 2 if now else 1)
        waiting()
        time.sleep(POLL_S)
    if not was_run:
        return ""
    spec = known_spec(study)
    return place.command("start", name) if spec is None else start_command(name, spec, place)


def study_and_database(name: str, place: Place) -> list[str | None]:
    """A study and its database, as its lock tells other processes."""
    return [name, place.storage_url and without_password(place.storage_url)]


def _preparing_here(name: str, place: Place) -> int | None:
    """The process on this machine that prepares the first start of a study; None without one."""
    holder, path = supervisor_of(place.study_dir(name)), place.database_path
    if (
        holder is None
        or not is_alive_here(holder)
        or holder.get("of") != study_and_database(name, place)
    ):
        return None
    is_made = path is None or path.exists()
    if is_made and name in study_names(open_storage(place, only_look=False)):
        return None
    return int(holder["pid"])


def _end_preparing(pid: int, folder: Path, waiting: Callable[[], None]) -> None:
    """End a first start that prepares, as Ctrl-C does: it has nothing to save."""
    since = time.monotonic()
    signals = iter(((0.0, signal.SIGINT), (_INTERRUPTED_S, signal.SIGTERM)))
    after_s, number = next(signals)
    while supervisor_of(folder) is not None:
        if time.monotonic() - since >= after_s:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
            after_s, number = next(signals, (math.inf, number))
        waiting()
        time.sleep(POLL_S)
