"""The stores of artifacts: what Optuna's do not do is added. Importing this takes a second where
boto3 is installed, as Optuna's package of artifacts imports it.
"""

import http.client
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, urlsplit

from optuna.artifacts import Boto3ArtifactStore, FileSystemArtifactStore
from optuna.artifacts.exceptions import ArtifactNotFound

from hawsweep.errors import StudyError
from hawsweep.files import replacing
from hawsweep.study.artifact_stores import TOKEN_VARIABLE, Refused

_LOOPBACK = {"127.0.0.1", "::1", "localhost"}
_BLOCK_BYTES = 1 << 20
_TIMEOUT_S = 60
_UNAUTHORIZED, _NOT_FOUND = 401, 404


class Folder(FileSystemArtifactStore):
    """A folder. An artifact in it is whole."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._folder = folder

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """See ``ArtifactStore``."""
        with replacing(self._folder / artifact_id) as beside, beside.open("wb") as file:
            shutil.copyfileobj(content_body, file, _BLOCK_BYTES)


class Bucket(Boto3ArtifactStore):
    """A bucket's objects below a prefix. Credentials are found by boto3.

    Raises:
        StudyError: boto3 is missing.
    """

    def __init__(self, bucket: str, prefix: str) -> None:
        try:
            import boto3
            from botocore.config import Config
        except ImportError as fault:
            raise StudyError(
                "Files in S3 need boto3. Install it: in a clone, pip install -e '.[s3]'."
            ) from fault
        # Whether it is tried again is decided by the caller.
        how = Config(connect_timeout=20, read_timeout=_TIMEOUT_S, retries={"total_max_attempts": 2})
        client: Any = boto3.Session().client("s3", config=how)
        # Without its copy in memory: the file is opened for this call alone.
        super().__init__(bucket, client, avoid_buf_copy=True)
        self._prefix = f"{prefix}/" if prefix else ""

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """See ``ArtifactStore``."""
        return super().open_reader(self._prefix + artifact_id)

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """See ``ArtifactStore``."""
        super().write(self._prefix + artifact_id, content_body)

    def remove(self, artifact_id: str) -> None:
        """See ``ArtifactStore``."""
        super().remove(self._prefix + artifact_id)


class HttpStore:
    """The store that ``running.artifact_server`` serves.

    Args:
        url: Of this machine alone: an ssh tunnel leads to the other one.
        token: Sent with each request.

    Raises:
        StudyError: The URL leads to another machine.
    """

    def __init__(self, url: str, token: str) -> None:
        parsed = urlsplit(url)
        if parsed.hostname not in _LOOPBACK or parsed.username or parsed.path not in {"", "/"}:
            raise StudyError(
                "A store of artifacts over HTTP is at http://127.0.0.1:PORT/: over a network its "
                "token could be read. Let ssh forward the port."
            )
        self._host, self._port, self._token = parsed.hostname, parsed.port or 80, token

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """See ``ArtifactStore``."""
        return self._ask("GET", artifact_id)

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """See ``ArtifactStore``."""
        size = content_body.seek(0, os.SEEK_END)
        content_body.seek(0)
        self._ask("PUT", artifact_id, content_body, {"Content-Length": str(size)}).read()

    def remove(self, artifact_id: str) -> None:
        """See ``ArtifactStore``."""
        self._ask("DELETE", artifact_id).read()

    def _ask(
        self,
        method: str,
        artifact_id: str,
        body: BinaryIO | None = None,
        headers: dict[str, str] | None = None,
    ) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(
            self._host, self._port, timeout=_TIMEOUT_S, blocksize=_BLOCK_BYTES
        )
        headers = {"Authorization": f"Bearer {self._token}", **(headers or {})}
        with suppress(BrokenPipeError, ConnectionResetError):  # refused before all was sent
            connection.request(method, f"/{quote(artifact_id)}", body, headers)
        # One request for each connection: the answer's end closes it.
        answer = connection.getresponse()
        if answer.status // 100 == 2:
            return answer
        connection.close()
        if answer.status == _NOT_FOUND:
            raise ArtifactNotFound(artifact_id)
        told = f"it answered {answer.status} {answer.reason}"
        if answer.status == _UNAUTHORIZED:
            told += f"; {TOKEN_VARIABLE} is not its token"
        raise (Refused if answer.status // 100 == 4 else OSError)(told)
