"""A fused 4-bit model in bf16 computes, loaded by mlx-lm, what base and adapter computed."""

import json

from hawsweep.machine.backend import mx

import mlx_lm
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map_with_path
from mlx_lm.tuner.utils import linear_to_lora_layers
from tiny_4bit import MODELS, save_low

from hawsweep.export.fuse import is_quantized, run_fuse

LORA = {"rank": 4, "scale": 4.0, "dropout": 0.0}
TOKENS = mx.array([[3, 14, 15, 9, 26, 5, 35, 8]])


def save_adapter(folder, model, kind="lora"):
    """A random adapter that changes much, on every projection."""
    model.freeze()
    linear_to_lora_layers(model, len(model.layers), LORA, use_dora=kind == "dora")
    mx.random.seed(1)

    def draw(name, value):
        is_norm = name.endswith(".m")  # of DoRA
        return value if is_norm else mx.random.normal(value.shape) * 0.1

    drawn = tree_map_with_path(draw, model.trainable_parameters())
    folder.mkdir()
    mx.save_safetensors(str(folder / "adapters.safetensors"), dict(tree_flatten(drawn)))
    about = {"fine_tune_type": kind, "num_layers": len(model.layers), "lora_parameters": LORA}
    (folder / "adapter_config.json").write_text(json.dumps(about))


def logits_of(folder, adapter=None):
    model, _ = mlx_lm.load(str(folder), adapter_path=None if adapter is None else str(adapter))
    return np.array(model(TOKENS).astype(mx.float32)).ravel()


def cosine(one, other):
    return one @ other / np.sqrt((one @ one) * (other @ other))


@pytest.mark.parametrize(
    ("architecture", "dequantize", "least"),
    [*((each, True, 0.998) for each in MODELS), ("llama", False, 0.8)],  # rounded to 4 bits again
)
def test_fused_model_computes_what_base_and_adapter_do(
    tmp_path, tokenizer, architecture, dequantize, least
):
    base, adapter, fused = (tmp_path / name for name in ("base", "adapter", "fused"))
    base.mkdir()
    save_low(base, architecture, tokenizer)
    save_adapter(adapter, mlx_lm.load(str(base))[0])
    run_fuse(base, adapter, fused, dequantize=dequantize, trust_remote_code=False)
    assert is_quantized(fused) is not dequantize  # by which the next steps go
    adapted = logits_of(base, adapter)
    assert cosine(logits_of(base), adapted) < 0.5
    assert least < cosine(logits_of(fused), adapted) < (1.001 if dequantize else 0.998)


@pytest.mark.parametrize(("dequantize", "least"), [(True, 0.998), (False, 0.8)])
def test_fused_dora_has_the_type_of_its_base(tmp_path, tokenizer, dequantize, least):
    base, adapter, fused = (tmp_path / name for name in ("base", "adapter", "fused"))
    base.mkdir()
    save_low(base, "llama", tokenizer)
    save_adapter(adapter, mlx_lm.load(str(base))[0], "dora")
    run_fuse(base, adapter, fused, dequantize=dequantize, trust_remote_code=False)
    weights = [
        each for path in fused.glob("model*.safetensors") for each in mx.load(str(path)).values()
    ]
    assert {each.dtype for each in weights} - {mx.uint32} == {mx.bfloat16}
    assert cosine(logits_of(fused), logits_of(base, adapter)) > least
