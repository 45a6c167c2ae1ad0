"""Processes that this one starts, tells in lines and hears in lines, and how they ended."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path


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
    command: Sequence[str], log: Path, environment: Mapping[str, str]
) -> "subprocess.Popen[str]":
    """Start a program whose standard error goes to the end of ``log``."""
    with log.open("ab") as errors:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
            env=environment,
            start_new_session=True,  # Ctrl-C reaches this process alone
        )


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
