"""Sweeps in the background, independent of the terminal that started them."""

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from hawsweep.errors import StudyBusyError, WorkerError
from hawsweep.machine.children import child_command, child_environment
from hawsweep.machine.processes import supervisor_of
from hawsweep.running.notify import NOTIFY_VARIABLE, find_targets
from hawsweep.study.credentials import with_password
from hawsweep.study.place import STORAGE_VARIABLE, Place

# What the process prints, in the study's folder; also where no study was made.
OUTPUT_FILE = "sweep.log"
_POLL_S = 0.1
# How long a start that is preparing is watched: mostly it is refused before.
_WATCHED_S = 20.0


def start_detached(
    command: Sequence[str], name: str, place: Place, notify: Sequence[str] = ()
) -> tuple[int, Path]:
    """Start a hawsweep command in its own session; return when its workers start, or when it has
    supervised its study for some time, for instance while it downloads.

    Args:
        command: The arguments after ``hawsweep``.
        name: Of the study.
        notify: Where notifications go, instead of the environment variable's value; see
            ``notify.find_targets``.

    Returns:
        The process id, and the file with its output.

    Raises:
        StudyBusyError: The study is being run already.
        WorkerError: It ended at once; the message is its output.
    """
    find_targets(notify)  # refuses wrong addresses
    folder = place.study_dir(name)  # refuses a name that leads elsewhere
    if (holder := supervisor_of(folder)) is not None:
        raise StudyBusyError(
            f"Study {name!r} is being run by process {holder.get('pid', '?')} already. "
            f"Stop it with `{place.command('stop', name)}`."
        )
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / OUTPUT_FILE
    environment = child_environment()
    for option in place.storage_options:
        # Without secrets, which every user of the machine could read; a password is looked up.
        if with_password(option.partition("=")[2]) == place.storage_url:
            command = [*command, option]
        else:
            environment[STORAGE_VARIABLE] = str(place.storage_url)
    if notify:
        environment[NOTIFY_VARIABLE] = "\n".join(notify)
    with log.open("wb") as output:
        process = subprocess.Popen(
            child_command("-m", "hawsweep.cli", *command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    before, began = _worker_logs(folder), time.monotonic()
    while process.poll() is None:
        if (supervisor_of(folder) or {}).get("pid") != process.pid:
            began = time.monotonic()
        elif _worker_logs(folder) != before or time.monotonic() - began > _WATCHED_S:
            process.returncode = 0  # this process no longer waits for it
            return process.pid, log
        time.sleep(_POLL_S)
    said = log.read_text(encoding="utf-8", errors="replace").strip()
    if process.returncode == 0:
        return process.pid, log
    # What was told before it was refused stays in the log.
    message, *lines = f"\n{said}".rpartition("\nError: ")[2].strip().splitlines() or [
        f"It ended with {process.returncode}."
    ]
    raise WorkerError(message, lines=[each.strip() for each in lines])


def _worker_logs(folder: Path) -> dict[str, int]:
    """When each log of a worker was written last."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("worker*.log")}
