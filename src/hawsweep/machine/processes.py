"""Identities of processes, whether they still run, and the lock of a study's supervisor."""

import errno
import fcntl
import hashlib
import json
import os
import platform
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from hawsweep.errors import StudyBusyError, StudyError
from hawsweep.machine import mac, memory

# Processes for each core, from which on times are too long.
_BUSY = 1.5
_LOCK_TRIES, _LOCK_POLL_S = 10, 0.05
# No lock was made here, or none can be held: on a disk that cannot be written nothing runs.
_NO_HOLDER = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS}
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


def identity(pid: int | None = None) -> dict[str, Any]:
    """A process's identity: host, machine, boot, process id, and start time.

    Args:
        pid: Of this process by default.

    Raises:
        psutil.NoSuchProcess: There is none.
    """
    pid = os.getpid() if pid is None else pid
    here = {"host": os.uname().nodename, "machine": machine_id(), "boot": boot_id()}
    return {**here, "pid": pid, "started": _started(pid)}


def is_here(owner: Mapping[str, Any] | None) -> bool:
    """Whether a process ran on this machine.

    The host's name alone does not tell: a Mac gets another one from its network.

    Args:
        owner: Its ``identity``; one that an earlier version wrote has no machine, perhaps no boot.
    """
    if owner is None:
        return False
    if "machine" not in owner:
        return owner.get("host") == os.uname().nodename or _is_same_mac(owner)
    boot = _kernel_boot_id()
    if boot and owner["boot"].partition(" ")[0] == boot:  # or in a container beside this one
        return bool(owner["boot"] == boot_id())
    return bool(owner["machine"]) and owner["machine"] == machine_id()


def is_dead_here(owner: Mapping[str, Any] | None) -> bool:
    """Whether a process ran on this machine and has ended. For another machine the answer is no.

    Args:
        owner: See ``is_here``.
    """
    if owner is None or not is_here(owner):
        return False
    if owner.get("boot", boot_id()) not in (boot_id(), _kernel_boot_id()):
        return True
    try:
        if owner.get("started", started := _started(owner["pid"])) != started:
            return True  # another process has its number now
        # Ended, but its parent has not waited for it yet.
        return psutil.Process(owner["pid"]).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def is_alive_here(owner: Mapping[str, Any] | None) -> bool:
    """Whether a process runs on this machine."""
    return is_here(owner) and not is_dead_here(owner)


@cache
def machine_id(etc: Path = Path("/etc")) -> str:
    """An id of the machine that outlives its starts; empty if the system has none.

    It is made of the system's, which is nobody else's business (machine-id(5)). On Linux it has the
    host's name, which copies of a machine have of their own; the name alone does not tell.
    """
    if platform.system() == "Darwin":
        return _hidden(mac.machine_id())
    try:
        known = (etc / "machine-id").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        known = ""
    is_known = known not in ("", "uninitialized")  # as systemd writes for the first start
    return f"{_hidden(known)}@{os.uname().nodename}" if is_known else ""


def _hidden(known: str | None) -> str:
    return hashlib.sha256(f"hawsweep {known}".encode()).hexdigest()[:16] if known else ""


@cache
def boot_id(proc: Path = Path("/proc")) -> str:
    """An id that is new at each start of the machine; empty if the system has none.

    Containers of one machine have numbers of processes of their own: on Linux the id names whose.
    """
    known = _kernel_boot_id(proc)
    try:
        numbers = os.readlink(proc / "self/ns/pid")
    except OSError:
        return known
    return f"{known} {numbers}" if known else ""


@cache
def _kernel_boot_id(proc: Path = Path("/proc")) -> str:
    """The boot without the numbers of processes, as earlier versions wrote it."""
    if platform.system() == "Darwin":
        return mac.boot_session() or ""
    try:
        return (proc / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _is_same_mac(owner: Mapping[str, Any]) -> bool:
    is_known = bool(owner.get("boot")) and platform.system() == "Darwin"
    return is_known and owner["boot"] == boot_id()


@contextmanager
def supervising(
    folder: Path, about: Mapping[str, Any], options: Sequence[str] = ()
) -> Iterator[None]:
    """Hold a study's lock. The system releases it when this process ends, for any reason.

    Args:
        folder: The study's.
        about: Facts about the holder for other processes, beside its identity.
        options: Of commands that look at the study, for the message of an error.

    Raises:
        StudyBusyError: Another process holds it.
        StudyError: The file system has no locks, or the folder cannot be written.
    """
    path = _lock_path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as fault:
        raise StudyError(
            f"{path} cannot be written: {fault.strerror}. Choose another --studies-dir."
        ) from fault
    with file:
        for _ in range(_LOCK_TRIES):
            if taken := _lock(file, path) and _is_still(file, path):
                break
            time.sleep(_LOCK_POLL_S)  # a process that checks the lock holds it for a moment
        if not taken:
            raise StudyBusyError(_busy_text(folder.name, supervisor_of(folder) or {}, options))
        file.truncate(0)
        file.write(json.dumps({**identity(), "since": time.time(), **about}))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)
            with suppress(OSError):
                if [each.name for each in folder.iterdir()] == [path.name]:  # nothing was begun
                    path.unlink()
                    folder.rmdir()


@contextmanager
def asking(folder: Path) -> Iterator[None]:
    """Wait for the right to ask a study for a trial: one process on this machine at a time.

    Args:
        folder: The study's.
    """
    with (folder / "asking.lock").open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def n_competing() -> float | None:
    """The processes that compete for the cores; None where there are cores enough for them."""
    load = os.getloadavg()[0]
    return load if load > _BUSY * memory.usable_cores() else None


def supervisor_of(folder: Path) -> dict[str, Any] | None:
    """The facts that the holder of a study's lock wrote; None if it is free."""
    path = _lock_path(folder)
    try:
        with path.open("r+", encoding="utf-8") as file:
            if _lock(file, path):
                return None
            told: dict[str, Any] = json.loads(file.read() or "{}")
            return told
    except OSError as fault:
        if fault.errno not in _NO_HOLDER:
            raise
        return None
    except json.JSONDecodeError:
        return {}  # it is just writing it


def _lock_path(folder: Path) -> Path:
    return folder / "supervisor.lock"


def _lock(file: Any, path: Path) -> bool:
    """Whether the lock was free; it is held until the file is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as fault:
        if fault.errno not in _NO_LOCKS:
            raise
        raise StudyError(
            f"The file system of {path.parent} has no locks ({fault.strerror}), so that two sweeps "
            "could write over each other. Choose a --studies-dir on a local disk."
        ) from fault
    return True


def _is_still(file: Any, path: Path) -> bool:
    """Whether a file still has its name: its last holder may have removed it."""
    try:
        return os.fstat(file.fileno()).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False


def _busy_text(name: str, holder: Mapping[str, Any], options: Sequence[str]) -> str:
    since = time.strftime("%H:%M", time.localtime(holder["since"])) if "since" in holder else "?"
    status, stop, worker = (
        shlex.join(["hawsweep", *command, *options])
        for command in (("status", name, "--watch"), ("stop", name), ("worker", name))
    )
    return (
        f"Study {name!r} is being run by process {holder.get('pid', '?')} on this machine since "
        f"{since}. Look at it with `{status}`, stop it with `{stop}`, or add workers to it with "
        f"`{worker}`."
    )


def _started(pid: int) -> float:
    """When a process started, by a clock that is never set: on Linux in ticks since boot, on a Mac
    the time as it was then.
    """
    if platform.system() == "Darwin":
        known = mac.started(pid)
        return psutil.Process(pid).create_time() if known is None else known
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return psutil.Process(pid).create_time()
    except ProcessLookupError as fault:
        raise psutil.NoSuchProcess(pid) from fault
    return float(stat.rpartition(")")[2].split()[19])
