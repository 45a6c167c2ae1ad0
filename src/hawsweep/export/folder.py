"""The folder of an export: its contents, and adding parts to it whole or not at all."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hawsweep.errors import ExportError
from hawsweep.export.fidelity import Check
from hawsweep.files import HALF_WRITTEN, files_under, replace_text

MANIFEST = "export.json"
MODELFILE = "Modelfile"
CARD = "README.md"


@dataclass(frozen=True)
class Origin:
    """The adapter of an export.

    Attributes:
        checkpoint: The iteration of a kept checkpoint; None for the trial's best.
        digest: SHA-256 of its weights.
    """

    study: str
    trial_number: int
    checkpoint: int | None
    digest: str


@dataclass(frozen=True)
class Part:
    """Something exported and checked.

    Attributes:
        name: ``adapters``, ``fused``, or ``peft``, which has the check of ``adapters``.
        path: In the export's folder.
        dequantized: Whether its base was quantized and it is not.
    """

    name: str
    path: str
    n_bytes: int
    check: Check
    dequantized: bool = False


def size_of(path: Path) -> int:
    """Bytes of a file, or of all in a folder."""
    files = [path] if path.is_file() else files_under(path)
    return sum(each.stat().st_size for each in files)


def read_parts(folder: Path, origin: Origin, *, force: bool, is_own: bool) -> dict[str, Part]:
    """The parts in the folder that are exports of ``origin``, by name; none with ``force``.

    Args:
        force: Whether existing files may be replaced.
        is_own: Whether the folder is the study's own, which holds only exports.

    Raises:
        ExportError: It holds an export of another adapter, or files that are not hawsweep's.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return {}
    if not (folder / MANIFEST).is_file() and not (force and is_own):
        raise ExportError(
            f"{folder} is there already, an export of an older hawsweep. Use --force to replace it."
            if is_own
            else f"{folder} is there already, and is no export of hawsweep: nothing in it was "
            "touched. Choose another --output."
        )
    if force:
        return {}
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        there = Origin(**content["origin"])
        parts = [Part(**{**each, "check": Check(**each["check"])}) for each in content["parts"]]
    except (LookupError, OSError, TypeError, ValueError) as fault:
        raise ExportError(
            f"{folder / MANIFEST} is damaged: {fault}. Use --force to replace the export."
        ) from fault
    if is_own:  # the study may have been renamed
        there = replace(there, study=origin.study)
    if there != origin:
        raise ExportError(
            f"{folder} is there already, of {_told(there, origin)}. Use --force to replace it, or "
            "--output for another folder."
        )
    return {part.name: part for part in parts if (folder / part.path).exists()}


def _told(there: Origin, asked: Origin) -> str:
    at = "" if there.checkpoint is None else f" at iteration {there.checkpoint}"
    text = f"trial {there.trial_number}{at} of {there.study}"
    same = (there.study, there.trial_number, there.checkpoint)
    if same == (asked.study, asked.trial_number, asked.checkpoint):
        text += ", whose adapter was another one then"
    return text


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """A folder beside ``folder`` to build in. It is removed afterwards, also after an error."""
    prefix = f"{HALF_WRITTEN}{folder.name}-"
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f"{prefix}*"):
        if not _lives(left.name.removeprefix(prefix)):
            shutil.rmtree(left, ignore_errors=True)
    beside = folder.with_name(f"{prefix}{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        yield beside
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _lives(pid: str) -> bool:
    import psutil

    return pid.isdigit() and psutil.pid_exists(int(pid))


def install(beside: Path, folder: Path, names: list[str], *, is_new: bool) -> None:
    """Move the built files to their place: the whole folder, or each of ``names`` into it."""
    if is_new:
        old = beside.with_name(f"{beside.name}-old")
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.replace(old)
        beside.replace(folder)
        shutil.rmtree(old, ignore_errors=True)
        return
    for name in names:
        target = folder / name
        if target.is_dir():  # left by an export that was killed before its manifest was written
            shutil.rmtree(target)
        (beside / name).replace(target)


def write_texts(
    folder: Path, origin: Origin, parts: Sequence[Part], card: str, modelfile: str | None
) -> None:
    """Write the documents about the parts; the manifest comes last."""
    if modelfile is not None:
        replace_text(folder / MODELFILE, modelfile)
    write_card(folder, parts, card)
    content: dict[str, Any] = {"origin": asdict(origin), "parts": [asdict(each) for each in parts]}
    replace_text(folder / MANIFEST, json.dumps(content, indent=2) + "\n")


def write_card(folder: Path, parts: Sequence[Part], card: str) -> None:
    """Write the card, and others beside the fused model and PEFT's, which may be moved alone."""
    replace_text(folder / CARD, card)
    for part in parts:
        if part.name in ("fused", "peft"):
            replace_text(folder / part.path / CARD, card)
