"""Files that are whole or missing: a process killed while writing leaves the earlier file."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hawsweep.errors import StudyError

# The prefix of files that are being written. No code reads them.
HALF_WRITTEN = "~"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to; the written file then replaces ``path`` and is synced to disk.

    Raises:
        OSError: It cannot be written; ``path`` is unchanged.
    """
    # The name has the process id: another worker may write the same file.
    beside = path.with_name(f"{HALF_WRITTEN}{os.getpid()}-{path.name}")
    try:
        yield beside
        with beside.open("rb") as written:
            os.fsync(written.fileno())  # else a crash of the machine could leave an empty file
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def replace_text(path: Path, text: str) -> None:
    """Replace ``path`` by a text file; see ``replacing``."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def remove_half_written(folder: Path) -> None:
    """Remove half-written files of killed processes from ``folder`` and its subfolders."""
    for path in folder.rglob(f"{HALF_WRITTEN}*"):
        path.unlink(missing_ok=True)


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a JSON lines file; none if it is missing.

    Raises:
        StudyError: It is damaged.
    """
    if not path.is_file():
        return []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError) as fault:
        raise StudyError(
            f"{path} is damaged: {fault}. Restore it from a backup, or move it away."
        ) from fault


def existing_folder(folder: Path) -> Path:
    """A folder, or of one that is yet to be made the nearest above it that is there."""
    folder = folder.absolute()
    while not folder.is_dir():
        folder = folder.parent
    return folder
