"""References: a path on this machine, or a Hugging Face repository's folder, from the cache or
downloaded.
"""

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from hawsweep.layout import CONFIG_FILE, WEIGHTS_FILE
from hawsweep.text import SayProgress


class NotFoundOnHub(Exception):  # noqa: N818 - turned into a message that names every place looked in
    """A repository is not in the cache and cannot be downloaded; the text says why."""


def here(reference: str) -> Path:
    """A reference as a path, with ``~`` resolved. The path need not exist.

    Check it with ``os.path``: ``Path.exists`` raises if the text cannot be a path.
    """
    return Path(os.path.expanduser(reference))


def is_path(reference: str) -> bool:
    """Whether a reference has the form of a path, which no repository has."""
    return reference.startswith(("/", "./", "../", "~"))


def split_revision(reference: str) -> tuple[str, str | None]:
    """A repository's name, and the revision after ``@``; None where there is none."""
    repo, _, revision = reference.partition("@")
    return (repo, revision) if revision else (reference, None)


def download_command(reference: str) -> str:
    """Ends "fetch it" with the command, for a repository's name; empty for what is none."""
    if not is_repository(reference):
        return ""
    repo, revision = split_revision(reference)
    of_revision = ["--revision", revision] if revision else []
    return f": {shlex.join(['hf', 'download', repo, *of_revision])}"


def how_to_mend(path: Path) -> str:
    """What to do about a file of a model or an adapter that is missing or damaged, as a sentence.

    Args:
        path: Of the file or its folder. In Hugging Face's cache it names repository and commit.
    """
    if path.name in (WEIGHTS_FILE, CONFIG_FILE):
        return "Take an earlier checkpoint of the adapter, or train it again."
    of_cache = re.search(r"/models--([^/]+)/snapshots/([^/]+)", str(path))
    if of_cache is None:
        return "Fetch the model again."
    repo, commit = of_cache[1].replace("--", "/", 1), of_cache[2]
    command = ["hf", "download", repo, "--revision", commit, "--force-download"]
    return f"Fetch the model again: `{shlex.join(command)}`."


def fetch(
    repo: str,
    kind: str,
    patterns: Sequence[str],
    progress: SayProgress,
    revision: str | None = None,
) -> Path:
    """The folder with a repository's files that match ``patterns``.

    Args:
        kind: ``model`` or ``dataset``.
        revision: A branch, a tag or a commit; None for the main branch.

    Raises:
        NotFoundOnHub: It is not in the cache and cannot be downloaded.
    """
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return _snapshot(repo, kind, patterns, revision, local=True)
    except HFValidationError as fault:
        raise NotFoundOnHub("the hub has no such names") from fault
    except LocalEntryNotFoundError:
        named = repo if revision is None else f"{repo}@{revision}"
        progress(f"downloading {named} from Hugging Face")
    try:
        return _snapshot(repo, kind, patterns, revision, local=False)
    except Exception as fault:  # the hub client lets many classes of its transport through
        lines = str(fault).strip().splitlines()
        raise NotFoundOnHub(f"the hub: {lines[0] if lines else type(fault).__name__}") from fault


def _snapshot(
    repo: str, kind: str, patterns: Sequence[str], revision: str | None, *, local: bool
) -> Path:
    from huggingface_hub import snapshot_download

    folder = snapshot_download(
        repo,
        repo_type=kind,
        revision=revision,
        allow_patterns=list(patterns),
        local_files_only=local,
    )
    return Path(folder)


def is_in_part(reference: str, file: str, patterns: Sequence[str]) -> bool:
    """Whether of a model's repository the cache has a file, and not all that match ``patterns``."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    repo, revision = split_revision(reference)
    if cached(reference, file) is None:
        return False
    try:
        _snapshot(repo, "model", patterns, revision, local=True)
    except LocalEntryNotFoundError:
        return True
    return False


def cached(reference: str, file: str) -> Path | None:
    """The cached folder of a model's repository that has ``file``; None where there is none.

    Args:
        reference: The repository, maybe with ``@`` and a revision.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    repo, revision = split_revision(reference)
    try:
        found = try_to_load_from_cache(repo, file, revision=revision)
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def cache_path() -> Path:
    """Where downloaded repositories are kept; ``HF_HOME`` moves it."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def is_repository(reference: str) -> bool:
    """Whether a reference has the form of a repository's name on the hub, maybe with ``@`` and a
    revision.
    """
    return re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", reference) is not None
