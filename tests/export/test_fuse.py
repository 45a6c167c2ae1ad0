import copy
import json

from hawsweep.machine.backend import mx, nn, utils

import pytest
import tiny_llama
from chat_templates import KINDS, make_tokenizer
from mlx_lm import load

from hawsweep.export.fuse import keep_types, set_switches, stop_at_end
from hawsweep.layout import WEIGHTS_FILE
from hawsweep.models.load import load_template

SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 64}


@pytest.mark.parametrize("has_generation_config", [False, True])
@pytest.mark.parametrize("name", ["Command R7B", "Gemma 4", "ChatML"])
def test_fused_model_stops_at_the_end_of_an_answer(tmp_path, name, has_generation_config):
    tokenizer = make_tokenizer(KINDS[name])
    tiny_llama.save(tmp_path, tokenizer, seed=1, num_key_value_heads=2, **SIZES)
    if has_generation_config:
        config = {"eos_token_id": tokenizer.eos_token_id}
        (tmp_path / "generation_config.json").write_text(json.dumps(config))
    end = tokenizer.convert_tokens_to_ids(KINDS[name].end)
    before = load(str(tmp_path))[1].eos_token_ids
    assert (end in before) == (name == "ChatML")
    stop_at_end(tmp_path, end)
    assert load(str(tmp_path))[1].eos_token_ids == before | {end}


@pytest.mark.parametrize("in_config", [False, True])
@pytest.mark.parametrize("name", sorted(KINDS))
def test_fused_model_is_asked_without_reasoning_as_it_was_trained(tmp_path, name, in_config):
    tiny_llama.save(tmp_path, make_tokenizer(KINDS[name]), seed=1, num_key_value_heads=2, **SIZES)
    path, config_path = tmp_path / "chat_template.jinja", tmp_path / "tokenizer_config.json"
    if in_config and path.exists():
        config = json.loads(config_path.read_text()) | {"chat_template": path.read_text()}
        config_path.write_text(json.dumps(config))
        path.unlink()
    question = [{"role": "user", "content": "Aloha"}]

    def plain():
        tokenizer = load(str(tmp_path))[1]
        return tokenizer.apply_chat_template(question, add_generation_prompt=True, tokenize=False)

    template = load_template(tmp_path)
    asked = template._text(question, None, to_answer=True)
    assert plain() == asked or template.switches
    set_switches(tmp_path, template.switches)
    assert plain() == asked


@pytest.mark.parametrize("is_dequantized", [False, True])
@pytest.mark.parametrize("is_quantized", [False, True])
def test_fused_weights_have_the_type_of_their_base(tmp_path, is_quantized, is_dequantized):
    """Fusing DoRA leaves float32, also as scales; what was not adapted stays as it is."""
    model = nn.Sequential(nn.Linear(64, 64), nn.RMSNorm(64))
    model.set_dtype(mx.bfloat16)
    _save(tmp_path / "base", model, is_quantized=is_quantized)
    model.set_dtype(mx.float32)
    _save(tmp_path / "fused", model, is_quantized=is_quantized and not is_dequantized)
    (tmp_path / "adapters").mkdir()
    adapter = {f"layers.0.{name}": mx.zeros(1) for name in ("lora_a", "lora_b", "m")}
    mx.save_safetensors(str(tmp_path / "adapters" / WEIGHTS_FILE), adapter)
    keep_types(*(tmp_path / each for each in ("base", "adapters", "fused")))
    fused, about = mx.load(str(tmp_path / "fused/model.safetensors"), return_metadata=True)
    floats = {name: each.dtype for name, each in fused.items() if each.dtype != mx.uint32}
    assert len(floats) == (4 if is_quantized and not is_dequantized else 3)
    assert floats.pop("layers.1.weight") == mx.float32
    assert set(floats.values()) == {mx.bfloat16}
    assert about == {"format": "mlx"}


def _save(folder, model, *, is_quantized):
    folder.mkdir()
    saved = copy.deepcopy(model)
    if is_quantized:
        nn.quantize(saved)
    weights = dict(utils.tree_flatten(saved.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
