"""The embedder's process, the only one with torch: all workers of a sweep get vectors from it.

Started as ``python -m hawsweep.scoring.embedder_process`` this is that process: the line on its
standard input is its setting (JSON), and it ends when its standard input does. A client connects to
its socket and sends lists of texts (JSON). It gets an empty message each second until the vectors
are made, then their shape (JSON) and the vectors (float32), or a fault (JSON).
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hawsweep.errors import HawsweepError, ScoringError, told_error
from hawsweep.machine.children import (
    child_command,
    child_environment,
    how_it_ended,
    last_words,
    log_size,
    start_child,
    tell_child,
)
from hawsweep.machine.output import make_output_visible, print_traceback
from hawsweep.models.load import load_embedder

Vectors = npt.NDArray[np.float32]

_COMMAND = child_command("-m", "hawsweep.scoring.embedder_process")
_MAX_DEATHS_IN_A_ROW = 3
_SIGN_OF_LIFE_S = 1.0
_RETRY_S = 0.1
_GRACE_S = 5.0
# A socket's path may have 104 bytes on a Mac.
_LONGEST_ADDRESS = 100
_LAST_BYTES = 2000


class EmbedderProcess:
    """Starts an embedder's process when it is needed, restarts it after a death, and ends it.

    Args:
        path: A sentence-transformers model.
        log: The file for its output; by default a temporary file.
        environment: Of the process; by default ``child_environment``.

    Attributes:
        contact: The address and key for ``EmbedderClient``.
    """

    def __init__(
        self,
        path: Path,
        *,
        trust_remote_code: bool = False,
        log: Path | None = None,
        environment: Mapping[str, str] | None = None,
        nice: int = 0,
    ) -> None:
        self._folder = folder = _private_folder()
        self._forget = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.contact = {"address": str(folder / "s"), "key": secrets.token_hex(32)}
        self._setting = {
            **self.contact,
            "path": str(path),
            "trust_remote_code": trust_remote_code,
            "nice": nice,
        }
        self._log, self._log_start = log or folder / "log", 0
        self._environment = environment or child_environment()
        self._process: subprocess.Popen[str] | None = None
        self._n_deaths = 0
        self._lock = threading.Lock()  # clients may ask from several threads

    def ensure(self) -> None:
        """Start the process if none lives.

        Raises:
            ScoringError: It died three times in a row before it answered.
        """
        with self._lock:
            if self._process is not None:
                if self._process.poll() is None:
                    if self._folder.is_dir():
                        return
                    self._process.kill()  # no client can reach it
                self._count_death(self._process)
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self._log_start = log_size(self._log)
            self._process = start_child(_COMMAND, self._log, self._environment)
            tell_child(self._process, json.dumps(self._setting))

    def _count_death(self, process: "subprocess.Popen[str]") -> None:
        has_answered, _ = process.communicate()
        self._n_deaths = 0 if has_answered else self._n_deaths + 1
        if self._n_deaths < _MAX_DEATHS_IN_A_ROW:
            return
        words = last_words(self._log, self._log_start, _LAST_BYTES).strip()
        raise ScoringError(
            f"The embedder's process died {self._n_deaths} times in a row before it answered, "
            f"the last time {how_it_ended(process.returncode)}. The end of "
            f"{self._log.name}:",
            lines=words.splitlines() or ["(empty)"],
        )

    def kill(self) -> None:
        """End a process that hangs."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End the process, and remove its socket and log."""
        if self._process is not None:
            try:
                self._process.communicate(timeout=_GRACE_S)  # closes its standard input
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.communicate()
        self._forget()


class EmbedderClient:
    """Gets vectors from an embedder's process, and retries if that has died.

    Args:
        need: Called if no process answers; it must start one.
        waiting: Called about once a second until the vectors arrive; its exceptions are passed
            on.
    """

    def __init__(
        self,
        address: str,
        key: str,
        need: Callable[[], None],
        waiting: Callable[[], None] = lambda: None,
    ) -> None:
        self._address, self._key = address, bytes.fromhex(key)
        self._need, self._waiting = need, waiting
        self._connection: Connection | None = None

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, ``[texts, width]``.

        Raises:
            HawsweepError: The fault of the process.
        """
        asked = json.dumps(list(texts)).encode()
        while True:
            try:
                return self._ask(asked)
            except (OSError, EOFError, AuthenticationError):  # it is dead, or not yet there
                self._need()
                self._waiting()
                time.sleep(_RETRY_S)

    def _ask(self, asked: bytes) -> Vectors:
        connection = self._connection or Client(self._address, "AF_UNIX", self._key)
        self._connection = None  # kept only after a whole answer
        try:
            connection.send_bytes(asked)
            while not (answer := connection.recv_bytes()):
                self._waiting()
            told = json.loads(answer)
            vectors = None if "error" in told else connection.recv_bytes()
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        if vectors is None:
            raise told_error(told["error"], told["message"])
        return np.frombuffer(vectors, np.float32).reshape(told["shape"])


def own_embedder(path: Path, *, trust_remote_code: bool) -> EmbedderClient:
    """A client that owns its process, which ends with the client or with this process."""
    process = EmbedderProcess(path, trust_remote_code=trust_remote_code)
    client = EmbedderClient(process.contact["address"], process.contact["key"], process.ensure)
    weakref.finalize(client, process.close)
    return client


def _private_folder() -> Path:
    """A new folder with a short path that only this user can read."""
    folder = tempfile.mkdtemp(prefix="hawsweep-")
    if len(os.fsencode(folder)) > _LONGEST_ADDRESS - 2:
        os.rmdir(folder)
        folder = tempfile.mkdtemp(prefix="hawsweep-", dir="/tmp")  # nosec B108 # its mode is 0700
    return Path(folder)


class _Answers:
    """The server of the process: it answers clients, one list of texts at a time."""

    def __init__(self, path: Path, told: int, *, trust_remote_code: bool) -> None:
        self._told: int | None = told
        self._pool = ThreadPoolExecutor(1)
        self._model: Future[Any] = self._pool.submit(
            load_embedder, path, trust_remote_code=trust_remote_code
        )

    def serve(self, connection: Connection) -> None:
        """Answer a client until it leaves."""
        with connection, suppress(OSError, EOFError):
            while True:
                asked = self._pool.submit(self._answer, json.loads(connection.recv_bytes()))
                while not wait([asked], _SIGN_OF_LIFE_S).done:
                    connection.send_bytes(b"")
                for each in asked.result():
                    connection.send_bytes(each)

    def _answer(self, texts: list[str]) -> list[bytes]:
        answer = self._vectors(texts)
        if self._told is not None:  # once
            os.write(self._told, b"answered\n")
            self._told = None
        return answer

    def _vectors(self, texts: list[str]) -> list[bytes]:
        try:
            vectors = self._model.result().encode(
                texts, normalize_embeddings=True, show_progress_bar=False, batch_size=32
            )
        except HawsweepError as fault:
            return [_fault(type(fault).__name__, str(fault))]
        except Exception as fault:  # the client decides about it
            print_traceback(fault)
            return [_fault("ScoringError", f"The embedder fails: {fault!r}")]
        return [
            json.dumps({"shape": np.shape(vectors)}).encode(),
            np.ascontiguousarray(vectors, np.float32).tobytes(),
        ]


def _fault(error: str, message: str) -> bytes:
    return json.dumps({"error": error, "message": message}).encode()


def _listen(address: str, key: str, answers: _Answers) -> None:
    try:
        with suppress(FileNotFoundError):
            os.unlink(address)  # of a process that died
        listener = Listener(address, "AF_UNIX", backlog=16, authkey=bytes.fromhex(key))
    except OSError as fault:
        print_traceback(fault)
        os._exit(1)  # no client could reach it
    with listener:
        while True:
            with suppress(OSError, EOFError, AuthenticationError):  # a client that died meanwhile
                connection = listener.accept()
                threading.Thread(target=answers.serve, args=(connection,), daemon=True).start()


def main() -> None:
    """Answer clients until standard input ends."""
    told = os.dup(1)
    os.dup2(2, 1)  # the output of libraries goes to the log
    make_output_visible()
    line = sys.stdin.readline()
    if not line:
        return  # the process that started it is gone
    setting = json.loads(line)
    os.nice(setting["nice"])
    path, trusts = Path(setting["path"]), setting["trust_remote_code"]
    answers = _Answers(path, told, trust_remote_code=trusts)
    address = setting["address"]
    threading.Thread(target=_listen, args=(address, setting["key"], answers), daemon=True).start()
    sys.stdin.read()
    shutil.rmtree(Path(address).parent, ignore_errors=True)
    os._exit(0)  # at once, even while it computes


if __name__ == "__main__":
    main()
