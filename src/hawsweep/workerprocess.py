"""A worker as the process that watches it sees it: what it is told, what it tells, how it ends."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from hawsweep.errors import HawsweepError
from hawsweep.processes import GO_ON, PAUSE, identity

# What a hung worker has to write down where it stands.
_LAST_WORDS_S = 5.0


class WorkerProcess:
    """A process that imports what a worker needs and then waits for its setting.

    Args:
        nice: How much it gives way to other programs, also while it imports; one that is kept in
            case another dies only from its beginning on, so that it is there when that happens.
        log: Takes what it prints until it begins.
        events: Gets ``(self, event)`` for each event it tells, and ``(self, None)`` at its end.

    Attributes:
        number: Which of a study's workers it is; -1 until it begins.
        doing: The command it is at, ``prepare`` at first; None while it waits for one.
        trial_number: Of the trial it runs.
    """

    def __init__(
        self, n_threads: int, nice: int, log: Path, events: "queue.Queue[Any]", number: int = -1
    ) -> None:
        self.number = number
        self.log = log
        self.log_start = _size(log)
        self.last_sign = time.monotonic()
        self.hung_s: float | None = None
        self.doing: str | None = "prepare"
        self.trial_number: int | None = None
        self.told_fatal: HawsweepError | None = None
        environment = {
            "OPENBLAS_NUM_THREADS": str(n_threads),
            "OMP_NUM_THREADS": str(n_threads),
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            **os.environ,
        }
        with log.open("ab") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hawsweep.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                encoding="utf-8",
                env=environment,
                start_new_session=True,  # Ctrl-C reaches the supervisor alone
            )
        self._nice = nice
        if number >= 0:
            self._give_way()
        self.identity = {**identity(self._process.pid), "parent": identity()}
        threading.Thread(target=self._read, args=(events,), daemon=True).start()

    def begin(self, number: int, log: Path, setting: dict[str, Any]) -> None:
        """Make it one of a study's workers; what it prints goes to ``log`` from here."""
        if self.number < 0:
            self._give_way()
        self.number, self.log, self.log_start = number, log, _size(log)
        self.last_sign = time.monotonic()
        self._send_line(json.dumps({**setting, "log": str(log)}))

    def command(self, command: str) -> None:
        """Ask for ``base``, ``trial``, ``confirm``, ``test`` or ``exit``."""
        self.doing = command
        self._send_line(command)

    def ask_to_stop(self) -> None:
        """Have its trial save its state and end."""
        self._process.send_signal(signal.SIGTERM)

    def pause(self, *, go_on: bool) -> None:
        """Have its trial wait after the current iteration, or go on."""
        self._process.send_signal(GO_ON if go_on else PAUSE)
        self.last_sign = time.monotonic()

    def end_hung(self, silent_s: float) -> None:
        """Let it write down where it stands, then end it."""
        self.hung_s = silent_s
        self._process.send_signal(signal.SIGABRT)
        threading.Timer(_LAST_WORDS_S, self._process.kill).start()

    def kill(self) -> None:
        """End it now."""
        self._process.kill()

    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def wait(self, timeout_s: float | None = None) -> int:
        """Its exit code; it is killed where it has not ended after ``timeout_s``."""
        assert self._process.stdin is not None
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
        finally:
            with suppress(BrokenPipeError):
                self._process.stdin.close()

    def _give_way(self) -> None:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self._process.pid)
            process.nice(min(19, process.nice() + self._nice))

    def _send_line(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it is dead; the end of its output says so

    def _read(self, events: "queue.Queue[Any]") -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                events.put((self, json.loads(line)))
        events.put((self, None))


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0
