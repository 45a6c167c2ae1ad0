"""Servers of a study's storage: Optuna's gRPC proxy, and PostgreSQL."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from optuna.storages import get_storage
from optuna.storages._grpc.server import make_server


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@contextmanager
def serving_storage(url):
    """Serve a storage as ``run_grpc_proxy_server`` does; give the proxy's URL."""
    pytest.importorskip("grpc")
    port = free_port()
    with ThreadPoolExecutor(4) as threads:
        server = make_server(get_storage(url), "127.0.0.1", port, threads)
        server.start()
        try:
            yield f"grpc://127.0.0.1:{port}"
        finally:
            server.stop(grace=None).wait()


class Postgres:
    """A PostgreSQL server of its own, on a port of loopback; the user ``me`` needs no password."""

    def __init__(self):
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        if not found and shutil.which("initdb") is None:
            pytest.skip("PostgreSQL is not installed")
        pytest.importorskip("psycopg")
        self._programs = found[-1].parent if found else Path(shutil.which("initdb")).parent
        # It does not run as root, and pytest closes its folders to other users at each start.
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self._data = Path(tempfile.mkdtemp(prefix="hawsweep-postgres-", dir="/tmp"))
        if self._user is not None:
            os.chown(self._data, self._user.pw_uid, self._user.pw_gid)
        self.port = free_port()
        self._run("initdb", "-A", "trust", "-U", "me", "-D", self._data, "--no-sync")
        self.start()

    @property
    def url(self):
        return f"postgresql+psycopg://me@127.0.0.1:{self.port}/postgres"

    def start(self):
        said = f"-h 127.0.0.1 -p {self.port} -k '' -F"
        self._run("pg_ctl", "-w", "-D", self._data, "-l", self._data / "log", "-o", said, "start")

    def stop(self):
        """Stop it as a crash does: connections are cut."""
        self._run("pg_ctl", "-w", "-D", self._data, "-m", "immediate", "stop")

    def _run(self, program, *arguments):
        who = {} if self._user is None else {"user": self._user.pw_uid, "group": self._user.pw_gid}
        command = [self._programs / program, *arguments]
        log = subprocess.DEVNULL
        subprocess.run(command, check=True, cwd="/", stdout=log, stderr=log, timeout=60, **who)


@contextmanager
def postgres():
    server = Postgres()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(server._data)
