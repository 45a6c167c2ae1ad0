"""Exports of a trial: its adapter, the fused model, files for Ollama and PEFT; each is checked."""

import os
from dataclasses import dataclass
from pathlib import Path

import optuna

from hawsweep.errors import ExportError
from hawsweep.export.folder import MODELFILE, Origin, Part, read_parts
from hawsweep.export.fuse import is_quantized
from hawsweep.export.model_card import Asking
from hawsweep.export.ollama import imports
from hawsweep.export.parts import Maker
from hawsweep.export.upload import Repository
from hawsweep.files import digest_of
from hawsweep.layout import WEIGHTS_FILE
from hawsweep.models import resolve
from hawsweep.models.hub import split_revision
from hawsweep.study.confirm import chosen_trial
from hawsweep.study.place import Place
from hawsweep.study.study import spec_of
from hawsweep.study.trials import adapter_dir
from hawsweep.text import SayProgress


@dataclass(frozen=True)
class Request:
    """What to export.

    Attributes:
        trial_number: None for the best.
        checkpoint: The iteration of a kept checkpoint; None for the trial's best.
        dequantize: Fuse into weights that are not quantized.
        peft: Write the adapter in PEFT's format too.
        output: Another folder than the study's ``export``.
        force: Replace an export that is there.
        target: The repository to upload to, or None.
    """

    trial_number: int | None = None
    checkpoint: int | None = None
    fuse: bool = False
    dequantize: bool = False
    ollama: bool = False
    peft: bool = False
    output: Path | None = None
    force: bool = False
    target: Repository | None = None


@dataclass(frozen=True)
class Exported:
    """An export and its parts.

    Attributes:
        score: The trial's score, by ``metric``.
        new: Names of the parts made by this call.
        lost: The scores of a fusion into quantized weights that lost the adapter; else None.
        base: A reference to the base that mlx-lm can load.
        example: A validation prompt.
        asking: How mlx-lm has to ask.
        url: The address of the upload, or None.
    """

    folder: Path
    study: str
    trial_number: int
    checkpoint: int | None
    metric: str
    score: float | None
    parts: tuple[Part, ...]
    new: tuple[str, ...]
    has_modelfile: bool
    base: str
    asking: Asking
    example: str
    lost: float | None = None
    url: str | None = None


def export_trial(
    study: optuna.Study,
    place: Place,
    asked: Request,
    progress: SayProgress = lambda _: None,
) -> Exported:
    """Write the parts asked for into the export's folder, beside earlier ones of the same adapter.

    Each part is loaded and translates the validation prompts; it is exported only if its answers
    agree with the trial's.

    Raises:
        ExportError: The folder has an export of another adapter, the model cannot be exported in
            this form, or the answers do not agree with the trial's.
        StudyError: There is no such trial or adapter.
    """
    trial = chosen_trial(study, asked.trial_number)
    source = adapter_dir(study, place, trial.number, asked.checkpoint)
    digest = digest_of(source / WEIGHTS_FILE)
    origin = Origin(study.study_name, trial.number, asked.checkpoint, digest)
    own = place.study_dir(study.study_name) / "export"
    folder = own if asked.output is None else Path(os.path.abspath(asked.output))
    there = read_parts(folder, origin, force=asked.force, is_own=asked.output is None)
    spec = spec_of(study, trial, place)
    base = resolve.resolve_model(spec.model, progress)
    wanted = _wanted(asked, spec.model, base, there)
    is_written = not asked.ollama or (there and (folder / MODELFILE).is_file())
    missing = [name for name in wanted if name not in there]
    if not missing and is_written and asked.target is None:
        names = ", ".join(part.path for part in there.values())
        raise ExportError(f"{folder} is there already, with {names}. Use --force to replace it.")
    maker = Maker(study, place, trial, spec, base, origin, progress)
    if missing or not is_written:
        dequantize = asked.dequantize or asked.ollama
        try:
            maker.make(folder, source, there, missing, asked.ollama, dequantize)
        except OSError as fault:
            raise ExportError(
                f"{folder} cannot be written: {fault.strerror or fault}. Earlier files are "
                "unchanged. Make room, or choose another folder with --output."
            ) from fault
    parts = (*there.values(), *maker.new.values())
    # mlx-lm knows no bundled names and takes no revision, and a quoted ~ is no home.
    is_plain = spec.model not in resolve.BUNDLED and split_revision(spec.model)[1] is None
    is_plain &= not spec.model.startswith("~")
    return Exported(
        folder=folder,
        study=study.study_name,
        trial_number=trial.number,
        checkpoint=asked.checkpoint,
        metric=spec.scoring.metric,
        score=trial.value if maker.unmeasured is None else None,
        parts=parts,
        new=tuple(maker.new),
        has_modelfile=(folder / MODELFILE).is_file(),
        base=spec.model if is_plain else str(base),
        asking=Asking(maker.system, spec.scoring.max_tokens, maker.switches),
        example=maker.example,
        lost=maker.lost,
        url=None if asked.target is None else maker.upload(folder, parts, asked.target),
    )


def _wanted(asked: Request, model: str, base: Path, there: dict[str, Part]) -> list[str]:
    """Names of the parts to make, in order."""
    if asked.ollama and not imports(base):
        raise ExportError(
            f"{model} cannot be exported for Ollama, which does not import its architecture. Use "
            "--fuse --dequantize, then llama.cpp's convert_hf_to_gguf.py on the folder fused."
        )
    fused = there.get("fused")
    must_be_whole = is_quantized(base) and (asked.dequantize or asked.ollama)
    if fused is not None and must_be_whole and not fused.dequantized:
        raise ExportError(
            f"{fused.path} is there already, quantized. Use --force to make the export anew."
        )
    is_fused = asked.fuse or asked.dequantize or asked.ollama
    return ["adapters", *["fused"] * is_fused, *["peft"] * asked.peft]
