"""The server of optuna-dashboard, for this machine only."""

import socket
from collections.abc import Callable
from contextlib import suppress
from socketserver import ThreadingMixIn
from threading import BoundedSemaphore, Timer
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from optuna_dashboard import wsgi

from hawsweep.errors import BackendError
from hawsweep.study.optuna_door import study_id
from hawsweep.study.place import Place
from hawsweep.study.storage import open_storage
from hawsweep.study.study import load_study
from hawsweep.views.dashboard.artifacts import StudyFiles
from hawsweep.views.dashboard.gate import Gate
from hawsweep.views.dashboard.refresh import Refresher, refreshed
from hawsweep.views.dashboard.study_list import StudyList

HOST = "127.0.0.1"
# Of one request, and of all at a time: a page may keep neither the machine nor its threads busy.
_LIMIT_S = 120.0
_MOST_REQUESTS = 64


def serve(
    place: Place, port: int | None, ready: Callable[[str], None], *, name: str | None = None
) -> None:
    """Serve the dashboard until interrupted, notes and plots kept up to date; see ``make_server``.

    Args:
        ready: Called with the address to open.
        name: The study to open; by default the list of studies.
    """
    with (
        make_server(place, port, name=name) as server,
        suppress(KeyboardInterrupt),
        refreshed(Refresher(open_storage(place), place).look),
    ):
        ready(server.url)
        server.serve_forever()


class DashboardServer(ThreadingMixIn, WSGIServer):
    """Serves the dashboard; a browser may hold connections open, hence the threads.

    Attributes:
        url: The address to open.
    """

    daemon_threads = True
    url = ""

    def __init__(self, port: int) -> None:
        self._free = BoundedSemaphore(_MOST_REQUESTS)
        super().__init__((HOST, port), _SilentHandler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread; what comes while all are busy is closed."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread was started, so none will make room
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """End a request that takes too long, whatever it waits for."""
        timer = Timer(_LIMIT_S, _hang_up, [request])
        timer.daemon = True
        try:
            timer.start()
            super().process_request_thread(request, client_address)
        finally:
            timer.cancel()
            self._free.release()


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class _SilentHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: the terminal shows the address and no requests."""


def make_server(place: Place, port: int | None, *, name: str | None = None) -> DashboardServer:
    """Open the studies and the port.

    Args:
        port: None for 8080, or a free one if that is taken; 0 for a free one.
        name: The study whose note the address is of.

    Raises:
        StudyError: There are no studies, or not this one.
        BackendError: The port is taken.
    """
    storage, files = open_storage(place, only_look=False), StudyFiles(place)
    path = "" if name is None else f"dashboard/studies/{study_id(load_study(storage, name))}/note"
    server = _bind(port)
    server.set_app(Gate(StudyList(wsgi(storage, artifact_store=files)), files))
    server.url = f"http://{HOST}:{server.server_port}/{path}"
    return server


def _bind(port: int | None) -> DashboardServer:
    try:
        if port is None:
            with suppress(OSError):
                return DashboardServer(8080)
        return DashboardServer(port or 0)
    except OSError as fault:
        raise BackendError(
            f"The dashboard cannot be served on port {port or 'any'} of {HOST}: {fault.strerror}. "
            "Choose another port with --port."
        ) from fault
