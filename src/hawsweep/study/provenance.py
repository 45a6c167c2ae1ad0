"""The provenance of a study's numbers: versions, data, model, metric, and commit."""

import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hawsweep.spec.space import choices_of
from hawsweep.spec.sweep import SweepSpec

_PACKAGES = ("hawsweep", "mlx", "mlx-lm", "optuna", "sentence-transformers", "transformers")
# Files up to this size are read whole; of larger ones this much at each end.
_END_BYTES = 1 << 20
# Of a repository's settings those that say how its files are compared; they name no program.
_OF_FILES = re.compile(
    r"core\.(autocrlf|eol|filemode|ignorecase|symlinks) (true|false|input|lf|crlf|native)"
)
_IGNORED = {".md", ".png", ".jpg", ".gitattributes", ".lock"}


def versions() -> dict[str, str]:
    """Versions of the packages that decide the numbers."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def fingerprints(
    spec: SweepSpec,
    model_path: Path,
    data: Mapping[str, str],
    others: Mapping[str, Path] | None = None,
) -> dict[str, str]:
    """Fingerprints of things that the spec only names: splits, models, a custom metric and
    augmentation.

    Args:
        data: See ``load.Splits.fingerprint``.
        others: The folders of the models beside the first one, by model.
    """
    found = {**data, "model": _of_folder(model_path)}
    found |= {f"model {name}": _of_folder(path) for name, path in (others or {}).items()}
    names = choices_of(spec.search.get("augment.name"), spec.train.augment.name)
    own = {"metric": spec.scoring.metric, **{f"augment {name}": str(name) for name in names}}
    for key, name in own.items():
        module, colon, _ = name.partition(":")
        if colon:
            found[key] = _digest([Path(f"{module}.py")])
    return found


def start_record() -> dict[str, Any]:
    """The record of a start: time, place, versions and commit."""
    return {
        "time": time.time(),
        "host": os.uname().nodename,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": versions(),
        "git": git_state(Path()),
    }


def git_state(folder: Path) -> dict[str, Any] | None:
    """The commit checked out in a folder, and whether tracked files differ from it, those of
    submodules aside; None outside of a repository.

    The repository may be a stranger's, whose settings name programs: monitors, filters, hooks. Git
    compares the files under a folder of settings that has none of these.
    """
    paths = ("--show-toplevel", "--git-path", "index", "--git-path", "objects")
    asked = ("--path-format=absolute", *paths, "--show-object-format", "HEAD")
    said = _git("-C", str(folder), "rev-parse", *asked)
    if said is None or len(said.splitlines()) != 5:
        return None
    top, index, objects, hashes, commit = said.splitlines()
    options = ("--no-optional-locks", f"--work-tree={top}", *_options_of_files(folder))
    try:
        with tempfile.TemporaryDirectory() as own:
            for name in ("objects", "refs"):
                Path(own, name).mkdir()
            Path(own, "HEAD").write_text(f"{commit}\n", encoding="ascii")
            form = "[core]\nrepositoryformatversion = 1\n[extensions]\nobjectFormat = sha256\n"
            Path(own, "config").write_text(form if hashes == "sha256" else "", encoding="ascii")
            where = {"GIT_DIR": own, "GIT_INDEX_FILE": index, "GIT_OBJECT_DIRECTORY": objects}
            how = ("--porcelain", "--untracked-files=no", "--ignore-submodules=all")
            changed = _git(*options, "status", *how, **where)
    except OSError:  # no temporary folder can be written: whether files differ is not known
        changed = None
    return {"commit": commit, "dirty": changed != ""}


def _options_of_files(folder: Path) -> list[str]:
    found = _git("-C", str(folder), "config", "--get-regexp", "^core[.]") or ""
    known = filter(None, map(_OF_FILES.fullmatch, found.splitlines()))
    return [part for each in known for part in ("-c", f"core.{each[1]}={each[2]}")]


def _git(*arguments: str, **environment: str) -> str | None:
    try:
        done = subprocess.run(  # nosec B607 # the git that the person has chosen by PATH
            ["git", *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
            env={**os.environ, **environment},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _of_folder(folder: Path) -> str:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return _digest([path for path in files if path.suffix not in _IGNORED and path.name[0] != "."])


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size if path.is_file() else -1
        digest.update(f"{path.name} {size}\n".encode())
        if size >= 0:
            with path.open("rb") as file:
                digest.update(file.read(_END_BYTES))
                if size > _END_BYTES:
                    file.seek(max(_END_BYTES, size - _END_BYTES))
                    digest.update(file.read())
    return digest.hexdigest()[:12]
