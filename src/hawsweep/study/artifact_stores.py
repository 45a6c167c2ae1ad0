"""The stores in which trials' files travel between machines, by URL: a bucket of S3, a folder that
several machines share, and the folder of the machine that started the sweep, over HTTP on loopback.
"""

import http.client
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from urllib.parse import quote, urlsplit

import optuna
from optuna.artifacts import Boto3ArtifactStore, FileSystemArtifactStore
from optuna.artifacts.exceptions import ArtifactNotFound

from hawsweep.errors import StudyError
from hawsweep.files import replacing
from hawsweep.study.attributes import ARTIFACTS

# Where a machine reaches the store at another address than the study says, and what opens it.
ARTIFACTS_VARIABLE, TOKEN_VARIABLE = "HAWSWEEP_ARTIFACTS", "HAWSWEEP_ARTIFACTS_TOKEN"
# In place of a URL: the folder of this name in the study's folder.
BESIDE = "artifacts"
# What is put into a store; no path leads out of it.
ARTIFACT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_BUCKET = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])((?:/[A-Za-z0-9._-]+)*)/?")
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}
_BLOCK_BYTES = 1 << 20
_TIMEOUT_S = 60
_UNAUTHORIZED, _NOT_FOUND = 401, 404


class Store(Protocol):
    """Optuna's ``ArtifactStore``, which is not public."""

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Open an artifact, or raise ``ArtifactNotFound``."""

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Write an artifact, or replace it."""

    def remove(self, artifact_id: str) -> None:
        """Remove an artifact."""


class Refused(OSError):  # noqa: N818 - as PermissionError
    """A store does not do what was asked, and would not the next time."""


def artifacts_url(study: optuna.Study) -> str | None:
    """The store of a study's files as seen from this machine; None without one."""
    return os.environ.get(ARTIFACTS_VARIABLE) or study.user_attrs.get(ARTIFACTS)


def open_store(url: str, study_dir: Path) -> Store:
    """A store by its URL. Nothing is read or written yet.

    Args:
        url: ``s3://bucket/prefix``, a folder's absolute path, ``http://127.0.0.1:PORT/``, or
            ``BESIDE``.

    Raises:
        StudyError: It is none of these, the folder is not there, or the package is missing.
    """
    if url == BESIDE:
        folder = study_dir / BESIDE
        folder.mkdir(parents=True, exist_ok=True)
        return _Folder(folder)
    if found := _BUCKET.fullmatch(url):
        return _bucket(url, found[1], found[2])
    if url.startswith("http://"):
        return HttpStore(url, os.environ.get(TOKEN_VARIABLE, ""))
    if not os.path.isabs(url):
        raise StudyError(
            f"artifacts is {url!r}, must be s3://bucket/prefix or the absolute path of a folder "
            "that the machines share."
        )
    if not os.path.isdir(url):
        raise StudyError(f"The folder of artifacts {url} is not there. Make it, or mount it.")
    return _Folder(Path(url))


def is_refusal(fault: BaseException) -> bool:
    """Whether what a store raised would be raised again, so that waiting does not help."""
    response: dict[str, Any] = getattr(fault, "response", {})
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    lasting = (ArtifactNotFound, Refused, PermissionError, FileNotFoundError, NotADirectoryError)
    return (
        isinstance(fault, lasting)
        or (status // 100 == 4 and status not in {408, 429})
        or type(fault).__name__ in {"NoCredentialsError", "PartialCredentialsError"}
    )


def is_missing(fault: BaseException) -> bool:
    """Whether a store is there and has no such artifact. Optuna says the same of a bucket that is
    missing.
    """
    response: dict[str, Any] = getattr(fault.__cause__, "response", {})
    code = response.get("Error", {}).get("Code")
    return isinstance(fault, ArtifactNotFound) and code != "NoSuchBucket"


class _Folder(FileSystemArtifactStore):
    """A folder. An artifact in it is whole."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._folder = folder

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        with replacing(self._folder / artifact_id) as beside, beside.open("wb") as file:
            copy_stream(content_body, file)


def _bucket(url: str, bucket: str, prefix: str) -> Store:
    try:
        import boto3  # type: ignore[import-not-found,import-untyped,unused-ignore]
        from botocore.config import Config  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError as fault:
        raise StudyError(
            f"The store {url} needs the package boto3. Install it: pip install 'hawsweep[s3]'."
        ) from fault
    # Whether it is tried again is decided by the caller.
    how = Config(connect_timeout=20, read_timeout=_TIMEOUT_S, retries={"total_max_attempts": 2})
    return _Bucket(bucket, prefix.strip("/"), boto3.Session().client("s3", config=how))


class _Bucket(Boto3ArtifactStore):
    """A bucket's objects below a prefix."""

    def __init__(self, bucket: str, prefix: str, client: Any) -> None:
        # Without its copy in memory: the file is opened for this call alone.
        super().__init__(bucket, client, avoid_buf_copy=True)
        self._prefix = f"{prefix}/" if prefix else ""

    def open_reader(self, artifact_id: str) -> BinaryIO:
        return super().open_reader(self._prefix + artifact_id)

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        super().write(self._prefix + artifact_id, content_body)

    def remove(self, artifact_id: str) -> None:
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


def copy_stream(source: BinaryIO, target: BinaryIO) -> None:
    """Copy to the end."""
    while block := source.read(_BLOCK_BYTES):
        target.write(block)
