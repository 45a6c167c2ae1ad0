"""A worker as its supervisor sees it: commands, events, and its end."""

import json
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from hawsweep.errors import HawsweepError
from hawsweep.machine.children import (
    child_command,
    child_environment,
    log_size,
    start_child,
    tell_child,
)
from hawsweep.machine.processes import identity
from hawsweep.machine.without_torch import WITH_TORCH

_COMMAND = child_command("-m", "hawsweep.running.worker")
# Seconds for a hung worker to write its stack.
_LAST_WORDS_S = 5.0


class WorkerStarter:
    """Starts workers, all with the same environment.

    One spare worker is started ahead: it has imported the libraries, which takes seconds, and
    replaces a worker that dies.

    Args:
        with_torch: Whether libraries may import torch.
    """

    def __init__(self, n_threads: int, *, with_torch: bool = False) -> None:
        self.environment = {
            "OPENBLAS_NUM_THREADS": str(n_threads),
            "OMP_NUM_THREADS": str(n_threads),
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            **({WITH_TORCH: "1"} if with_torch else {}),
            **child_environment(),
        }
        self._spare: subprocess.Popen[str] | None = None

    def start(self, log: Path) -> "subprocess.Popen[str]":
        """The spare worker if it lives, else a new one; ``log`` gets the output of imports."""
        spare, self._spare = self._spare, None
        if spare is not None and spare.poll() is None:
            return spare
        return start_child(_COMMAND, log, self.environment)

    def keep_spare(self, log: Path) -> None:
        """Start a spare worker if there is none; it ends when its standard input is closed."""
        if self._spare is None or self._spare.poll() is not None:
            self._spare = start_child([*_COMMAND, "ahead"], log, self.environment)

    def close(self) -> None:
        """End the spare worker."""
        if self._spare is not None:
            self._spare.kill()
            self._spare.communicate()


class WorkerProcess:
    """One of a study's workers, from its start on.

    Args:
        number: The worker's number.
        log: The file for its output outside of trials.
        setting: Its setting, for ``worker.Worker``.
        events: Gets ``(self, event)`` for each event, and ``(self, None)`` at its end.

    Attributes:
        doing: The current command, ``prepare`` at first; None while it waits for one.
        identity: Of its process; None before its first event. It then has no trial.
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
        self.number, self.log, self.log_start = number, log, log_size(log)
        self.last_sign = time.monotonic()
        self.hung_s: float | None = None
        self.doing: str | None = "prepare"
        self.identity: dict[str, Any] | None = None
        self.trial_number: int | None = None
        self.told_fatal: HawsweepError | None = None
        self._process = starter.start(log)
        threading.Thread(target=self._read, args=(events,), daemon=True).start()
        told = {**setting, "supervisor": identity(), "log": str(log)}
        tell_child(self._process, json.dumps(told))

    def command(self, command: str, number: int | None = None) -> None:
        """Ask for ``base``, ``trial``, ``confirm``, ``test`` or ``exit``.

        Args:
            number: Of the trial to run.
        """
        self.doing, self.last_sign = command, time.monotonic()  # it may have waited for long
        tell_child(self._process, command if number is None else f"{command} {number}")

    def ask_to_stop(self) -> None:
        """Have its trial save its state and end."""
        self._process.send_signal(signal.SIGTERM)

    def end_hung(self, silent_s: float) -> None:
        """Let it write its stack to the log, then end it."""
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
        """Its exit code; it is killed if it has not ended after ``timeout_s``."""
        assert self._process.stdin is not None
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
        finally:
            with suppress(BrokenPipeError):
                self._process.stdin.close()

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
