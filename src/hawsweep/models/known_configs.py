"""The configs of known models, so that a sweep can be planned without their weights or a network.

They have only the keys that decide a model's shape.
"""

import difflib
import re
from collections.abc import Mapping
from typing import Any

from hawsweep.models.hub import split_revision

_4BIT = {"group_size": 64, "bits": 4}
# Parts of names that describe a tuning or a packaging, not the shape.
_VARIANTS = {"base", "bf16", "chat", "fp16", "instruct", "it", "meta", "mlx", "pt", "qat"}


def _config(model_type: str, sizes: tuple[int, ...], **more: Any) -> dict[str, Any]:
    """A config. ``sizes``: hidden, layers, heads, key-value heads, intermediate, vocabulary."""
    keys = (
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "intermediate_size",
        "vocab_size",
    )
    return {
        "model_type": model_type,
        **dict(zip(keys, sizes, strict=True)),
        "torch_dtype": "bfloat16",
        **more,
    }


_LLAMA_1B = _config("llama", (2048, 16, 32, 8, 8192, 128256), head_dim=64, tie_word_embeddings=True)
_LLAMA_3B = _config(
    "llama", (3072, 28, 24, 8, 8192, 128256), head_dim=128, tie_word_embeddings=True
)
_LLAMA_8B = _config("llama", (4096, 32, 32, 8, 14336, 128256), tie_word_embeddings=False)
_YI_6B = _config("llama", (4096, 32, 32, 4, 11008, 64000), tie_word_embeddings=False)


def _gemma3(hidden: int, layers: int, heads: int, kv_heads: int, inter: int, head: int) -> Any:
    """A config of Gemma 3 that sees pictures too, in 4 bits."""
    sizes = (hidden, layers, heads, kv_heads, inter, 262208)
    text = _config("gemma3_text", sizes, head_dim=head, sliding_window=1024)
    return {"model_type": "gemma3", "text_config": text, "quantization": _4BIT}


def _gemma4(**text: Any) -> dict[str, Any]:
    """A config of Gemma 4 in 4 bits; other sizes are mlx-lm's defaults, those of E2B."""
    nested = {"model_type": "gemma4_text", "num_attention_heads": 8, "head_dim": 256, **text}
    return {"model_type": "gemma4", "text_config": nested, "quantization": _4BIT}


def _qwen3_5(hidden: int, inter: int, layers: int, heads: int, kv_heads: int, v: int) -> Any:
    """A config of Qwen3.5; ``v``: value heads of the blocks with linear attention."""
    return {
        "model_type": "qwen3_5",
        "text_config": {
            **_config("qwen3_5_text", (hidden, layers, heads, kv_heads, inter, 248320)),
            "head_dim": 256,
            "linear_num_key_heads": 16,
            "linear_num_value_heads": v,
            "linear_key_head_dim": 128,
            "linear_value_head_dim": 128,
            "tie_word_embeddings": hidden < 4096,
        },
    }


KNOWN_MODELS: Mapping[str, Mapping[str, Any]] = {
    # As the bundled file is converted: in float32, though the file is quantized.
    "smollm2-135m-instruct": _config(
        "llama", (576, 30, 9, 3, 1536, 49152), tie_word_embeddings=True, torch_dtype="float32"
    ),
    "mlx-community/gemma-3-1b-it-4bit": {
        "model_type": "gemma3_text",
        "torch_dtype": "bfloat16",
        "quantization": _4BIT,
    },
    "mlx-community/gemma-3-4b-it-4bit": {
        "model_type": "gemma3",
        "text_config": {
            "model_type": "gemma3_text",
            "hidden_size": 2560,
            "num_hidden_layers": 34,
            "intermediate_size": 10240,
            "sliding_window": 1024,
        },
        "torch_dtype": "bfloat16",
        "quantization": _4BIT,
    },
    "mlx-community/gemma-3-12b-it-4bit": _gemma3(3840, 48, 16, 8, 15360, 256),
    "mlx-community/gemma-3-27b-it-4bit": _gemma3(5376, 62, 32, 16, 21504, 128),
    "mlx-community/gemma-4-e2b-it-4bit": _gemma4(),
    "mlx-community/gemma-4-e4b-it-4bit": _gemma4(
        hidden_size=2560,
        intermediate_size=10240,
        num_hidden_layers=42,
        num_key_value_heads=2,
        num_kv_shared_layers=18,
        sliding_window_pattern=6,
        use_double_wide_mlp=False,
    ),
    "mlx-community/gemma-2-2b-it-4bit": _config(
        "gemma2", (2304, 26, 8, 4, 9216, 256000), head_dim=256, quantization=_4BIT
    ),
    "meta-llama/Llama-3.2-1B": _LLAMA_1B,
    "meta-llama/Llama-3.2-1B-Instruct": _LLAMA_1B,
    "meta-llama/Llama-3.2-3B": _LLAMA_3B,
    "meta-llama/Llama-3.2-3B-Instruct": _LLAMA_3B,
    "meta-llama/Meta-Llama-3-8B": _LLAMA_8B,
    "meta-llama/Llama-3.1-8B": _LLAMA_8B,
    "meta-llama/Llama-3.1-8B-Instruct": _LLAMA_8B,
    "microsoft/Phi-3-mini-4k-instruct": _config(
        "phi3", (3072, 32, 32, 32, 8192, 32064), tie_word_embeddings=False
    ),
    "mlx-community/Qwen2.5-7B-Instruct-4bit": _config(
        "qwen2", (3584, 28, 28, 4, 18944, 152064), tie_word_embeddings=False, quantization=_4BIT
    ),
    "Qwen/Qwen3-4B": _config(
        "qwen3", (2560, 36, 32, 8, 9728, 151936), head_dim=128, tie_word_embeddings=True
    ),
    "Qwen/Qwen3.5-4B": _qwen3_5(2560, 9216, 32, 16, 4, 32),
    "Qwen/Qwen3.5-9B": _qwen3_5(4096, 12288, 32, 16, 4, 32),
    "HuggingFaceTB/SmolLM3-3B": _config(
        "smollm3", (2048, 36, 16, 4, 11008, 128256), tie_word_embeddings=True
    ),
    "mlx-community/aya-23-8B-4bit": _config(
        "cohere", (4096, 32, 32, 8, 14336, 256000), logit_scale=0.0625, quantization=_4BIT
    ),
    "01-ai/Yi-1.5-6B": _YI_6B,
    "01-ai/Yi-1.5-6B-Chat": _YI_6B,
}


def find_known(reference: str) -> Mapping[str, Any] | None:
    """The config of a model by its name; None for an unknown name.

    Revision, organisation, case and the name's words for a tuning are ignored. A suffix such as
    -4bit (in groups of 64) or -bf16 decides the format; without one it is 16 bit. Only an exact key
    of ``KNOWN_MODELS`` has that entry's own format.
    """
    name, _ = split_revision(reference)
    if name in KNOWN_MODELS:
        return KNOWN_MODELS[name]
    stem, bits = _read_name(name)
    if (known := _BY_STEM.get(stem)) is None:
        return None
    dense = {key: value for key, value in known.items() if key != "quantization"}
    quantization = {} if bits is None else {"quantization": {"group_size": 64, "bits": bits}}
    return {**dense, "torch_dtype": "bfloat16", **quantization}


def near(reference: str) -> str:
    """Follows a sentence about a model that is not known, with the nearest known name, if near."""
    last = {name.rsplit("/", 1)[-1].lower(): name for name in KNOWN_MODELS}
    close = difflib.get_close_matches(reference.rsplit("/", 1)[-1].lower(), last, n=1)
    return f" Did you mean {last[close[0]]}?" if close else ""


def _read_name(reference: str) -> tuple[str, int | None]:
    """A name without organisation and variants, in lower case, and the bits in the name."""
    words = reference.rsplit("/", 1)[-1].lower().split("-")
    bits = next((int(word[0]) for word in words if re.fullmatch("[234568]bit", word)), None)
    stem = [word for word in words if word not in _VARIANTS and word != f"{bits}bit"]
    return "-".join(stem), bits


_BY_STEM = {_read_name(name)[0]: config for name, config in KNOWN_MODELS.items()}
