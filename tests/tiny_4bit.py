"""Random models in 4 bits and bf16, as a GPU trains them."""

import importlib

from hawsweep.machine.backend import mx, nn

from mlx_lm.utils import save_config, save_model

_COMMON = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "intermediate_size": 128,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 512,
    "rope_theta": 1e4,
    "torch_dtype": "bfloat16",
}
MODELS = {
    "gemma3": {
        "text_config": {
            **_COMMON,
            "model_type": "gemma3_text",
            "vocab_size": 512,
            "sliding_window": 16,
            "sliding_window_pattern": 3,
            "query_pre_attn_scalar": 32,
        },
        "vocab_size": 512,
    },
    "llama": {**_COMMON, "tie_word_embeddings": True},
    "qwen3": {**_COMMON, "tie_word_embeddings": True},
}


def save_low(folder, architecture, tokenizer):
    """A random model in 4 bits, all else in bf16, as mlx-community has them."""
    config = {
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        **MODELS[architecture],
        "model_type": architecture,
    }
    module = importlib.import_module(f"mlx_lm.models.{architecture}")
    mx.random.seed(7)
    model = module.Model(module.ModelArgs.from_dict(config))
    model.set_dtype(mx.bfloat16)
    nn.quantize(model, group_size=32, bits=4)
    save_model(folder, model)
    quantization = {"group_size": 32, "bits": 4}
    save_config({**config, "quantization": quantization}, folder / "config.json")
    tokenizer.save_pretrained(folder)
