"""Keep the machine awake while a sweep runs."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_READY_TIMEOUT_S = 5.0
_END_TIMEOUT_S = 2.0


@contextmanager
def keep_awake(
    tell: Callable[[str], None] = lambda text: None, platform: str = sys.platform
) -> Iterator[None]:
    """Keep the machine from sleeping until the block or this process ends, for any reason. If that
    is not possible, ``tell`` gets the reason once, and the block runs anyway.

    Args:
        platform: As in ``sys.platform``: ``darwin`` uses caffeinate, others systemd-inhibit.
    """
    child = _caffeinate() if platform == "darwin" else _inhibit()
    if child is None:
        program = "caffeinate" if platform == "darwin" else "systemd-inhibit"
        tell(f"the machine may fall asleep: {program} is missing or does not work here")
    try:
        yield
    finally:
        if child is not None:
            _end(child)


def _caffeinate() -> "subprocess.Popen[bytes] | None":
    # caffeinate watches this process.
    return _start(["caffeinate", "-i", "-w", str(os.getpid())])


def _inhibit() -> "subprocess.Popen[bytes] | None":
    """Run systemd-inhibit around a program that ends with its input, a pipe from this process. The
    pipe is closed also by SIGKILL. The first output shows that the lock is held; without systemd
    there is none.
    """
    child = _start(
        [
            "systemd-inhibit",
            "--what=idle:sleep",
            "--who=hawsweep",
            "--why=a sweep runs",
            "--mode=block",
            *("sh", "-c", "echo; exec cat"),
        ]
    )
    if child is None:
        return None
    assert child.stdout is not None
    readable, _, _ = select.select([child.stdout], [], [], _READY_TIMEOUT_S)
    if readable and child.stdout.read(1):
        return child
    _end(child)
    return None


def _start(command: list[str]) -> "subprocess.Popen[bytes] | None":
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            # Ctrl-C must reach only the sweep, which takes a while to end; and without a terminal
            # no password is asked for.
            start_new_session=True,
        )
    except OSError:
        return None


def _end(child: "subprocess.Popen[bytes]") -> None:
    with child:
        with suppress(OSError):
            os.killpg(child.pid, signal.SIGTERM)
        try:
            child.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            with suppress(OSError):
                os.killpg(child.pid, signal.SIGKILL)
