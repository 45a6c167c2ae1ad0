"""The shape of a model whose architecture ``models.shape`` does not know, read off its layers."""

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hawsweep.machine.backend import mx, nn, utils

from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear
from mlx_lm.utils import load_model

from hawsweep.models.shape import FLOAT32_BYTES, ModelShape, read_float_bytes
from hawsweep.training.forward import body_path

_ADAPTED = (nn.Linear, nn.QuantizedLinear, SwitchLinear, QuantizedSwitchLinear)


def shape_of_built(config: Mapping[str, Any], *, in_float32: bool) -> ModelShape:
    """The shape of the model that mlx-lm builds by a ``config.json``, without its weights: MLX
    makes an array when its values are asked for, and nobody asks.

    Args:
        in_float32: All weights are, as a CPU holds them.
    """
    asked = {key: value for key, value in config.items() if key != "quantization" or not in_float32}
    default = asked.get("quantization")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(asked), encoding="utf-8")
        # Models that see pictures look for their language part; this weight is for no layer.
        none = {"language_model.model.none.weight": mx.zeros(1)}
        mx.save_safetensors(f"{folder}/model.safetensors", none)
        model, _ = load_model(Path(folder), lazy=True, strict=False)
    n_bytes = FLOAT32_BYTES if in_float32 else read_float_bytes(config)
    model.set_dtype(mx.float32 if n_bytes == FLOAT32_BYTES else mx.bfloat16)
    if default:  # those of single modules were obeyed
        group_size = default["group_size"]
        nn.quantize(
            model,
            group_size,
            default["bits"],
            mode=default.get("mode", "affine"),
            class_predicate=lambda path, module: (
                path not in default
                and hasattr(module, "to_quantized")
                and module.weight.shape[-1] % group_size == 0
            ),
        )
    return shape_of_loaded(model, asked)


def shape_of_loaded(model: Any, config: Mapping[str, Any]) -> ModelShape:
    """The shape of a model that ``models.shape`` does not know, read off its layers.

    Weights and an adapter's parameters are exact. Sizes that only activations depend on come from
    usual keys of the config and from the last block, or are guessed: calibration corrects their
    effect.
    """
    text = config.get("text_config", config)
    modules = dict(model.named_modules())
    embeddings = [
        (module.num_embeddings, module.dims)
        if isinstance(module, nn.QuantizedEmbedding)
        else module.weight.shape
        for module in modules.values()
        if isinstance(module, nn.Embedding | nn.QuantizedEmbedding)
    ]
    vocabulary = max(n_entries for n_entries, _ in embeddings)
    # A Gemma 4 has a second one, of all blocks side by side.
    hidden = min(width for n_entries, width in embeddings if n_entries == vocabulary)
    block = model.layers[-1]
    adapted = [_adapted(each) for each in model.layers]
    each_linears = [{path: _size(module) for path, module in each.items()} for each in adapted]
    linears = each_linears[-1]
    inside = tuple(f"{path}." for path in linears)
    vectors = tuple(
        tuple(value.shape)
        for path, value in utils.tree_flatten(block.parameters())
        if not path.startswith(inside) or path.endswith(".bias")
    )
    widths = [max(linears[path]) for path, each in adapted[-1].items() if each.weight.ndim == 2]
    intermediate = _first(text, ("moe_intermediate_size", "intermediate_size"), max(widths))
    if dense := linears.get("mlp.down_proj"):
        intermediate = dense[0]  # some blocks of a Gemma 4 are wider than its config says
    n_chosen = _first(text, ("num_experts_per_tok", "top_k_experts"), 1)
    parameters = utils.tree_flatten(model.parameters())
    states = [found for each in model.layers if (found := _state(each)) is not None]
    n_heads = _first(text, ("num_attention_heads", "n_heads", "n_head"), max(1, hidden // 64))
    shape = ModelShape(
        architecture=str(config.get("model_type")),
        body=body_path(model),
        hidden_size=hidden,
        n_layers=len(model.layers),
        intermediate_size=intermediate * n_chosen,
        n_heads=n_heads,
        n_kv_heads=_first(text, ("num_key_value_heads", "n_kv_heads"), n_heads),
        head_dim=_first(text, ("head_dim",), hidden // n_heads),
        vocabulary=vocabulary,
        is_tied=not any(path.rpartition(".")[2] == "lm_head" for path in modules),
        sliding_window=None,
        n_sliding_layers=0,
        linears=linears,
        vectors=vectors,
        n_norms=max(1, sum(each == (hidden,) for each in vectors)),
        has_head_norms="self_attn.q_norm" in dict(block.named_modules()),
        norm_size=hidden,
        float_bytes=parameters[-1][1].dtype.size,  # the last norm's, or the head's scales'
        varied_linears=tuple(each_linears) if any(each != linears for each in each_linears) else (),
        n_recurrent=len(states),
        state=max(states, default=(0, 0)),
    )
    n_bytes = sum(value.nbytes for _, value in parameters)
    n_products = sum(_products(each, n_chosen) for block in adapted for each in block.values())
    return replace(
        shape,
        uncounted_bytes=n_bytes - shape.weight_bytes(),
        uncounted_products=n_products // len(adapted) - shape.block_products,
    )


def _adapted(block: Any) -> dict[str, Any]:
    """The layers of a block that can be adapted, by their path in it."""
    return {path: each for path, each in block.named_modules() if isinstance(each, _ADAPTED)}


def _state(block: Any) -> tuple[int, int] | None:
    """The sizes of a state that is computed token by token, see ``ModelShape.state``; None without
    one. Those with ``ssm_state_size`` and heads are of Mamba 2, which is computed by chunks.
    """
    for module in block.modules():
        if "A_log" not in module:
            continue
        n_heads = getattr(module, "num_v_heads", getattr(module, "num_heads", None))
        n_states = getattr(module, "ssm_state_size", None)
        depth = getattr(module, "head_k_dim", getattr(module, "head_dim", None))
        if n_heads is None and n_states is not None:
            return module.intermediate_size, n_states
        if n_heads is not None and n_states is None and depth is not None:
            return n_heads * getattr(module, "head_v_dim", depth), depth
    return None


def _size(module: Any) -> tuple[int, int]:
    """Inputs and outputs of a layer. Experts in one array count as one layer as wide as all of
    them, which has as many trained parameters.
    """
    *experts, outputs, inputs = module.weight.shape
    if "scales" in module:
        inputs = inputs * 32 // module.bits
    n_experts = math.prod(experts)
    return n_experts * inputs, n_experts * outputs


def _products(module: Any, n_chosen: int) -> int:
    """Multiplications of a token with a layer; with experts, those that are chosen for it."""
    n_experts = math.prod(module.weight.shape[:-2])
    inputs, outputs = (size // n_experts for size in _size(module))
    return int(inputs * outputs * min(n_chosen, n_experts))


def _first(values: Mapping[str, Any], keys: Sequence[str], otherwise: int) -> int:
    found = (values[key] for key in keys if isinstance(values.get(key), int) and values[key] > 0)
    return next(found, otherwise)
