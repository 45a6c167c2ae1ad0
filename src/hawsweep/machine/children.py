"""Processes that this one starts, tells in lines and hears in lines, and how they ended.

A child ends with this process wherever it is, also in native code that holds Python's lock, so that
none of its threads can run: a shell in the child's process group waits for the end of a pipe that
this process holds, gives the child time to end by itself, and then kills the group.
"""

import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

# $0 is the descriptor of the pipe, the rest the command, and $$ the child. It has six seconds to
# save what it has. If the pipe cannot be opened nothing is killed.
_TIED = """
(
    exec <"/dev/fd/$0" || exit
    read -r _
    for _ in 1 2 3 4 5 6; do kill -0 $$ || break; sleep 1; done
    kill -9 0
) >/dev/null 2>&1 &
exec "$@"
"""


def child_command(*arguments: str) -> list[str]:
    """The command of a Python process that imports nothing from the current folder.

    A stranger's ``json.py`` may lie there, beside the data. ``-m`` and ``-c`` would import it
    before all else; ``-P`` prevents that. It goes with ``child_environment``.
    """
    return [sys.executable, "-P", *arguments]


def child_environment() -> dict[str, str]:
    """This process's environment, without relative names of the current folder in ``PYTHONPATH``.

    An empty entry is one of them, and often an accident: ``PYTHONPATH=$PYTHONPATH:/more``. An
    absolute path was chosen by the person.
    """
    environment, here = dict(os.environ), os.path.realpath(os.curdir)
    if paths := environment.get("PYTHONPATH"):
        kept = [
            path
            for path in paths.split(os.pathsep)
            if os.path.isabs(path) or os.path.realpath(path) != here
        ]
        environment["PYTHONPATH"] = os.pathsep.join(kept)
    return environment


def start_child(
    command: Sequence[str], log: Path | None, environment: Mapping[str, str] | None
) -> "subprocess.Popen[str]":
    """Start a program whose standard error goes to the end of ``log``. It, and what it starts, are
    killed some seconds after this process ends or forgets it.

    Args:
        log: Without one, its standard error is lost.
        environment: This process's by default.
    """
    reads, writes = os.pipe()
    try:
        with Path(os.devnull if log is None else log).open("ab") as errors:
            process = subprocess.Popen(
                ["/bin/sh", "-c", _TIED, str(reads), *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                encoding="utf-8",
                env=environment,
                pass_fds=(reads,),
                start_new_session=True,  # Ctrl-C reaches this process alone
            )
    except BaseException:
        os.close(writes)
        raise
    finally:
        os.close(reads)
    weakref.finalize(process, os.close, writes)
    return process


def tell_child(process: "subprocess.Popen[str]", line: str) -> None:
    """Write a line to its standard input; where it is dead, its end says so."""
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.write(f"{line}\n")
        process.stdin.flush()


def how_it_ended(code: int) -> str:
    """An exit code in words; it is negative for a signal."""
    return f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"


def log_size(log: Path) -> int:
    """Bytes in a log, where its next words will start."""
    return log.stat().st_size if log.exists() else 0


def last_words(log: Path, start: int, n_bytes: int) -> str:
    """The end of a log, at most ``n_bytes`` and none of what was there before ``start``."""
    try:
        with log.open("rb") as file:
            file.seek(max(start, file.seek(0, 2) - n_bytes))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
