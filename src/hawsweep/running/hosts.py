"""Workers on other machines: each host is an ssh that runs `hawsweep worker` there.

The host reaches the study's storage through the same connection, by a reverse tunnel to
``storage_proxy``, and its events come back through it. See ``tied`` for its other end.
"""

import json
import os
import queue
import random
import re
import shlex
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from subprocess import Popen

import optuna

from hawsweep.errors import StudyError
from hawsweep.machine.children import last_words, log_size, start_child, tell_child
from hawsweep.running.artifact_server import Served as ServedFiles
from hawsweep.running.artifact_server import serving_artifacts
from hawsweep.running.events import Event, Listener
from hawsweep.running.storage_proxy import serving
from hawsweep.running.tied import ALIVE, ALIVE_S, STOP
from hawsweep.study.artifact_stores import (
    ARTIFACTS_VARIABLE,
    BESIDE,
    TOKEN_VARIABLE,
    artifacts_url,
)
from hawsweep.study.place import Place
from hawsweep.text import counted, visible_line

_POLL_S = 0.25
# Seconds until a host is tried again: doubled from the first to the last.
_FIRST_WAIT_S, _LAST_WAIT_S = 5.0, 300.0
_PORTS, _PORT_TRIES = (20_000, 32_000), 8
# Seconds without an answer after which ssh ends, in three questions. The host stops before that.
_UNANSWERED_S = 7.5 * ALIVE_S
# At the end: for trials to save their state; for workers that are killed.
_GRACE_S, _KILL_S = 60.0, 10.0
_LOG_BYTES = 4000
_NOT_FOUND, _USAGE, _INTERRUPTED = 127, 2, 130
# The sweep tells these itself.
_OF_THE_SWEEP = {"study", "standing", "ended", "interrupting", "extended", "exhausted", "settled"}
# In the folder and by the environment of the starter, where they exist; else at home, and by the
# PATH of a login shell. In one line, and without quotes of its own, for every login shell.
_SCRIPT = (
    'cd "$1" 2>/dev/null || cd; h=$2; '
    '[ -x "$h" ] || h=$("${SHELL:-/bin/sh}" -lc "command -v hawsweep" 2>/dev/null | tail -n 1); '
    f'[ -x "$h" ] || exit {_NOT_FOUND}; shift 2; exec "$h" "$@"'
)
_HOST = re.compile(r"(?:[\w.+-]+@)?[\w.:\[\]%-]+")


@dataclass(frozen=True)
class Host:
    """Another machine.

    Attributes:
        target: As ssh gets it.
        name: As people see it.
    """

    target: str
    name: str


def read_hosts(text: str) -> tuple[Host, ...]:
    """The hosts of ``--hosts``: names with commas between them, or a file as mlx.launch reads.

    Raises:
        StudyError: It is neither.
    """
    targets = _from_file(Path(text)) if text.endswith(".json") else text.split(",")
    targets = list(dict.fromkeys(each.strip() for each in targets))  # mlx.launch allows one twice
    for each in targets:
        if not _HOST.fullmatch(each) or each.startswith("-"):
            raise StudyError(
                f"--hosts has {visible_line(each)!r}, must be names as ssh knows them, with commas "
                "between them: studio-2,user@studio-3. Or a file: hosts.json."
            )
    short = [each.rpartition("@")[2] for each in targets]
    return tuple(
        Host(each, name if short.count(name) == 1 else each)
        for each, name in zip(targets, short, strict=True)
    )


def _from_file(path: Path) -> list[str]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        said = fault.strerror if isinstance(fault, OSError) else fault
        raise StudyError(f"{path} cannot be read as a file of hosts: {said}.") from fault
    entries = content.get("hosts") if isinstance(content, dict) else content
    if isinstance(entries, list) and entries:
        targets = [each.get("ssh") if isinstance(each, dict) else None for each in entries]
        if None not in targets:
            return list(map(str, targets))
    raise StudyError(
        f"{path} is no file of hosts. As for mlx.launch, it must be a list with an entry for each: "
        '[{"ssh": "studio-2"}, {"ssh": "user@studio-3"}].'
    )


def check_tools() -> None:
    """Refuse hosts where this machine lacks what they need.

    Raises:
        StudyError: The message says what is missing.
    """
    if shutil.which("ssh") is None:
        raise StudyError("--hosts needs ssh, which is not installed on this machine.")
    if find_spec("grpc") is None:
        raise StudyError(
            "--hosts needs the package grpcio, which is missing. Install it: in a clone, "
            "pip install -e '.[grpc]'."
        )


def ssh_command(host: Host, tunnels: Mapping[int, int], arguments: Sequence[str]) -> list[str]:
    """The ssh that runs hawsweep with ``arguments`` on a host.

    Args:
        tunnels: From a port there to the port here, both on loopback.
    """
    options = {
        "BatchMode": "yes",
        "ConnectTimeout": "20",
        "ExitOnForwardFailure": "yes",
        "ServerAliveInterval": str(max(1, round(_UNANSWERED_S / 3))),
        "ServerAliveCountMax": "3",
    }
    executable = Path(sys.prefix) / "bin" / "hawsweep"
    there = shlex.join(["sh", "-c", _SCRIPT, "sh", os.getcwd(), str(executable), *arguments])
    return [
        "ssh",
        # No terminal, agent or X there, and no connection shared, whose tunnels would stay.
        *("-T", "-a", "-x", "-S", "none"),
        *(f"-o{key}={value}" for key, value in options.items()),
        *(f"-R127.0.0.1:{far}:127.0.0.1:{near}" for far, near in tunnels.items()),
        *("--", host.target, f"exec {there}"),
    ]


@dataclass(frozen=True)
class Served:
    """What hosts reach on this machine: the port of the study's storage, and trials' files."""

    storage: int
    files: ServedFiles | None


class _Link(threading.Thread):
    """Keeps one host at work until it is stopped, or the host cannot take part."""

    def __init__(
        self,
        host: Host,
        arguments: tuple[str, ...],
        served: Served,
        folder: Path,
        events: "queue.SimpleQueue[Event]",
    ) -> None:
        super().__init__(daemon=True)
        self._host, self._arguments, self._served, self._events = host, arguments, served, events
        self._log = folder / f"host-{re.sub(r'[^a-zA-Z0-9_.@-]', '_', host.name)}.log"
        self._over = threading.Event()
        self._process: Popen[str] | None = None
        self._answers = self._has_joined = False
        self._refused: str | None = None
        self._told = ""
        self.start()

    def say(self, character: bytes) -> None:
        """Send a character to the worker there, if there is one."""
        if self._process is not None and self._process.poll() is None:
            with suppress(ValueError):  # it has just ended
                tell_child(self._process, character.decode())

    def stop(self) -> None:
        """Ask the worker there to stop, as Ctrl-C would, and do not start it again."""
        self._over.set()
        if self._answers:
            self.say(STOP)
        else:
            self.kill()

    def kill(self) -> None:
        """End the connection; a worker there ends with it."""
        self._over.set()
        if self._process is not None:
            self._process.kill()

    def run(self) -> None:
        wait_s, n_taken = _FIRST_WAIT_S, 0
        while not self._over.is_set():
            code, said = self._connect()
            if self._over.is_set():
                return
            if "remote port forwarding failed" in said:
                n_taken += 1
                if n_taken < _PORT_TRIES:
                    continue
                said = "its sshd forwards no ports, as by AllowTcpForwarding no"
            if (why := self._why_not(code, said)) is not None:
                self._tell("left", why)
                return
            wait_s, n_taken = (_FIRST_WAIT_S, 0) if self._has_joined else (wait_s, n_taken)
            how = "has gone" if self._has_joined else "cannot be reached"
            self._tell("away", f"{how}: {said or f'ssh ended with {code}'}. It is tried again")
            self._over.wait(wait_s * random.uniform(0.8, 1.2))
            wait_s = min(2 * wait_s, _LAST_WAIT_S)

    def _why_not(self, code: int, said: str) -> str | None:
        """Why the host is not tried again; None where it is."""
        if self._refused is not None:
            return f"does not take part: {self._refused}"
        if code == _NOT_FOUND:
            return (
                "does not take part: it has no hawsweep, neither where it is here nor on the PATH"
            )
        if code == _USAGE:
            return f"does not take part: it has another version of hawsweep: {said}"
        if code == 0:
            return "has nothing left to do"
        return None

    def _tell(self, state: str, text: str) -> None:
        if text != self._told:  # said once, however often it is tried
            self._told = text
            values = {"state": state, "text": text}
            self._events.put(Event("host", values=values, host=self._host.name))

    def _connect(self) -> tuple[int, str]:
        """Run the worker there until it ends; give the exit code and the last words."""
        self._answers = self._has_joined = False
        storage, files = random.sample(range(*_PORTS), 2)
        tunnels, environment = {storage: self._served.storage}, {}
        if (store := self._served.files) is not None:
            tunnels[files] = store.port
            environment[ARTIFACTS_VARIABLE] = f"http://127.0.0.1:{files}/"
            environment[TOKEN_VARIABLE] = store.token  # not as an argument, which all users see
        log_start = log_size(self._log)
        command = ssh_command(
            self._host, tunnels, (*self._arguments, f"--storage=grpc://127.0.0.1:{storage}")
        )
        process = start_child(command, self._log, None)
        assert process.stdout is not None
        tell_child(process, json.dumps(environment))
        self._process = process
        if self._over.is_set():  # stopped meanwhile
            process.kill()
        for line in process.stdout:
            self._take(line)
        process.communicate()
        lines = last_words(self._log, log_start, _LOG_BYTES).split("\n")
        said = next((each for each in reversed(lines) if each.strip()), "")
        if process.returncode == _INTERRUPTED:  # it heard nothing from here, or was asked to there
            said = "it stopped there"
        return process.returncode, visible_line(said.strip()).removesuffix(".")

    def _take(self, line: str) -> None:
        try:
            told = json.loads(line)
            kind, values = told["event"], told["values"]
        except (ValueError, LookupError, TypeError):
            return  # printed by the login shell
        self._answers = True
        if kind == "error":
            self._refused = values["message"].removesuffix(".")
        elif kind == "study":
            self._has_joined = True
            workers = counted(values["n_workers"], "worker")
            self._tell("joined", f"joined with {workers}")
        elif kind not in _OF_THE_SWEEP:
            self._events.put(Event(kind, told["worker"], values, self._host.name))


class Hosts:
    """The hosts of a sweep: passes on the sweep's events, and among them those of the hosts.

    Attributes:
        n_interrupts: Gives how often the sweep was asked to stop; the second time it is to be now.
    """

    def __init__(self, listen: Listener) -> None:
        self._listen = listen
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._links: list[_Link] = []
        self._n_stopped = 0
        self._over = threading.Event()
        self.n_interrupts: Callable[[], int] = lambda: 0

    def connect(
        self,
        hosts: Sequence[Host],
        arguments: tuple[str, ...],
        served: Served,
        folder: Path,
    ) -> None:
        """Connect to the hosts."""
        node = os.uname().nodename.lower()
        for host in hosts:
            if host.name.lower() in (node, node.partition(".")[0]):
                values = {"state": "left", "text": "is this machine: it has its workers already"}
                self._listen(Event("host", values=values, host=host.name))
            else:
                self._links.append(_Link(host, arguments, served, folder, self._events))
        threading.Thread(target=self._show_life, daemon=True).start()

    def __call__(self, event: Event) -> None:
        """Pass on what the hosts told, then the event; at the sweep's end they end before."""
        if event.kind == "ended":
            self._end()
        while not self._events.empty():
            self._listen(self._events.get())
        self._stop(min(2, self.n_interrupts()))
        self._listen(event)

    def close(self) -> None:
        """End all connections; the workers there end with them."""
        self._over.set()
        for link in self._links:
            link.kill()
            link.join()

    def _end(self) -> None:
        """Let the workers of the hosts save the state of their trials, and end."""
        self._stop(1)
        deadline = time.monotonic() + _GRACE_S
        while any(link.is_alive() for link in self._links) and time.monotonic() < deadline:
            self(Event("tick"))
            if self._n_stopped > 1:
                deadline = min(deadline, time.monotonic() + _KILL_S)
            time.sleep(_POLL_S)
        self.close()

    def _stop(self, n_times: int) -> None:
        while self._n_stopped < n_times:
            self._n_stopped += 1
            for link in self._links:
                link.stop()

    def _show_life(self) -> None:
        while not self._over.wait(ALIVE_S):
            for link in self._links:
                link.say(ALIVE)


@contextmanager
def with_hosts(
    hosts: Sequence[Host], study: optuna.Study, place: Place, listen: Listener
) -> Iterator[Hosts]:
    """Let hosts work for a study during the block; give the listener that the sweep is to use.

    Raises:
        StudyError: The study's storage cannot be served.
    """
    name = study.study_name
    connected, folder = Hosts(listen), place.study_dir(name)
    with ExitStack() as held:
        if hosts:
            storage, files = held.enter_context(serving(place, folder / "proxy.log")), None
            if artifacts_url(study) == BESIDE:
                files = held.enter_context(serving_artifacts(folder / BESIDE))
            held.callback(connected.close)
            arguments = ("worker", name, "--tied", *place.folder_options)
            connected.connect(hosts, arguments, Served(storage, files), folder)
        yield connected
