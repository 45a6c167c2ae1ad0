"""optuna-dashboard over the studies, for this machine or for those who have a token."""

import hashlib
import hmac
import ipaddress
import os
import secrets
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from optuna_dashboard import wsgi

from hawsweep.errors import BackendError
from hawsweep.study import Place, open_storage

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

HOST = "127.0.0.1"
TOKEN_VARIABLE = "HAWSWEEP_DASHBOARD_TOKEN"
_LEAST_TOKEN = 16
_READING = ("GET", "HEAD", "OPTIONS")


def serve(
    place: Place, host: str, port: int | None, token: str | None, ready: Callable[[str], None]
) -> None:
    """Serve the dashboard until interrupted; see ``make_server``.

    Args:
        ready: Is told the address to open, which holds the token.
    """
    with make_server(place, host, port, token) as server, suppress(KeyboardInterrupt):
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


class Gate:
    """A WSGI application before another, which it lets only those reach who may.

    Other web pages that a browser has open are kept out on every address: a request must name the
    host that is served, so that no foreign name can be made to point here (DNS rebinding), and what
    writes must come from a page that was served here.

    Args:
        hosts: The names by which requests may call the server, in lower case.
        any_address: Whether they may also call it by whatever IP address.
        token: What every request must bring, as cookie, as bearer, or once as ``?token=``; None
            lets all in.
        cookie: Name of the cookie; a browser keeps one jar for all ports of a host.
    """

    def __init__(
        self,
        app: "WSGIApplication",
        *,
        hosts: Iterable[str],
        any_address: bool = False,
        token: str | None = None,
        cookie: str = "hawsweep",
    ) -> None:
        self._app = app
        self._hosts = frozenset(hosts)
        self._any_address = any_address
        self._token = None if token is None else token.encode()
        self._cookie = cookie

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        """Answer a request, or let it through."""
        if not self._is_served(environ.get("HTTP_HOST", "")):
            names = ", ".join(sorted(self._hosts))
            return _answer(start_response, "403 Forbidden", f"This is served as {names} alone.")
        if environ["REQUEST_METHOD"] not in _READING and not _is_same_origin(environ):
            return _answer(start_response, "403 Forbidden", "Another page may not write here.")
        if self._token is not None:
            query = parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True)
            if any(key == "token" and self._is_token(value.encode()) for key, value in query):
                return self._enter(environ, start_response, query)
            if not self._is_known(environ):
                text = "Open the address that `hawsweep dashboard` printed, with its token."
                bearer = ("WWW-Authenticate", "Bearer")
                return _answer(start_response, "401 Unauthorized", text, bearer)
        return self._app(environ, _unframed(start_response))

    def _is_served(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            if name in self._hosts:
                return True
            return self._any_address and bool(ipaddress.ip_address(name))
        except ValueError:
            return False

    def _is_token(self, given: bytes) -> bool:
        assert self._token is not None
        return hmac.compare_digest(given, self._token)

    def _is_known(self, environ: "WSGIEnvironment") -> bool:
        kind, _, bearer = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        # A server gives headers as Latin-1, whatever they were.
        if kind.lower() == "bearer" and self._is_token(bearer.strip().encode("latin-1")):
            return True
        cookies = (
            each.strip().partition("=") for each in environ.get("HTTP_COOKIE", "").split(";")
        )
        return any(
            name == self._cookie
            and hmac.compare_digest(value.encode("latin-1"), self._pass().encode())
            for name, _, value in cookies
        )

    def _pass(self) -> str:
        """The cookie's value: of the token, but not the token, which may be used elsewhere and may
        hold what cookies cannot.
        """
        assert self._token is not None
        return hmac.new(self._token, b"hawsweep dashboard", hashlib.sha256).hexdigest()

    def _enter(
        self,
        environ: "WSGIEnvironment",
        start_response: "StartResponse",
        query: list[tuple[str, str]],
    ) -> Iterable[bytes]:
        # Two slashes at the start would lead to another host.
        where = "/" + quote(environ.get("PATH_INFO", "").lstrip("/"), encoding="latin-1")
        if rest := urlencode([(key, value) for key, value in query if key != "token"]):
            where += f"?{rest}"
        cookie = f"{self._cookie}={self._pass()}; Path=/; HttpOnly; SameSite=Strict"
        return _answer(
            start_response, "303 See Other", "", ("Location", where), ("Set-Cookie", cookie)
        )


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


def make_server(place: Place, host: str, port: int | None, token: str | None) -> DashboardServer:
    """Open the studies and the port.

    Args:
        host: A name or address of this machine; ``0.0.0.0`` for all it has.
        port: None for 8080, or a free one where that is taken; 0 for a free one.
        token: See ``Gate``.

    Raises:
        StudyError: There are no studies.
        BackendError: The address is not this machine's, or the port is taken.
    """
    app = wsgi(open_storage(place))
    server = _bind(host, port)
    address, chosen = server.server_address[:2]
    shown, hosts, everywhere = _known_as(host, str(address))
    cookie = f"hawsweep-{chosen}"
    server.set_app(Gate(app, hosts=hosts, any_address=everywhere, token=token, cookie=cookie))
    bracketed = f"[{shown}]" if ":" in shown else shown
    query = "" if token is None else f"?{urlencode({'token': token})}"
    server.url = f"http://{bracketed}:{chosen}/{query}"
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


def _is_same_origin(environ: "WSGIEnvironment") -> bool:
    origin = environ.get("HTTP_ORIGIN")  # what is no browser sends none
    if origin is None:
        return True
    return bool(urlsplit(origin).netloc.lower() == environ["HTTP_HOST"].lower())


def _unframed(start_response: "StartResponse") -> "StartResponse":
    """Forbid other pages to show an answer in a frame, where a click could be led to it."""

    def start(status: str, headers: list[tuple[str, str]], *fault: Any) -> Any:
        return start_response(status, [*headers, ("X-Frame-Options", "SAMEORIGIN")], *fault)

    return start


def _answer(
    start_response: "StartResponse", status: str, text: str, *headers: tuple[str, str]
) -> Iterable[bytes]:
    body = f"{text}\n".encode() if text else b""
    start_response(
        status,
        [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("Referrer-Policy", "no-referrer"),
            *headers,
        ],
    )
    return [body]
