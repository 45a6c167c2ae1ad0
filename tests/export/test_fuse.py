import json

import pytest
import tiny_llama
from chat_templates import KINDS, make_tokenizer
from mlx_lm import load

from hawsweep.export.fuse import stop_at_end

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
    stop_at_end(tmp_path)
    assert load(str(tmp_path))[1].eos_token_ids == before | {end}
