"""Running in parts gives what the whole model gives, whatever the architecture."""

import importlib

from hawsweep.backend import mx

import numpy as np
import pytest

from hawsweep.adapters import adapted
from hawsweep.forward import FrozenBlocks, logits_at
from hawsweep.spec import TrainSpec

VOCABULARY = 100
COMMON = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "rms_norm_eps": 1e-6,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
    "rope_theta": 1e4,
}
SLIDING = {"sliding_window": 8, "sliding_window_pattern": 3, "query_pre_attn_scalar": 8}
ARCHITECTURES = {
    "llama": {"tie_word_embeddings": False},
    "gemma2": {},  # soft-capped logits
    "gemma3": {"text_config": {**COMMON, **SLIDING, "model_type": "gemma3_text"}},  # nested
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {"tie_word_embeddings": False},
    "cohere": {},  # scaled logits
    "phi3": {},
}


@pytest.fixture(params=ARCHITECTURES)
def model(request):
    module = importlib.import_module(f"mlx_lm.models.{request.param}")
    config = {**COMMON, **ARCHITECTURES[request.param], "model_type": request.param}
    mx.random.seed(0)
    model = module.Model(module.ModelArgs.from_dict(config))
    mx.eval(model.parameters())
    return model


def test_parts_give_what_the_whole_gives(model):
    inputs = mx.array(np.random.default_rng(0).integers(0, VOCABULARY, (2, 20)))
    positions = mx.array([3, 25, 39])
    whole = model(inputs).reshape(-1, VOCABULARY)[positions]
    assert mx.allclose(whole, logits_at(model, inputs, positions), rtol=1e-4, atol=1e-5)
    with adapted(model, TrainSpec(num_layers=1)):
        frozen = FrozenBlocks(model, budget_bytes=10**7)
        with frozen.in_use():
            assert frozen.n_blocks == COMMON["num_hidden_layers"] - 1
            states = frozen.states("train", (0, 1), inputs)
            parts = logits_at(model, inputs, positions, frozen.n_blocks, states)
    assert mx.allclose(whole, parts, rtol=1e-4, atol=1e-5)
