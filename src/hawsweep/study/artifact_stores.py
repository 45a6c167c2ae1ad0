"""The stores in which trials' files travel between machines, by URL: a bucket of S3, a folder that
several machines share, and the folder of the machine that started the sweep, over HTTP on loopback.
Their clients are imported where one is used.
"""

import io
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import optuna

from hawsweep.errors import StudyError
from hawsweep.spec.checks import BUCKET
from hawsweep.study.attributes import ARTIFACTS

# Where a machine reaches the store at another address than the study says, and what opens it.
ARTIFACTS_VARIABLE, TOKEN_VARIABLE = "HAWSWEEP_ARTIFACTS", "HAWSWEEP_ARTIFACTS_TOKEN"
# In place of a URL: the folder of this name in the study's folder.
BESIDE = "artifacts"
# What is put into a store; no path leads out of it.
ARTIFACT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_CHECKED = b"hawsweep"


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


def record_artifacts(studies: Iterable[optuna.Study], url: str | None) -> None:
    """Record at a start where files travel. What was served to other machines stays in its folder.

    Args:
        url: See ``open_store``.
    """
    for study in studies:
        was = study.user_attrs.get(ARTIFACTS)
        study.set_user_attr(ARTIFACTS, url or (BESIDE if was == BESIDE else None))


def check_store(url: str, study_dir: Path) -> None:
    """Write, read and remove a file, as trials will.

    Raises:
        StudyError: The store cannot be used.
    """
    store, name = open_store(url, study_dir), f"check-{os.urandom(8).hex()}"
    try:
        store.write(name, io.BytesIO(_CHECKED))
        with store.open_reader(name) as file:
            if file.read() != _CHECKED:
                raise OSError("what was written is read back as something else")
        store.remove(name)
    except Exception as fault:
        said = str(fault).strip().removesuffix(".") or type(fault).__name__
        raise StudyError(f"The store of artifacts {url} cannot be used: {said}.") from fault


def open_store(url: str, study_dir: Path) -> Store:
    """A store by its URL. Nothing is read or written yet.

    Args:
        url: ``s3://bucket/prefix``, a folder's absolute path, ``http://127.0.0.1:PORT/``, or
            ``BESIDE``.

    Raises:
        StudyError: It is none of these, the folder is not there, or the package is missing.
    """
    from hawsweep.study.artifact_clients import Bucket, Folder, HttpStore

    if url == BESIDE:
        folder = study_dir / BESIDE
        folder.mkdir(parents=True, exist_ok=True)
        return Folder(folder)
    if found := BUCKET.fullmatch(url):
        return Bucket(found[1], found[2].strip("/"))
    if url.startswith("http://"):
        return HttpStore(url, os.environ.get(TOKEN_VARIABLE, ""))
    if not os.path.isabs(url):
        raise StudyError(
            f"artifacts is {url!r}, must be s3://bucket/prefix or the absolute path of a folder "
            "that the machines share."
        )
    if not os.path.isdir(url):
        raise StudyError(f"The folder of artifacts {url} is not there. Make it, or mount it.")
    return Folder(Path(url))


def is_refusal(fault: BaseException) -> bool:
    """Whether what a store raised would be raised again, so that waiting does not help."""
    from optuna.artifacts.exceptions import ArtifactNotFound

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
    from optuna.artifacts.exceptions import ArtifactNotFound

    response: dict[str, Any] = getattr(fault.__cause__, "response", {})
    code = response.get("Error", {}).get("Code")
    return isinstance(fault, ArtifactNotFound) and code != "NoSuchBucket"
