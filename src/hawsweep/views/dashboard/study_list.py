"""The dashboard's list of studies, without those of new seeds.

The page lists the newest study first, which would be the one of new seeds. The note on its study
links to it.
"""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from hawsweep.layout import CONFIRM_SUFFIX

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_LIST = "/api/studies"


class StudyList:
    """A WSGI application before optuna-dashboard's."""

    def __init__(self, app: "WSGIApplication") -> None:
        self._app = app

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        """Answer a request; the list of studies is shortened."""
        if (environ["REQUEST_METHOD"], environ["PATH_INFO"]) != ("GET", _LIST):
            return self._app(environ, start_response)
        told: list[tuple[str, list[tuple[str, str]]]] = []

        def start(status: str, headers: list[tuple[str, str]], *fault: Any) -> Any:
            told.append((status, headers))

        body = b"".join(self._app(environ, start))
        status, headers = told[-1]
        if status.startswith("200"):
            content = json.loads(body)
            found = content["study_summaries"]
            content["study_summaries"] = [
                each for each in found if not each["study_name"].endswith(CONFIRM_SUFFIX)
            ]
            body = json.dumps(content).encode()
        headers = [(key, value) for key, value in headers if key.lower() != "content-length"]
        start_response(status, [*headers, ("Content-Length", str(len(body)))])
        return [body]
