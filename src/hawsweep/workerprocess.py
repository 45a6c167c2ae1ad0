"""A worker as the process that watches it sees it: what it is told, what it tells, how it ends."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from hawsweep import backend
from hawsweep.errors import HawsweepError
from hawsweep.forkserver import Child, ForkServer, spawn
from hawsweep.processes import GO_ON, PAUSE, identity
from hawsweep.without_torch import WITH_TORCH

# What a hung worker has to write down where it stands.
_LAST_WORDS_S = 5.0


def can_fork() -> bool:
    """Whether a process may fork that has imported what a worker needs.

    Not on a Mac, once the system's frameworks are loaded (``man 2 fork`` there, "CAVEATS"), nor
    after a look for a CUDA device, which importing mlx-lm is: CUDA is of one process.
    """
    return backend.device_here() == "cpu"


class WorkerStarter:
    """Starts workers, all with the same environment.

    Args:
        with_torch: Whether they import torch where libraries do.
    """

    def __init__(self, n_threads: int, *, with_torch: bool = False) -> None:
        self.environment = {
            "OPENBLAS_NUM_THREADS": str(n_threads),
            "OMP_NUM_THREADS": str(n_threads),
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            **({WITH_TORCH: "1"} if with_torch else {}),
            **os.environ,
        }
        self._server: ForkServer | None = None

    def start(self, log: Path) -> Child:
        """Start one; ``log`` takes what it prints, and of the first one what importing prints."""
        command = [sys.executable, "-m", "hawsweep.worker"]
        if not can_fork():
            return spawn(command, self.environment, log)
        if self._server is None or not self._server.is_alive():
            self._server = ForkServer(command, self.environment, log)
        return self._server.fork(log)

    def close(self) -> None:
        """Leave nothing behind."""
        if self._server is not None:
            self._server.close()


class WorkerProcess:
    """One of a study's workers, from its start on.

    Args:
        number: Which one it is.
        log: Takes what it prints outside trials.
        setting: What it is to know, as ``worker.Worker`` reads it.
        events: Gets ``(self, event)`` for each event it tells, and ``(self, None)`` at its end.

    Attributes:
        doing: The command it is at, ``prepare`` at first; None while it waits for one.
        identity: Of its process; None before it has told it, when it has no trial either.
        trial_number: Of the trial it runs.
    """

    def __init__(
        self,
        number: int,
        starter: WorkerStarter,
        log: Path,
        setting: Mapping[str, Any],
        events: "queue.Queue[Any]",
    ) -> None:
        self.number, self.log, self.log_start = number, log, _size(log)
        self.last_sign = time.monotonic()
        self.hung_s: float | None = None
        self.doing: str | None = "prepare"
        self.identity: dict[str, Any] | None = None
        self.trial_number: int | None = None
        self.told_fatal: HawsweepError | None = None
        self._process = starter.start(log)
        threading.Thread(target=self._read, args=(events,), daemon=True).start()
        self._send_line(json.dumps({**setting, "supervisor": identity()}))

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
                event = json.loads(line)
                if event["event"] == "begun":
                    self.identity = event["identity"]
                else:
                    events.put((self, event))
        events.put((self, None))


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0
