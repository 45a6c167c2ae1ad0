"""A process that serves a study's storage to other machines: Optuna's gRPC proxy, on 127.0.0.1.

Started as ``python -m hawsweep.running.storage_proxy``. The first line on its standard input is the
setting (JSON): the URL may hold a password. A line on its standard output says that it serves.
"""

import json
import os
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

import optuna
from optuna.storages import get_storage, run_grpc_proxy_server

from hawsweep.errors import HawsweepError, StudyError
from hawsweep.machine.children import (
    child_command,
    child_environment,
    last_words,
    log_size,
    start_child,
    tell_child,
)
from hawsweep.machine.output import make_output_visible
from hawsweep.study.place import Place
from hawsweep.study.storage import open_storage

_COMMAND = child_command("-m", "hawsweep.running.storage_proxy")
_ON = "127.0.0.1"
_LOG_BYTES = 2000
# Seconds until a process follows one that died: twice as many after each that died soon.
_AGAIN_S, _LONGEST_AGAIN_S = 1.0, 30.0
_SOON_S = 10.0


@contextmanager
def serving(place: Place, log: Path) -> Iterator[int]:
    """Serve the storage of ``place`` during the block; give the port.

    A process that dies is followed by another, on the same port. The last one ends some seconds
    after this one: workers elsewhere can still say what they saved.

    Args:
        log: Gets what the process prints.

    Raises:
        StudyError: It cannot be served; the message has the process's words.
    """
    start = log_size(log)
    # gRPC does not tell which free port it takes. The port is held for it, also between processes.
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((_ON, 0))
        port = held.getsockname()[1]
        proxy = _Proxy(json.dumps([str(place.studies_dir), place.storage_url, port]), log)
        try:
            if not proxy.is_served():
                said = last_words(log, start, _LOG_BYTES).strip().rpartition("\n")[2]
                raise StudyError(f"The study cannot be served to other machines: {said}")
            proxy.start()
            yield port
        finally:
            proxy.close()


class _Proxy(threading.Thread):
    """The process; as a started thread, also the next one where it dies."""

    def __init__(self, setting: str, log: Path) -> None:
        super().__init__(daemon=True)
        self._setting, self._log, self._over = setting, log, threading.Event()
        self._process = self._begin()

    def _begin(self) -> Popen[str]:
        process = start_child(_COMMAND, self._log, child_environment())
        tell_child(process, self._setting)
        return process

    def is_served(self) -> bool:
        """Wait for the first process to serve; whether it does."""
        assert self._process.stdout is not None
        serves = bool(self._process.stdout.readline())
        if not serves:
            self._process.wait()  # so that its last words are whole
        return serves

    def run(self) -> None:
        wait_s, began = _AGAIN_S / 2, time.monotonic()
        while True:
            self._process.communicate()
            is_soon = time.monotonic() - began < _SOON_S
            wait_s = min(2 * wait_s, _LONGEST_AGAIN_S) if is_soon else _AGAIN_S
            if self._over.wait(wait_s):
                return
            began = time.monotonic()
            try:
                self._process = self._begin()
            except OSError:  # as where no process may be started now
                continue
            if self._over.is_set():  # closed meanwhile
                self._process.kill()

    def close(self) -> None:
        """End the process, and start no other."""
        self._over.set()
        self._process.kill()
        if self.is_alive():
            self.join()
        else:
            self._process.communicate()


def main() -> None:
    """Serve until the process is killed."""
    serves_line = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    make_output_visible()
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    studies_dir, url, port = json.loads(sys.stdin.readline())
    try:
        import grpc  # noqa: F401 # Optuna imports it after the line below

        storage = get_storage(open_storage(Place(Path(studies_dir), url), only_look=False))
    except (HawsweepError, ImportError) as fault:
        sys.exit(str(fault))
    print("serves", file=serves_line, flush=True)
    run_grpc_proxy_server(storage, host=_ON, port=port)


if __name__ == "__main__":
    main()
