"""A llama checkpoint in GGUF becomes an MLX folder in float32."""

import json
import subprocess
from pathlib import Path
from typing import Any

from hawsweep.errors import ModelError
from hawsweep.machine.children import child_command, child_environment

# llama.cpp's names of the parameters inside and outside of blocks, and MLX's.
_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
# transformers reads a GGUF only if it finds torch, which hawsweep's own processes keep out.
_CONVERT_TOKENIZER = """
import sys
from transformers import AutoTokenizer
folder, name, target = sys.argv[1:]
AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(target)
"""
# The factors by which llama 3 divides its rotary frequencies.
_ROPE_FACTORS = "rope_freqs.weight"


def convert_llama(source: Path, target: Path) -> None:
    """Write a llama GGUF as an MLX folder in float32.

    Raises:
        ModelError: Its tokenizer cannot be read.
    """
    from hawsweep.machine.backend import mx

    weights, config = _read_llama(source)
    mx.save_safetensors(str(target / "model.safetensors"), weights, metadata={"format": "mlx"})
    (target / "config.json").write_text(json.dumps(config, indent=2))
    write_tokenizer(source, target)


def write_tokenizer(source: Path, target: Path) -> None:
    """Write the tokenizer of a GGUF into an MLX folder.

    Raises:
        ModelError: It cannot be read.
    """
    arguments = [str(source.parent), source.name, str(target)]
    command = child_command("-c", _CONVERT_TOKENIZER, *arguments)
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=child_environment()
    )
    if done.returncode != 0:
        words = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ModelError(
            f"The tokenizer of {source.name} cannot be read: {words[-1]}. Reinstall its package."
        )


def _read_llama(source: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """MLX's weights in float32 and its config out of a llama GGUF."""
    from hawsweep.machine.backend import mx

    content: Any = mx.load(str(source), return_metadata=True)
    tensors, metadata = content
    config = _llama_config(metadata, is_tied="output.weight" not in tensors)
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    weights = {}
    for name in (key for key in tensors if key.endswith(".weight") and key != _ROPE_FACTORS):
        stem = name.removesuffix(".weight")
        weight = _dequantize(tensors, stem)
        if (short := stem.rsplit(".", 1)[-1]) in heads:
            weight = unpermute(weight, heads[short])
        weights[_mlx_name(stem)] = weight
    return weights, config


def _llama_config(metadata: dict[str, Any], *, is_tied: bool) -> dict[str, Any]:
    def value(key: str) -> Any:
        return metadata[key].item()

    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": value("llama.embedding_length"),
        "num_hidden_layers": value("llama.block_count"),
        "intermediate_size": value("llama.feed_forward_length"),
        "num_attention_heads": value("llama.attention.head_count"),
        "num_key_value_heads": value("llama.attention.head_count_kv"),
        "rms_norm_eps": round(value("llama.attention.layer_norm_rms_epsilon"), 9),
        "rope_theta": value("llama.rope.freq_base"),
        "max_position_embeddings": value("llama.context_length"),
        "vocab_size": value("llama.vocab_size"),
        **_token_ids(metadata),
        "tie_word_embeddings": is_tied,
        "torch_dtype": "float32",
    }
    if "llama.attention.key_length" in metadata:
        config["head_dim"] = value("llama.attention.key_length")
    return config


def _token_ids(metadata: dict[str, Any]) -> dict[str, int]:
    keys = {name: f"tokenizer.ggml.{name}_token_id" for name in ("bos", "eos")}
    return {
        f"{name}_token_id": metadata[key].item() for name, key in keys.items() if key in metadata
    }


def _mlx_name(stem: str) -> str:
    if not stem.startswith("blk."):
        return f"{_NAMES[stem]}.weight"
    _, layer, part = stem.split(".")
    return f"model.layers.{layer}.{_NAMES[part]}.weight"


def _dequantize(tensors: dict[str, Any], stem: str) -> Any:
    from hawsweep.machine.backend import mx

    weight = tensors[f"{stem}.weight"]
    if f"{stem}.scales" not in tensors:
        return weight.astype(mx.float32)
    scales, biases = (tensors[f"{stem}.{part}"].astype(mx.float32) for part in ("scales", "biases"))
    group_size = 32  # of every GGUF format that MLX reads
    bits = weight.shape[-1] * 32 // (scales.shape[-1] * group_size)
    return mx.dequantize(weight, scales, biases, group_size=group_size, bits=bits)


def unpermute(weight: Any, n_heads: int) -> Any:
    """Undo llama.cpp's order of a rotary projection's rows, ``[heads * head_dim, in]``.

    It interleaves the two halves of each head; MLX wants them one after the other.
    """
    rows, columns = weight.shape
    halves = weight.reshape(n_heads, rows // n_heads // 2, 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)
