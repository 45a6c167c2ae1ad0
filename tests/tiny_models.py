"""Random models of real architectures, small enough to train in a test."""

import copy
import importlib

from hawsweep.machine.backend import mx, nn

import numpy as np
from mlx_lm.utils import save_config, save_model

from hawsweep.data.tokens import Example

VOCABULARY = 100
N_BLOCKS = 4
GROUP_SIZE = 32
_COMMON = {
    "hidden_size": 32,
    "num_hidden_layers": N_BLOCKS,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "rms_norm_eps": 1e-6,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
    "rope_theta": 1e4,
}
_SLIDING = {"sliding_window": 8, "sliding_window_pattern": 3, "query_pre_attn_scalar": 8}
ARCHITECTURES = {
    "llama": {"tie_word_embeddings": False},
    "gemma2": {},  # soft-capped logits
    "gemma3": {"text_config": {**_COMMON, **_SLIDING, "model_type": "gemma3_text"}},  # nested
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {"tie_word_embeddings": False},
    "cohere": {"logit_scale": 0.5},  # scaled logits
    "phi3": {},
    "mixtral": {"num_local_experts": 8, "num_experts_per_tok": 2},
    # Nested; three of its blocks have linear attention, and other layers than the last.
    "qwen3_5": {
        "text_config": {
            **_COMMON,
            "model_type": "qwen3_5_text",
            "tie_word_embeddings": True,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 16,
        }
    },
}


def config_of(architecture, **changes):
    """What a ``config.json`` says."""
    own = copy.deepcopy(ARCHITECTURES[architecture])
    return {**_COMMON, **own, "model_type": architecture, **changes}


def build(architecture, *, quantized=False, seed=0, **changes):
    """A model with random values, in 4 bits where asked."""
    module = importlib.import_module(f"mlx_lm.models.{architecture}")
    mx.random.seed(seed)
    model = module.Model(module.ModelArgs.from_dict(config_of(architecture, **changes)))
    if quantized:
        nn.quantize(model, group_size=GROUP_SIZE, bits=4)
    mx.eval(model.parameters())
    return model


def save(model, folder, architecture):
    """Write a model of ``build`` in the layout of a model folder, without a tokenizer."""
    config = config_of(architecture)
    if any(isinstance(module, nn.QuantizedLinear) for module in model.modules()):
        config["quantization"] = {"group_size": GROUP_SIZE, "bits": 4}
    save_model(folder, model)
    save_config(config, folder / "config.json")


def random_examples(n_examples, longest=20, vocabulary=VOCABULARY, seed=0):
    """Examples of random tokens and lengths, part of each masked."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(longest // 2, longest, n_examples, endpoint=True)
    return [
        Example(
            generator.integers(0, vocabulary, length, dtype=np.int32),
            int(generator.integers(1, length // 2)),
        )
        for length in lengths
    ]
