"""Uploads to the Hugging Face hub, only with --upload-repo. No other module uploads files."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hawsweep.errors import ExportError
from hawsweep.text import SayProgress

# What would be loaded beside the files of a later upload.
_LOADED = re.compile(
    r"(peft/)?(model|adapter)[^/]*\.safetensors(\.index\.json)?|(peft/)?adapter_config\.json|Modelfile"
)


@dataclass(frozen=True)
class Repository:
    """A repository to upload to, and the token for it."""

    repo: str
    token: str
    private: bool


def check_target(repo: str, *, private: bool) -> Repository:
    """Make sure that an upload can begin, before anything is built for it.

    Raises:
        ExportError: There is no token, the hub refuses it, or the name cannot be a repository's.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as fault:
        raise ExportError(
            f"{repo!r} cannot be a repository: {_first_line(fault)} Write --upload-repo NAME/MODEL."
        ) from fault
    token = get_token()
    if token is None:
        raise ExportError(
            f"There is no token to upload to {repo} with. Log in with `hf auth login`, or set "
            "HF_TOKEN to one that may write. Nothing was exported."
        )
    try:
        HfApi(token=token).whoami()
    except Exception as fault:  # the hub client lets many classes of its transport through
        raise ExportError(
            f"Hugging Face does not answer or refuses the token: {_told(fault, token)}. "
            "Nothing was exported."
        ) from None
    return Repository(repo, token, private)


def upload(
    target: Repository,
    files: Iterable[tuple[str, Path | bytes]],
    message: str,
    progress: SayProgress = lambda _: None,
) -> str:
    """Send files, as one commit, so that the repository never has half of them; give its address.

    Args:
        files: The path in the repository, and the local file or the content.

    Raises:
        ExportError: The repository cannot be made or written; or it is public although a private
            one was asked for. Then nothing was sent.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi(token=target.token)
    progress(f"uploading to {target.repo}")
    try:
        # None: public, unless the organization's default is private.
        api.create_repo(target.repo, private=target.private or None, exist_ok=True)
        known = api.model_info(target.repo)
        is_public = target.private and not known.private
        if not is_public:
            new = {path for path, _ in files}
            there = [each.rfilename for each in known.siblings or ()]
            operations: list[Any] = [CommitOperationAdd(path, content) for path, content in files]
            operations += [
                CommitOperationDelete(path)
                for path in there
                if path not in new and _LOADED.fullmatch(path)
            ]
            api.create_commit(target.repo, operations, commit_message=message)
    except Exception as fault:  # as in check_target
        raise ExportError(
            f"Uploading to {target.repo} failed: {_told(fault, target.token)}. The export on this "
            "machine is whole; the same command uploads it."
        ) from None
    if is_public:
        raise ExportError(
            f"{target.repo} is public, and --private asks for a private one. Nothing was sent: "
            "make it private on the hub, or choose another name."
        )
    return f"{api.endpoint}/{target.repo}"


def _told(fault: Exception, token: str) -> str:
    """The fault and its cause in words, without the token."""
    told = _first_line(fault)
    if fault.__cause__ is not None:
        told = f"{told.rstrip('.')}: {_first_line(fault.__cause__)}"
    return told.replace(token, "...").rstrip(".")


def _first_line(fault: BaseException) -> str:
    lines = str(fault).strip().splitlines()
    return lines[0] if lines else type(fault).__name__
