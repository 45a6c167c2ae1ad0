"""Access to the dashboard from its own pages only, and limits on its files in a browser."""

import json
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from hawsweep.views.dashboard.artifacts import StudyFiles


_HOSTS = ("127.0.0.1", "::1", "localhost")
_READING = ("GET", "HEAD", "OPTIONS")
_FILE = re.compile(r"/artifacts/(?:\d+/){1,2}([0-9a-fA-F-]+)/?")
_RENAMING = re.compile(r"/api/studies/\d+/rename/?")
# A file is shown as a page without an origin: it cannot reach the dashboard or any other address.
_OF_FILES = (
    ("X-Content-Type-Options", "nosniff"),
    (
        "Content-Security-Policy",
        "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; "
        "style-src 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self'; font-src data:",
    ),
)


class Gate:
    """A WSGI application before another, which refuses requests of other web pages in the browser.

    A request must name this machine's own address, so that a foreign name cannot point here (DNS
    rebinding). A request that writes must come from a page served here.
    """

    def __init__(self, app: "WSGIApplication") -> None:
        self._app = app

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        """Answer a request, or let it through."""
        if not _is_served(environ.get("HTTP_HOST", "")):
            names = ", ".join(_HOSTS)
            return _answer(start_response, "403 Forbidden", f"This is served as {names} only.")
        if environ["REQUEST_METHOD"] not in _READING and not _is_same_origin(environ):
            return _answer(start_response, "403 Forbidden", "Another page may not write here.")
        return self._app(environ, _unframed(start_response))


class Files:
    """A WSGI application before optuna-dashboard's, which guards the files that it serves.

    The dashboard lets every page read them: a page that knows a study's name could read its
    translations. A study cannot be renamed, because its folder has its name.
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


def _is_served(host: str) -> bool:
    try:
        return urlsplit(f"//{host}").hostname in _HOSTS
    except ValueError:
        return False


def _is_same_origin(environ: "WSGIEnvironment") -> bool:
    origin = environ.get("HTTP_ORIGIN")  # only browsers send it
    if origin is None:
        return True
    return bool(urlsplit(origin).netloc.lower() == environ["HTTP_HOST"].lower())


def _unframed(start_response: "StartResponse") -> "StartResponse":
    """Forbid other pages to show an answer in a frame, which could catch a click."""

    def start(status: str, headers: list[tuple[str, str]], *fault: Any) -> Any:
        return start_response(status, [*headers, ("X-Frame-Options", "SAMEORIGIN")], *fault)

    return start


def _answer(start_response: "StartResponse", status: str, text: str) -> Iterable[bytes]:
    body = f"{text}\n".encode()
    start_response(
        status,
        [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
        ],
    )
    return [body]
