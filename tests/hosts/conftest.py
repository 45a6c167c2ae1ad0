"""Other machines, as namespaces of this one: each has its own network, name, machine id and process
ids, an sshd, and no folder of the starter.
"""

import gc
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import uuid
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from harness import N_THREADS, Lab

_SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
_TESTS, _SRC = Path(__file__).parents[1], Path(__file__).parents[2] / "src"
_NUMBERS = itertools.count(1)
# A trial's lease is lost after six times as many seconds.
RAISE_S = 5
SSHD = """
Port 22
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/../user_key.pub
StrictModes no
UsePAM no
PidFile none
PermitRootLogin yes
SetEnv {environment}
"""
SSH = """
Host {name}
    HostName {address}
    Port {port}
    User root
    IdentityFile {keys}/user_key
    IdentitiesOnly yes
    UserKnownHostsFile {keys}/known_hosts
    StrictHostKeyChecking yes
"""
# In the namespaces: loopback, an own name and id, and nothing where the starter has its files.
_BEGIN = (
    "ip link set lo up; hostname {hostname}; mount --bind {folder}/machine-id /etc/machine-id; "
    "for each in {hidden}; do mount -t tmpfs none $each; done; mkdir -p /run/sshd; "
    "exec {sshd} -D -e -f {folder}/sshd_config"
)


def _why_not():
    if sys.platform != "linux" or os.geteuid() != 0:
        return "namespaces need Linux and root"
    if missing := [each for each in (_SSHD, "ssh", "ip", "unshare") if not shutil.which(each)]:
        return f"{', '.join(missing)} is not installed"
    made = subprocess.run(["unshare", "-nupm", "true"], capture_output=True, check=False)
    return "namespaces may not be made here" if made.returncode else ""


def _run(*command):
    subprocess.run(command, check=True, capture_output=True)


class Machine:
    """Another machine.

    Attributes:
        name: By which ssh knows it; its own may be another.
        folder: Of its files.
    """

    def __init__(self, folder, name, hidden, hostname=None, **environment):
        self.name, self.folder = name, folder / name
        self.folder.mkdir()
        number = next(_NUMBERS)
        self._space = f"hs{os.getpid() % 100_000}n{number}"
        # A network for each test process, and each host.
        where = f"10.{64 + os.getpid() % 128}.{number % 256}"
        self.address, self._link = f"{where}.2", f"{self._space}h"
        _run("ip", "netns", "add", self._space)
        _run("ip", "link", "add", self._link, "type", "veth", "peer", "eth0", "netns", self._space)
        _run("ip", "addr", "add", f"{where}.1/24", "dev", self._link)
        _run("ip", "link", "set", self._link, "up")
        inside = ("ip", "-n", self._space)
        _run(*inside, "addr", "add", f"{self.address}/24", "dev", "eth0")
        _run(*inside, "link", "set", "eth0", "up")
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / "host_key"))
        (self.folder / "machine-id").write_text(uuid.uuid4().hex)
        environment = {
            "HAWSWEEP_STUDIES_DIR": str(self.folder / "studies"),
            "HAWSWEEP_LEASE_S": str(RAISE_S),
            "PYTHONPATH": str(_SRC),
            **N_THREADS,
            **environment,
        }
        values = " ".join(f"{key}={value}" for key, value in environment.items())
        config = SSHD.format(folder=self.folder, environment=values)
        (self.folder / "sshd_config").write_text(config)
        script = _BEGIN.format(
            hostname=hostname or name, folder=self.folder, hidden=hidden, sshd=_SSHD
        )
        spaces = ("unshare", "--uts", "--pid", "--mount", "--mount-proc", "--kill-child", "--fork")
        with (self.folder / "sshd.log").open("wb") as log:
            self._process = subprocess.Popen(
                ["ip", "netns", "exec", self._space, *spaces, "sh", "-c", script], stderr=log
            )
        deadline = time.monotonic() + 20
        while b"Server listening" not in (self.folder / "sshd.log").read_bytes():
            assert time.monotonic() < deadline, (self.folder / "sshd.log").read_text()
            time.sleep(0.05)

    @property
    def public_key(self):
        """A line of known_hosts."""
        return f"{self.address} {(self.folder / 'host_key.pub').read_text()}"

    def set_link(self, up):
        """Plug the cable in, or pull it out."""
        _run("ip", "link", "set", self._link, "up" if up else "down")

    def rename(self, hostname):
        """Give it another name of its own, as a Mac takes one from its network."""
        _run("nsenter", f"--target={self.processes('sshd')[0]}", "--uts", "hostname", hostname)

    def processes(self, text):
        """The process ids, as this machine sees them, whose command has a text."""
        found = subprocess.run(
            ["ip", "netns", "pids", self._space], capture_output=True, text=True, check=True
        )
        pids = map(int, found.stdout.split())
        return [pid for pid in pids if text in _command_of(pid)]

    def close(self):
        """End it, as if its power failed."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
            _run("ip", "netns", "del", self._space)


def _make_venv(folder):
    """This environment, with a ``hawsweep`` in it that needs no embedder; give the folder."""
    (folder / "bin").mkdir(parents=True)
    shutil.copy(Path(sys.prefix) / "pyvenv.cfg", folder)
    (folder / "lib").symlink_to(Path(sys.prefix) / "lib")
    (folder / "bin/python").symlink_to(os.path.realpath(sys.executable))
    _make_script(folder / "bin/hawsweep", f"exec {folder}/bin/python {_TESTS / 'command.py'}")
    return folder


def _make_script(path, text):
    path.write_text(f'#!/bin/sh\n{text} "$@"\n')
    path.chmod(0o755)


def _command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


class Starter:
    """`hawsweep start --hosts` in a process, and what it says."""

    def __init__(self, lab, hosts, environment, *options):
        command = ["hawsweep", "start", "sweep.yaml", "--study=tiny", "--json", f"--hosts={hosts}"]
        with (lab.folder / "stderr.log").open("ab") as errors:
            self._process = subprocess.Popen(
                [*command, *options],
                cwd=lab.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.events = []
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        self.pid = self._process.pid
        self.send_signal, self.kill = self._process.send_signal, self._process.kill

    def _read(self):
        with self._process.stdout as lines:
            for line in lines:
                self.events.append(json.loads(line))

    def of(self, kind, host=None):
        """Its events of a kind, and of a host."""
        events = (each for each in list(self.events) if each["event"] == kind)
        return [each for each in events if host is None or each["host"] == host]

    def wait_for(self, kind, host="", number=1, seconds=400, **values):
        """Wait for an event."""
        deadline = time.monotonic() + seconds
        while True:
            found = [e for e in self.of(kind, host) if values.items() <= e.items()]
            if len(found) >= number:
                return found[-1]
            assert time.monotonic() < deadline, self.events[-12:]
            assert self._thread.is_alive(), self.events[-12:]
            time.sleep(0.05)

    def wait(self, seconds=180):
        """Wait for its end; give the exit code."""
        code = self._process.wait(seconds)
        self._thread.join()
        return code


class Room:
    """Machines with a network: this one, where sweeps start, and others."""

    def __init__(self, folder, model_dir, data_dir, held):
        self.folder, self._held, self.machines = folder, held, {}
        self._model_dir, self._data_dir = model_dir, data_dir
        self._home = folder / "starter"
        self._home.mkdir()
        self.venv = _make_venv(folder / "venv")
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "user_key"))
        _make_script(self.venv / "bin/ssh", f"exec {shutil.which('ssh')} -F {folder}/ssh_config")

    def machine(self, name, hidden="", **about):
        """Another machine that ssh knows by this name."""
        hidden = f"{self._home} {hidden}"
        made = self.machines[name] = Machine(self.folder, name, hidden, **about)
        self._held.callback(made.close)
        self.know(name, made.address)
        with (self.folder / "known_hosts").open("a") as known:
            known.write(made.public_key)
        return made

    def know(self, name, address, port=22):
        """Let ssh know a machine, which may be none."""
        about = {"name": name, "address": address, "port": port, "keys": self.folder}
        with (self.folder / "ssh_config").open("a") as config:
            config.write(SSH.format(**about))

    def lab(self, **changes):
        """The folder where sweeps start."""
        return Lab(self._home, self._model_dir, self._data_dir, **{"keep": "all", **changes})

    def start(self, lab, hosts, *options, **environment):
        """Start the sweep with hosts."""
        started = Starter(lab, hosts, {**self._environment, **environment}, *options)
        self._held.callback(started.wait)
        self._held.callback(started.kill)
        return started

    def command(self, lab, *words):
        """What a hawsweep command of the starter prints."""
        done = subprocess.run(
            ["hawsweep", *words],
            cwd=lab.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def _environment(self):
        return {
            **os.environ,
            **N_THREADS,
            "PATH": f"{self.venv}/bin:{os.environ['PATH']}",
            "PYTHONPATH": str(_SRC),
            "HAWSWEEP_LEASE_S": str(RAISE_S),
        }


@contextmanager
def _opened(folder, tiny_model_dir, chat_data_dir):
    if reason := _why_not():
        pytest.skip(reason)
    with ExitStack() as held:
        yield Room(folder, tiny_model_dir, chat_data_dir, held)


@pytest.fixture
def room(tmp_path, tiny_model_dir, chat_data_dir):
    with _opened(tmp_path, tiny_model_dir, chat_data_dir) as room:
        yield room


@pytest.fixture(scope="module")
def shared_room(tmp_path_factory, tiny_model_dir, chat_data_dir):
    """The room of a sweep that several tests look at."""
    with _opened(tmp_path_factory.mktemp("room"), tiny_model_dir, chat_data_dir) as room:
        yield room


@pytest.fixture(scope="module")
def s3():
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def bucket(s3, monkeypatch):
    import boto3

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the-key-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-secret-key")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
    boto3.client("s3").create_bucket(Bucket="lab-files")
    yield "s3://lab-files/sweeps/one"
    gc.collect()
