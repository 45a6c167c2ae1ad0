"""Who may reach the dashboard: pages that were served here, and those who have the token; and what
its files may do in a browser.
"""

import hashlib
import hmac
import ipaddress
import json
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from hawsweep.dashboard.artifacts import StudyFiles

_READING = ("GET", "HEAD", "OPTIONS")


_FILE = re.compile(r"/artifacts/(?:\d+/){1,2}([0-9a-fA-F-]+)/?")
_RENAMING = re.compile(r"/api/studies/\d+/rename/?")
# A file is shown as a page of nobody's: it may not speak to the dashboard, nor to anywhere else.
_OF_FILES = (
    ("X-Content-Type-Options", "nosniff"),
    (
        "Content-Security-Policy",
        "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; "
        "style-src 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self'; font-src data:",
    ),
)


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


class Files:
    """A WSGI application before optuna-dashboard's, which guards the files that it serves.

    The dashboard lets every page read them; one that knows a study's name could ask for its
    translations. A study keeps its name, which is that of its folder.
    """

    def __init__(self, app: "WSGIApplication", files: "StudyFiles") -> None:
        self._app, self._files = app, files

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        """Answer a request, or let it through."""
        path = environ.get("PATH_INFO", "")
        if _RENAMING.fullmatch(path):
            reason = "A study cannot be renamed: its folder has its name."
            return _answer(start_response, "400 Bad Request", json.dumps({"reason": reason}))
        asked = _FILE.fullmatch(path)
        if asked is None:
            return self._app(environ, start_response)
        if not self._files.is_here(asked[1]):
            text = "This file is not on this machine: look on the one that ran the trial."
            return _answer(start_response, "404 Not Found", text)

        def start(status: str, headers: list[tuple[str, str]], *fault: Any) -> Any:
            own = [each for each in headers if not each[0].startswith("Access-Control-")]
            return start_response(status, [*own, *_OF_FILES], *fault)

        return self._app(environ, start)


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
