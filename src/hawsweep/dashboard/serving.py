"""optuna-dashboard over the studies, for this machine or for those who have a token."""

import ipaddress
import os
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from socketserver import ThreadingMixIn
from typing import Any
from urllib.parse import urlencode
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from optuna_dashboard import wsgi

from hawsweep.dashboard.artifacts import StudyFiles
from hawsweep.dashboard.gate import Files, Gate
from hawsweep.dashboard.refreshing import Refresher, refreshed
from hawsweep.dashboard.wording import Worded
from hawsweep.errors import BackendError
from hawsweep.optuna_door import study_id
from hawsweep.study import Place, load_study, open_storage

HOST = "127.0.0.1"
TOKEN_VARIABLE = "HAWSWEEP_DASHBOARD_TOKEN"
_LEAST_TOKEN = 16


def serve(
    place: Place,
    host: str,
    port: int | None,
    token: str | None,
    ready: Callable[[str], None],
    *,
    name: str | None = None,
) -> None:
    """Serve the dashboard until interrupted, notes and plots kept up to date; see ``make_server``.

    Args:
        ready: Is told the address to open, which holds the token.
        name: The study to open; by default the list of all.
    """
    with (
        make_server(place, host, port, token, name=name) as server,
        suppress(KeyboardInterrupt),
        refreshed(Refresher(open_storage(place), place).look),
    ):
        ready(server.url)
        server.serve_forever()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def choose_token(host: str) -> str | None:
    """The token that is asked for at an address: the environment's, else for an address that
    others reach a new one, else none.

    Raises:
        BackendError: The environment's is short enough to be guessed.
    """
    given = os.environ.get(TOKEN_VARIABLE)
    if not given:
        return None if is_loopback(host) else secrets.token_urlsafe(32)
    if len(given) < _LEAST_TOKEN:
        raise BackendError(
            f"{TOKEN_VARIABLE} has {len(given)} characters, must have {_LEAST_TOKEN} or more. "
            "Choose a longer one, or unset it: hawsweep then makes one where one is needed."
        )
    return given


class DashboardServer(ThreadingMixIn, WSGIServer):
    """Serves the dashboard; a browser may hold connections open, hence the threads.

    Attributes:
        url: The address to open, with the token.
    """

    daemon_threads = True
    url = ""

    def __init__(self, host: str, port: int) -> None:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        self.address_family = found[0][0]
        super().__init__((host, port), _SilentHandler)


class _SilentHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: a request's first line may hold the token."""


def make_server(
    place: Place, host: str, port: int | None, token: str | None, *, name: str | None = None
) -> DashboardServer:
    """Open the studies and the port.

    Args:
        host: A name or address of this machine; ``0.0.0.0`` for all it has.
        port: None for 8080, or a free one where that is taken; 0 for a free one.
        token: See ``Gate``.
        name: The study whose page the address is of.

    Raises:
        StudyError: There are no studies, or not this one.
        BackendError: The address is not this machine's, or the port is taken.
    """
    storage, files = open_storage(place), StudyFiles(place)
    path = "" if name is None else f"dashboard/studies/{study_id(load_study(storage, name))}"
    app = Files(Worded(wsgi(storage, artifact_store=files), storage), files)
    server = _bind(host, port)
    address, chosen = server.server_address[:2]
    shown, hosts, everywhere = _known_as(host, str(address))
    cookie = f"hawsweep-{chosen}"
    server.set_app(Gate(app, hosts=hosts, any_address=everywhere, token=token, cookie=cookie))
    bracketed = f"[{shown}]" if ":" in shown else shown
    query = "" if token is None else f"?{urlencode({'token': token})}"
    server.url = f"http://{bracketed}:{chosen}/{path}{query}"
    return server


def _known_as(host: str, address: str) -> tuple[str, set[str], bool]:
    """The name to show for the ``address`` that ``host`` stands for, all names that it has, and
    whether it stands for every address of this machine.
    """
    hosts = {"localhost", "127.0.0.1", "::1", host.lower(), address}
    if not ipaddress.ip_address(address).is_unspecified:
        return host, hosts, False
    name = socket.gethostname()
    return name, hosts | {name.lower(), f"{name.lower()}.local", socket.getfqdn().lower()}, True


def _bind(host: str, port: int | None) -> DashboardServer:
    try:
        if port is None:
            with suppress(OSError):
                return DashboardServer(host, 8080)
        return DashboardServer(host, port or 0)
    except (OSError, UnicodeError) as fault:
        reason = fault.strerror if isinstance(fault, OSError) else fault
        raise BackendError(
            f"The dashboard cannot be served on port {port or 'any'} of {host}: {reason}. Choose "
            "another port with --port, or an address of this machine with --host."
        ) from fault
