"""Files of studies and trials, served by optuna-dashboard from their place.

An artifact's id names a study, one of its trials or none, and one of the files listed here; it
cannot name another file. Uploads to the dashboard are kept in ``UPLOADS``.
"""

import io
import json
import os
import shlex
import shutil
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import yaml
from optuna.artifacts.exceptions import ArtifactNotFound

from hawsweep.errors import StudyError
from hawsweep.files import replacing
from hawsweep.layout import ADAPTER_DIR, CONFIG_FILE, SPEC_FILE, WEIGHTS_FILE
from hawsweep.markdown import code, table
from hawsweep.notes.attachments import OF_STUDIES, OF_TRIALS, Offer, folder_of
from hawsweep.study.place import Place

UPLOADS = ".artifacts"  # no study can be named so


class StudyFiles:
    """Optuna's ``ArtifactStore`` over the studies' folder."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def is_offered(self, artifact_id: str) -> bool:
        """Whether it is a file of a study or a trial, not an upload."""
        return _named(artifact_id) is not None

    def is_here(self, artifact_id: str) -> bool:
        """Whether it can be opened; it may be on the machine that ran the trial."""
        try:
            found = self._find(artifact_id)
        except (ArtifactNotFound, StudyError):
            return False
        return (found if isinstance(found, Path) else found[1] / "config.yaml").is_file()

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Open a file, or the text made from it.

        Raises:
            ArtifactNotFound: It is not there, perhaps on the machine that ran the trial.
        """
        try:
            found = self._find(artifact_id)
            if isinstance(found, Path):
                return found.open("rb")
            return io.BytesIO(adapter_card(found[1]).encode())
        except (OSError, StudyError) as fault:
            raise ArtifactNotFound(f"{artifact_id} is not on this machine.") from fault

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Store an upload."""
        path = self._upload(artifact_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as beside, beside.open("wb") as file:
            shutil.copyfileobj(content_body, file)

    def remove(self, artifact_id: str) -> None:
        """Remove an upload; a file of a study or trial stays."""
        with suppress(ArtifactNotFound, FileNotFoundError):
            self._upload(artifact_id).unlink()

    def _upload(self, artifact_id: str) -> Path:
        try:
            name = str(uuid.UUID(artifact_id))
        except ValueError as fault:
            raise ArtifactNotFound(f"{artifact_id} is no upload's id.") from fault
        return self._place.studies_dir / UPLOADS / name

    def _find(self, artifact_id: str) -> Path | tuple[Offer, Path]:
        named = _named(artifact_id)
        if named is None:
            return self._upload(artifact_id)
        name, trial_number, filename = named
        offered = OF_STUDIES if trial_number is None else OF_TRIALS
        offer = next((each for each in offered if each.filename == filename), None)
        if offer is None:
            raise ArtifactNotFound(f"{artifact_id} names no file.")
        folder = folder_of(self._place, name, trial_number)
        whole = Path(os.path.realpath(folder / offer.path))
        if not whole.is_relative_to(os.path.realpath(self._place.studies_dir)):
            raise ArtifactNotFound(f"{artifact_id} is a link that leads elsewhere.")
        return (offer, folder) if offer.is_made else whole


def _named(artifact_id: str) -> tuple[str, int | None, str] | None:
    """The file that an id names; None for an upload's id."""
    try:
        match json.loads(bytes.fromhex(artifact_id)):
            case [str(name), None, str(filename)]:
                return name, None, filename
            case [str(name), int(number), str(filename)] if number >= 0:
                return name, number, filename
    except ValueError:  # a dash, or no JSON
        pass
    return None


def adapter_card(folder: Path) -> str:
    """A trial's adapter in Markdown: its folder, its settings, and commands to use it.

    Raises:
        OSError: Its files are missing.
    """
    adapter = folder / ADAPTER_DIR
    weights = adapter / WEIGHTS_FILE
    config = _yaml(folder / "config.yaml")
    if config is None:
        raise FileNotFoundError(folder / "config.yaml")
    model = str(config.get("model", "?"))
    lines = [
        f"# The adapter of trial {int(folder.name)}",
        "",
        f"Of {code(model)}, in the format of `mlx_lm`.",
        "",
    ]
    if weights.is_file():
        size = weights.stat().st_size / 1e6
        settings = _yaml(adapter / CONFIG_FILE) or {}
        settings = {**settings, **(settings.get("lora_parameters") or {})}
        rows = [
            [code(key), code(str(settings[key]))]
            for key in ("fine_tune_type", "num_layers", "rank", "scale", "dropout", "keys")
            if settings.get(key) is not None
        ]
        scoring = (_yaml(folder.parents[1] / SPEC_FILE) or {}).get("scoring")
        most = scoring.get("max_tokens") if isinstance(scoring, dict) else None
        command = f"mlx_lm.generate --model {shlex.quote(model)}"
        length = f" --max-tokens {most}" if isinstance(most, int) else ""
        lines += [
            f"{code(str(weights))} ({size:.1f} MB)",
            "",
            table(["setting", "value"], rows),
            "",
            f"    {command} --adapter-path {shlex.quote(str(adapter))} --prompt ...{length}",
        ]
    else:
        lines.append("It was removed: the sweep keeps the adapters of its best trials (`keep`).")
    return "\n".join((*lines, ""))


def _yaml(path: Path) -> dict[str, Any] | None:
    """A small YAML or JSON file of hawsweep; None if it is missing or damaged."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return found if isinstance(found, dict) else None
