"""The store of artifacts that the starter of a sweep serves to other machines: its own folder, over
HTTP on loopback. Tunnels of ssh lead to it.
"""

import hmac
import os
import re
import secrets
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from hawsweep.files import HALF_WRITTEN
from hawsweep.study.artifact_stores import ARTIFACT_ID

MOST_BYTES = 64 << 30
_BLOCK_BYTES = 1 << 20
# Seconds after which a connection that sends or takes nothing is closed.
_IDLE_S = 60
# Of a refused upload so many blocks are read.
_LINGER_BLOCKS = 1024
_SIZE = re.compile("[0-9]{1,15}")


@dataclass(frozen=True)
class Served:
    """A served store.

    Attributes:
        token: What each request must bring; it is secret.
    """

    port: int
    token: str = field(repr=False)

    @property
    def url(self) -> str:
        """Its address on this machine."""
        return f"http://127.0.0.1:{self.port}/"


@contextmanager
def serving_artifacts(folder: Path, most_bytes: int = MOST_BYTES) -> Iterator[Served]:
    """Serve a folder, from a thread, until the block ends.

    Args:
        most_bytes: Of one artifact.
    """
    folder.mkdir(parents=True, exist_ok=True)
    token = secrets.token_urlsafe(32)
    server = _Server(folder, token, most_bytes)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Served(server.server_address[1], token)
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path, token: str, most_bytes: int) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.folder, self.token, self.most_bytes = folder, token, most_bytes

    def handle_error(self, *_: object) -> None:
        """Say nothing of a connection that broke: the other side asks again."""


class _Answers(BaseHTTPRequestHandler):
    """GET, PUT and DELETE of an artifact; one request for each connection."""

    server: _Server
    timeout = _IDLE_S

    def do_GET(self) -> None:
        """Send an artifact."""
        if (path := self._path()) is None:
            return
        try:
            file = path.open("rb")
        except FileNotFoundError:
            self._answer(404)
            return
        with file:
            self.send_response(200)
            self.send_header("Content-Length", str(os.fstat(file.fileno()).st_size))
            self.end_headers()
            shutil.copyfileobj(file, self.wfile, _BLOCK_BYTES)

    def do_PUT(self) -> None:
        """Take an artifact: it is there once it is whole."""
        if (path := self._path()) is None:
            return
        said = self.headers.get("Content-Length", "")
        n_bytes = int(said) if _SIZE.fullmatch(said) else None
        if n_bytes is None:
            self._answer(411)
        elif n_bytes > self.server.most_bytes:
            self._answer(413)
        elif n_bytes > shutil.disk_usage(path.parent).free:
            self._answer(507)
        else:
            self._answer(201 if self._receive(path, n_bytes) else 400)

    def do_DELETE(self) -> None:
        """Remove an artifact."""
        if (path := self._path()) is None:
            return
        try:
            path.unlink()
        except FileNotFoundError:
            self._answer(404)
        else:
            self._answer(204)

    def log_message(self, *_: object) -> None:
        """Say nothing: the live picture is on the terminal."""

    def _path(self) -> Path | None:
        """The file that is asked for; None where the request was refused."""
        asked, name = f"Bearer {self.server.token}", self.path.removeprefix("/")
        given = self.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode("latin-1", "replace"), asked.encode()):
            self._answer(401)
        elif not ARTIFACT_ID.fullmatch(name):
            self._answer(400)
        else:
            return self.server.folder / name
        return None

    def _receive(self, path: Path, n_bytes: int) -> bool:
        """Store the body; whether all of it came. Each has a file of its own meanwhile: a client
        that gave up may ask again before its first connection ends.
        """
        number, name = tempfile.mkstemp(prefix=HALF_WRITTEN, dir=path.parent)
        try:
            with os.fdopen(number, "wb") as file:
                while n_bytes and (block := self.rfile.read(min(n_bytes, _BLOCK_BYTES))):
                    n_bytes -= len(block)
                    file.write(block)
                file.flush()
                os.fsync(number)
            if not n_bytes:
                os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)
        return not n_bytes

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()
        if status // 100 == 4 and self.command == "PUT":
            # Else the body still on its way would end the connection before the answer is read.
            self.connection.shutdown(socket.SHUT_WR)
            for _ in range(_LINGER_BLOCKS):
                if not self.rfile.read1(_BLOCK_BYTES):
                    break
