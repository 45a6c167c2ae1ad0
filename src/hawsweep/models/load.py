"""A model's folder becomes a loaded model, a tokenizer, an embedder."""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hawsweep.errors import ModelError
from hawsweep.files import read_regular
from hawsweep.machine import backend
from hawsweep.machine.memory import available_bytes
from hawsweep.models.chat_template import ChatTemplate
from hawsweep.models.check_files import TEMPLATE_BYTES, check_adapter, check_folder
from hawsweep.models.check_template import check_templates
from hawsweep.models.config_file import read_config

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


# Exceptions of the libraries for wrong files.
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


@dataclass
class LoadedModel:
    """A model in memory with its tokenizer, and the folder they came from.

    Attributes:
        today: The date for chat templates that ask the clock; None for the present day.
    """

    model: Any
    tokenizer: Any
    config: dict[str, Any]
    path: Path
    today: date | None = None

    @cached_property
    def template(self) -> ChatTemplate:
        """The contract of its chat template.

        Raises:
            ModelError: No answer can be learned by it.
        """
        return _make_template(self.tokenizer, self.config, self.path, self.today)


def load_model(
    path: Path,
    adapter_path: Path | None = None,
    *,
    trust_remote_code: bool = False,
    today: date | None = None,
) -> LoadedModel:
    """Load a model and its tokenizer for training and generation; see ``load_weights``.

    Args:
        today: See ``LoadedModel``.

    Raises:
        ModelError: The folder is not a model that mlx-lm reads, or it has no chat template.
    """
    model, config = load_weights(path, adapter_path, trust_remote_code=trust_remote_code)
    tokenizer = load_tokenizer(path, config, trust_remote_code=trust_remote_code)
    return LoadedModel(model, tokenizer, config, path, today)


def load_template(
    path: Path, *, trust_remote_code: bool = False, today: date | None = None
) -> ChatTemplate:
    """The contract of a model's chat template, without its weights and without MLX.

    Raises:
        ModelError: The tokenizer cannot be loaded, or no answer can be learned by its template.
    """
    from transformers import AutoTokenizer

    config = read_config(path)
    check_folder(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path), trust_remote_code=trust_remote_code)
    except _LOAD_FAULTS as fault:
        raise _cannot_load(path, fault) from fault
    if "chat_template_type" in tokenizer.init_kwargs:  # mlx-lm's own, in code
        tokenizer = load_tokenizer(path, config, trust_remote_code=trust_remote_code)
    _give_template(tokenizer, path)
    return _make_template(tokenizer, config, path, today)


def _make_template(
    tokenizer: Any, config: Mapping[str, Any], path: Path, today: date | None
) -> ChatTemplate:
    n_embeddings = {**config, **(config.get("text_config") or {})}.get("vocab_size")
    try:
        return ChatTemplate(tokenizer, n_embeddings, today)
    except ModelError as fault:
        raise ModelError(f"{path}: {fault}") from fault


def load_tokenizer(
    path: Path, config: Mapping[str, Any], *, trust_remote_code: bool = False
) -> Any:
    """Load a model's tokenizer alone.

    Raises:
        ModelError: It cannot be loaded, or has no chat template.
    """
    from hawsweep.machine.backend import mx  # noqa: F401 - before mlx_lm imports MLX

    from mlx_lm.utils import load_tokenizer

    check_folder(path)
    options = {"trust_remote_code": trust_remote_code}
    try:
        tokenizer = load_tokenizer(path, options, eos_token_ids=config.get("eos_token_id"))
    except _LOAD_FAULTS as fault:
        raise _cannot_load(path, fault) from fault
    _give_template(tokenizer, path)
    return tokenizer


def _give_template(tokenizer: Any, path: Path) -> None:
    """Have the template, if it is nowhere else from where older checkpoints keep it, a file that
    transformers reads no more; and check its limits before its first use here.

    Raises:
        ModelError: There is none, or it does not keep its limits.
    """
    if tokenizer.chat_template is None and not getattr(tokenizer, "has_chat_template", False):
        _read_old_template(tokenizer, path)
    check_templates(tokenizer, path)


def _read_old_template(tokenizer: Any, path: Path) -> None:
    try:
        content = json.loads(read_regular(path / "chat_template.json", TEMPLATE_BYTES))
        tokenizer.chat_template = str(content["chat_template"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as fault:
        raise ModelError(f"{path} has no chat template. Use an instruction-tuned model.") from fault


def load_weights(
    path: Path, adapter_path: Path | None = None, *, trust_remote_code: bool = False
) -> tuple[Any, dict[str, Any]]:
    """Load a model and its config; with ``adapter_path``, also the adapter in that folder.

    On a CPU device quantized and 16-bit weights become float32, because their matrix products are
    much slower there; elsewhere the checkpoint's format is kept. If memory is too small for
    float32, the format is kept too, with a warning.

    Raises:
        ModelError: The folder is not a model that mlx-lm reads.
    """
    from hawsweep.machine.backend import mx

    from mlx_lm import utils

    read_config(path)
    check_folder(path)
    if adapter_path is not None:
        check_adapter(adapter_path)
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
    said = str(fault).rstrip(".")
    return ModelError(
        f"{path} cannot be loaded as an MLX model: {said}. Use one that "
        "mlx_lm.generate answers with."
    )


def load_embedder(path: Path, *, trust_remote_code: bool = False) -> "SentenceTransformer":
    """Load a sentence-transformers model; importing that library takes seconds.

    Raises:
        ModelError: The folder is not one, has a file that is not regular, or its weights are a
            pickle.
    """
    check_folder(path)
    _refuse_pickles(path)
    from safetensors import SafetensorError
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()
    # Set here, because a model's own configuration could ask for the opposite.
    only_tensors = {"use_safetensors": True, "weights_only": True}
    try:
        return SentenceTransformer(
            str(path), device="cpu", trust_remote_code=trust_remote_code, model_kwargs=only_tensors
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
    from hawsweep.machine.backend import mx, utils

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
        for name, value in utils.tree_flatten(model.parameters())
        if mx.issubdtype(value.dtype, mx.floating)
    ]
    return model.load_weights(floats, strict=False)
