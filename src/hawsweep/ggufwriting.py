"""A fused llama as one GGUF file, for llama.cpp and Ollama; and the file read back, to be checked.

mlx-lm's own (``mlx_lm fuse --export-gguf``) is none that llama.cpp loads: the kinds of tokens in it
are unsigned numbers. It also says of every tokenizer that it is SentencePiece's, and leaves out
merges, pre-tokenizer, chat template and llama 3's rope scaling. Here the file has all of them.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hawsweep.conversion import NAMES, ROPE_FACTORS, permute, read_llama, write_model
from hawsweep.errors import ExportError
from hawsweep.gguftokenizer import add_tokenizer, read_tokenizer, why_not_tokenizer
from hawsweep.shapes import read_config

SUPPORTED = ("llama", "mistral")
# Under which the file keeps what its rope factors were made from; llama.cpp needs the factors only.
_ROPE_SCALING = "hawsweep.rope_scaling"


def why_not(folder: Path) -> str | None:
    """Why a model cannot be written as GGUF; None where it can."""
    config = read_config(folder)
    kind = config.get("model_type")
    if kind not in SUPPORTED:
        return f"its architecture is {kind}, hawsweep writes {' and '.join(SUPPORTED)}"
    scaling = config.get("rope_scaling") or {}
    rope = scaling.get("rope_type", scaling.get("type", "default"))
    if rope not in ("default", "linear", "llama3"):
        return f"its rope scaling is {rope}, hawsweep writes linear and llama3"
    if config.get("rope_traditional"):
        return "its rotary embedding is the traditional one"
    if config.get("attention_bias") or config.get("mlp_bias"):
        return "its layers have biases"
    if "sliding_attention" in (config.get("layer_types") or ()):
        return "some of its layers attend to a window only"
    path = folder / "tokenizer.json"
    if not path.is_file():
        return "it has no tokenizer.json"
    return why_not_tokenizer(path)


def write_gguf(folder: Path, path: Path, name: str) -> None:
    """Write a model that is not quantized as GGUF: matrices in float16, the rest in float32.

    Args:
        name: What the file says it is.

    Raises:
        ExportError: It is of a kind that cannot be written.
    """
    if (reason := why_not(folder)) is not None:
        raise ExportError(f"{folder.name} cannot be written as GGUF: {reason}.")
    from hawsweep.backend import mx

    import gguf
    from mlx_lm.models import llama

    config = read_config(folder)
    args = llama.ModelArgs.from_dict({**config, "model_type": "llama"})
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_type("model")
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_shape(writer, args)
    factors = _add_rope(writer, args)
    add_tokenizer(writer, folder, args.vocab_size)
    weights: dict[str, Any] = {}
    for file in sorted(folder.glob("model*.safetensors")):
        loaded: Any = mx.load(str(file))
        weights |= loaded
    _write_tensors(writer, weights, args, factors)


def _add_shape(writer: Any, args: Any) -> None:
    head_dim = args.head_dim or args.hidden_size // args.num_attention_heads
    writer.add_vocab_size(args.vocab_size)
    writer.add_context_length(args.max_position_embeddings or 2048)
    writer.add_embedding_length(args.hidden_size)
    writer.add_block_count(args.num_hidden_layers)
    writer.add_feed_forward_length(args.intermediate_size)
    writer.add_head_count(args.num_attention_heads)
    writer.add_head_count_kv(args.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(args.rope_theta)
    writer.add_layer_norm_rms_eps(args.rms_norm_eps)


def _add_rope(writer: Any, args: Any) -> list[float] | None:
    """Say how positions are stretched; give llama 3's factors, which are a tensor."""
    scaling = args.rope_scaling or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return None
    writer.add_string(_ROPE_SCALING, json.dumps(scaling))
    if kind == "linear":
        import gguf

        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(scaling["factor"])
        return None
    head_dim = args.head_dim or args.hidden_size // args.num_attention_heads
    return rope_factors(scaling, args.rope_theta, head_dim)


def rope_factors(scaling: dict[str, Any], base: float, head_dim: int) -> list[float]:
    """What llama 3 divides each rotary frequency by, ``[head_dim / 2]``.

    1 for wavelengths below ``context / high_freq_factor``, ``factor`` for those above
    ``context / low_freq_factor``, and in between so that the frequency is a mean of both.
    """
    factor = scaling["factor"]
    low, high = scaling.get("low_freq_factor", 1.0), scaling.get("high_freq_factor", 4.0)
    context = scaling.get("original_max_position_embeddings", 8192)
    found = []
    for i in range(0, head_dim, 2):
        wavelength = 2 * math.pi * base ** (i / head_dim)
        share = (context / wavelength - low) / (high - low)
        share = min(1.0, max(0.0, share))  # 1: as it was, 0: all of the factor
        found.append(1 / ((1 - share) / factor + share))
    return found


def _write_tensors(
    writer: Any, weights: dict[str, Any], args: Any, factors: list[float] | None
) -> None:
    """Write header and tensors; of the weights one is in memory at a time."""
    from hawsweep.backend import mx

    import numpy as np

    if args.tie_word_embeddings:
        weights.pop("lm_head.weight", None)
    names = dict(_gguf_names(weights))
    for name, own in names.items():
        weight = weights[own]
        dtype = np.dtype(np.float32 if weight.ndim == 1 else np.float16)
        writer.add_tensor_info(name, tuple(weight.shape), dtype, weight.size * dtype.itemsize)
    if factors is not None:
        values = np.array(factors, np.float32)
        writer.add_tensor_info(ROPE_FACTORS, values.shape, values.dtype, values.nbytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    heads = {"attn_q": args.num_attention_heads, "attn_k": args.num_key_value_heads}
    for name, own in names.items():
        weight = weights.pop(own)
        if (short := name.split(".")[-2]) in heads:
            weight = permute(weight, heads[short])
        weight = weight.astype(mx.float32 if weight.ndim == 1 else mx.float16)
        writer.write_tensor_data(np.array(weight))
    if factors is not None:
        writer.write_tensor_data(values)
    writer.close()


def _gguf_names(weights: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """llama.cpp's name and MLX's of each weight.

    Raises:
        ExportError: A weight is none of a llama's.
    """
    ours = {mlx_name: name for name, mlx_name in NAMES.items()}
    for name in weights:
        stem, _, kind = name.rpartition(".")
        parts = stem.split(".", 3)
        prefix = ""
        if parts[:2] == ["model", "layers"]:
            prefix, stem = f"blk.{parts[2]}.", parts[3]
        if stem not in ours or kind != "weight":
            raise ExportError(f"The model cannot be written as GGUF: {name} is none of a llama's.")
        yield f"{prefix}{ours[stem]}.weight", name


def read_gguf(path: Path, target: Path) -> None:
    """Write what a file of ``write_gguf`` holds as an MLX folder, out of the file alone.

    Raises:
        ExportError: Its rope factors are not those of the scaling it names.
    """
    from hawsweep.backend import mx

    weights, config, metadata = read_llama(path)
    if _ROPE_SCALING in metadata:
        config["rope_scaling"] = json.loads(metadata[_ROPE_SCALING])
        if (found := metadata.get(ROPE_FACTORS)) is not None:
            head_dim = config["head_dim"]
            wanted = rope_factors(config["rope_scaling"], config["rope_theta"], head_dim)
            if any(abs(a - b) > 1e-5 * b for a, b in zip(found.tolist(), wanted, strict=True)):
                raise ExportError(f"{path.name} has other rope factors than its scaling.")
    # As in the file: in float32 a large model would take twice the memory to check.
    halves = {
        name: weight.astype(mx.float16) if weight.ndim > 1 else weight
        for name, weight in weights.items()
    }
    write_model(target, halves, config)
    read_tokenizer(metadata).save_pretrained(str(target))
