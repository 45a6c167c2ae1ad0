"""What transformers and PEFT make of a model and an adapter, in a process of its own with torch.

python torch_side.py make FOLDER                  random models, as Hugging Face has them
python torch_side.py names TYPE ...               configs and linear layers of models, as JSON
python torch_side.py answer BASE PEFT OUT ...     logits and greedy answers of each three, as .npz
"""

import json
import sys

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

PROMPT = [[3, 17, 41, 8, 95, 22, 60, 7]]
N_ANSWER = 8
TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 100,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.3,
    "tie_word_embeddings": True,
}
# mlx-lm rounds the root of hidden_size, by which Gemma scales embeddings, to 16 bits.
SLIDING = {
    "sliding_window": 4,
    "query_pre_attn_scalar": 8,
    "num_hidden_layers": 7,
    "hidden_size": 64,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
OWN = {"gemma2": SLIDING, "gemma3_text": SLIDING, "smollm3": {"no_rope_layers": [1, 1, 1, 0]}}


def config_of(kind):
    if kind == "gemma3":
        text = {**TEXT, **SLIDING, "model_type": "gemma3_text"}
        tokens = {"mm_tokens_per_image": 4, "image_token_index": 99, "vocab_size": 100}
        return AutoConfig.for_model(kind, text_config=text, vision_config=VISION, **tokens)
    return AutoConfig.for_model(kind, **{**TEXT, **OWN.get(kind, {})})


def make(folder):
    for seed, kind in enumerate(("llama", "qwen3", "gemma3_text", "gemma3")):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config_of(kind), dtype=torch.float32)
        model.save_pretrained(f"{folder}/{kind}")


def names(*kinds):
    found = {}
    for kind in kinds:
        config = config_of(kind)
        with torch.device("meta"):
            modules = AutoModelForCausalLM.from_config(config).named_modules()
        layers = [name for name, each in modules if isinstance(each, torch.nn.Linear)]
        found[kind] = {"config": config.to_dict(), "layers": layers}
    print(json.dumps(found))


def answer(*asked):
    from peft import PeftModel

    for base, adapter, out in zip(asked[::3], asked[1::3], asked[2::3], strict=True):
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        model = PeftModel.from_pretrained(model, adapter).eval()
        tokens = torch.tensor(PROMPT)
        with torch.no_grad():
            logits = model(input_ids=tokens).logits[0]
            for _ in range(N_ANSWER):
                following = model(input_ids=tokens).logits[:, -1].argmax(-1, keepdim=True)
                tokens = torch.cat([tokens, following], dim=1)
        np.savez(out, logits=logits.numpy(), tokens=tokens[0].numpy())


if __name__ == "__main__":
    {"make": make, "names": names, "answer": answer}[sys.argv[1]](*sys.argv[2:])
