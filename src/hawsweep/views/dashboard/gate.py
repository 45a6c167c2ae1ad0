"""What the dashboard answers, and to whom: requests on a list, from its own pages and programs.

The list is of what is allowed; everything else is refused before optuna-dashboard sees it.
"""

import json
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from hawsweep.views.dashboard.artifacts import StudyFiles

Headers = list[tuple[str, str]]

_HOST = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\])(?::[0-9]{1,5})?")
# A path is matched as the server below will see it: decoded once, without slashes at its end.
_PLAIN = re.compile(r"[!-~]*")
_PAGE = re.compile(r"/?|/dashboard(?:/[A-Za-z0-9/_.-]*)?")
_FILE = re.compile(r"/artifacts/(?:[0-9]+/){1,2}([0-9a-fA-F-]+)")
_STUDY, _TRIAL = "/api/studies/[0-9]+", "/api/trials/[0-9]+"
# Methods and paths of optuna-dashboard. A study cannot be renamed, because its folder has its name.
ALLOWED = tuple(
    (methods.split(), re.compile(path))
    for methods, path in (
        ("GET HEAD", _PAGE.pattern),
        ("GET HEAD", r"/favicon\.ico|/static/[A-Za-z0-9_.-]+"),
        ("GET HEAD", _FILE.pattern),
        ("GET HEAD", "/csv/[0-9]+"),
        ("GET HEAD", "/api/meta"),
        ("GET HEAD POST", "/api/studies"),
        ("GET HEAD DELETE", _STUDY),
        ("GET HEAD", f"{_STUDY}/param_importances|{_STUDY}/plot/[a-z_]+"),
        ("PUT", f"{_STUDY}/note|{_STUDY}/[0-9]+/note|{_STUDY}/preference_feedback_component"),
        ("POST", f"{_STUDY}/preference|{_STUDY}/[0-9]+/skip"),
        ("POST DELETE", f"{_STUDY}/preference/[A-Za-z0-9-]+"),
        ("POST", f"{_TRIAL}/tell|{_TRIAL}/user-attrs"),
        ("POST", "/api/artifacts/[0-9]+(?:/[0-9]+)?"),
        ("DELETE", "/api/artifacts/(?:[0-9]+/){1,2}[0-9a-fA-F-]+"),
    )
)
# Of pages: optuna-dashboard's own, closed further. No other page may hold them in a frame.
_OF_PAGES = (
    "default-src 'self'; script-src 'self' 'unsafe-eval'; style-src 'self' data: 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' blob:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
# A file is shown as a page without an origin: it cannot reach the dashboard or any other address.
_OF_FILES = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self'; font-src data:; "
    "frame-ancestors 'self'"
)
# An upload runs nothing: what is no picture, sound or plain text is only saved.
_OF_UPLOADS = "sandbox; default-src 'none'; frame-ancestors 'self'"
_SHOWN = re.compile(
    r"(?:image/(?:png|jpeg|gif|webp|bmp)|audio/[a-z0-9.+-]+|video/[a-z0-9.+-]+"
    r"|text/(?:plain|csv)|application/(?:json|jsonl))(?:;.*)?"
)


class Gate:
    """A WSGI application before optuna-dashboard's.

    It refuses a request that is not on the list; that does not name this machine's own address, so
    that a foreign name cannot point here (DNS rebinding); that another page sends. Every answer
    forbids what a browser would otherwise allow to other pages.
    """

    def __init__(self, app: "WSGIApplication", files: "StudyFiles") -> None:
        self._app, self._files = app, files

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        """Answer a request, or let it through."""
        path = environ.get("PATH_INFO", "").rstrip("/")
        policy = _OF_PAGES
        if (refused := _refusal(environ, path)) is None and (asked := _FILE.fullmatch(path)):
            policy = _OF_FILES if self._files.is_offered(asked[1]) else _OF_UPLOADS
            if not self._files.is_here(asked[1]):
                text = "This file is not on this machine: look on the one that ran the trial."
                refused = ("404 Not Found", text)

        def start(status: str, headers: Headers, *fault: Any) -> Any:
            return start_response(status, _closed(headers, policy), *fault)

        if refused is not None:
            return _answer(start, *refused)
        environ["PATH_INFO"] = path or "/"
        return self._app(environ, start)


def _refusal(environ: "WSGIEnvironment", path: str) -> tuple[str, str] | None:
    """The status and the reason of a refusal; None for a request to let through."""
    method, host = environ["REQUEST_METHOD"], environ.get("HTTP_HOST", "")
    if not _HOST.fullmatch(host.lower()):
        return "403 Forbidden", "This is served as 127.0.0.1, [::1] and localhost only."
    if not _PLAIN.fullmatch(path) or not _PLAIN.fullmatch(environ.get("QUERY_STRING", "")):
        return "400 Bad Request", "The address has characters that no address here has."
    is_page = method in ("GET", "HEAD") and _PAGE.fullmatch(path) is not None
    if not _is_own(environ, host, is_page=is_page):
        return "403 Forbidden", "Another page may neither read nor write here."
    if re.fullmatch(f"{_STUDY}/rename", path):
        reason = "A study cannot be renamed: its folder has its name."
        return "400 Bad Request", json.dumps({"reason": reason})
    known = [methods for methods, pattern in ALLOWED if pattern.fullmatch(path)]
    if not known:
        return "404 Not Found", "There is no such page."
    if not any(method in methods for methods in known):
        return "405 Method Not Allowed", "This page has no such method."
    return None


def _is_own(environ: "WSGIEnvironment", host: str, *, is_page: bool) -> bool:
    """Whether a request comes from a page served here, an address typed in, or a program.

    Browsers send ``Sec-Fetch-Site`` with all requests, and ``Origin`` with those of scripts. To
    follow a link from elsewhere is allowed.
    """
    origin = environ.get("HTTP_ORIGIN")
    if origin is not None and origin.lower() != f"http://{host.lower()}":
        return False
    if environ.get("HTTP_SEC_FETCH_SITE", "none") in ("none", "same-origin"):
        return True
    is_load = environ.get("HTTP_SEC_FETCH_MODE") == "navigate"
    return is_page and is_load and environ.get("HTTP_SEC_FETCH_DEST") == "document"


def _closed(headers: Headers, policy: str) -> Headers:
    """Headers without what opens an answer to other pages, with what closes it."""
    replaced = ("content-security-policy", "x-content-type-options", "x-frame-options")
    own = [
        (name, value)
        for name, value in headers
        if name.lower() not in replaced and not name.lower().startswith("access-control-")
    ]
    if policy == _OF_UPLOADS:
        kind = next((value for name, value in own if name.lower() == "content-type"), "")
        if not _SHOWN.fullmatch(kind.lower()):
            own = [each for each in own if each[0].lower() != "content-type"]
            own += [("Content-Type", "application/octet-stream")]
            own += [("Content-Disposition", "attachment")]
    return [
        *own,
        ("Content-Security-Policy", policy),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "SAMEORIGIN"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
        ("Referrer-Policy", "no-referrer"),
    ]


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
