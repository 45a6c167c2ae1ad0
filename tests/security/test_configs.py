"""A stranger's ``config.json`` and headers of weights: sizes beyond those of any model."""

import json
import time

import pytest

from hawsweep.errors import ModelError
from hawsweep.models.check_files import check_files
from hawsweep.models.config_file import read_config, read_config_text
from hawsweep.models.shape import shape_of

SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 300,
}
MOST = {
    **dict.fromkeys(SIZES, 1_000_000),
    "num_hidden_layers": 1_000,
    "vocab_size": 10_000_000,
}
# As a file has them: what each says is no size at all.
NO_SIZES = {
    "negative": "-1",
    "zero": "0",
    "float": "2.0",
    "text": '"2"',
    "text-of-a-bomb": '"9**9**9"',
    "bool": "true",
    "NaN": "NaN",
    "infinite": "Infinity",
    "overflow": "1e400",
    "mapping": '{"a": 1}',
    "nested-list": "[[2]]",
    "list-of-text": '["2"]',
    "list-of-too-many": json.dumps([2] * 1_001),
}
OTHERS = {
    "num_layers": 1_000,
    "n_layer": 1_000,
    "encoder_layers": 1_000,
    "num_experts": 10_000,
    "n_routed_experts": 10_000,
    "num_local_experts": 10_000,
    "num_experts_per_tok": 10_000,
    "vocab_size_per_layer_input": 10_000_000,
    "moe_intermediate_size": 1_000_000,
    "d_model": 1_000_000,
    "n_embd": 1_000_000,
    "kv_lora_rank": 1_000_000,
}


def write(folder, text):
    (folder / "config.json").write_text(text)
    return folder


def with_value(key, value):
    """The text of a config with one value as it stands in a file."""
    text = json.dumps({"model_type": "llama", **SIZES, key: "@"})
    return text.replace('"@"', value)


def refused(folder):
    """The message about a config, which comes in a second."""
    started = time.process_time()
    with pytest.raises(ModelError) as fault:
        read_config(folder)
    assert time.process_time() - started < 1
    assert "\n" not in str(fault.value)
    assert str(fault.value).endswith(".")
    return str(fault.value)


@pytest.mark.parametrize("kind", NO_SIZES)
@pytest.mark.parametrize("key", SIZES)
def test_size_that_is_none_is_refused_by_file_key_and_value(tmp_path, key, kind):
    message = refused(write(tmp_path, with_value(key, NO_SIZES[kind])))
    assert message.startswith(f"{tmp_path / 'config.json'}: {key} is ")
    assert "but must be a" in message


@pytest.mark.parametrize("where", ["", "text_config", "llm_config"])
@pytest.mark.parametrize("key", [*MOST, *OTHERS])
def test_size_beyond_its_bound_is_refused_and_the_bound_is_not(tmp_path, key, where):
    most = {**MOST, **OTHERS}[key]
    sizes = {"model_type": "x", key: most}
    nested = {where: sizes} if where else sizes
    assert read_config(write(tmp_path, json.dumps(nested))) == nested
    sizes[key] = most + 1
    message = refused(write(tmp_path, json.dumps(nested)))
    name = f"{where}.{key}" if where else key
    assert message.startswith(
        f"{tmp_path / 'config.json'}: {name} is {most + 1}, but must be at most {most:,}."
    )


def test_heads_times_their_width_beyond_the_bound_are_refused(tmp_path):
    write(tmp_path, json.dumps({"num_attention_heads": 2_000, "head_dim": 1_000}))
    assert "num_attention_heads times head_dim is 2,000,000" in refused(tmp_path)
    write(tmp_path, json.dumps({"num_attention_heads": [1, 2_000], "head_dim": 1_000}))
    assert "num_attention_heads times head_dim is 2,000,000" in refused(tmp_path)


def test_size_in_a_list_of_configs_is_refused(tmp_path):
    write(tmp_path, json.dumps({"block_configs": [{}, {"hidden_size": 10**9}]}))
    assert "block_configs.hidden_size is 1000000000, but must be at most" in refused(tmp_path)


@pytest.mark.parametrize("kinds", ["full_attention", "sliding_attention"])
def test_layers_that_are_listed_beyond_the_bound_are_refused(tmp_path, kinds):
    write(tmp_path, json.dumps({**SIZES, "layer_types": [kinds] * 1_001}))
    assert "layer_types is a list of 1,001, but must be a list of at most 1,000" in refused(
        tmp_path
    )


@pytest.mark.parametrize("value", ["[1]", '"x"', "3", "true"])
def test_config_within_that_is_no_mapping_is_refused(tmp_path, value):
    assert "text_config is" in refused(write(tmp_path, with_value("text_config", value)))


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        '{"hidden_size": ' + "9" * 5_000 + "}",
        "[]",
        '"text"',
        "",
    ],
    ids=["lists", "open", "mappings", "digits", "list", "text", "empty"],
)
def test_config_that_is_no_config_is_refused(tmp_path, text):
    assert str(tmp_path / "config.json") in refused(write(tmp_path, text))


def test_config_of_more_than_10_mb_is_refused_unread(tmp_path):
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(10_000_001)
    assert "it has 10,000,001 bytes, and at most 10,000,000 are read" in refused(tmp_path)
    with pytest.raises(ModelError, match="10,000,001"):
        read_config_text(tmp_path)


@pytest.mark.parametrize("key", ["n_experts_" * 100_000 + "-", "layers" * 10, "a" * 1_000_000])
def test_long_key_takes_no_time(tmp_path, key):
    write(tmp_path, json.dumps({key: 1}))
    started = time.process_time()
    assert read_config(tmp_path) == {key: 1}
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"head_dim": None, "num_key_value_heads": None},
        {"intermediate_size": [16, 32]},
        {"max_position_embeddings": 10_485_760, "rope_theta": 1e11},
        {"time_step_limit": [0.0, float("inf")]},
        {"sliding_window_size": 1_048_576, "num_nextn_predict_layers": 0, "n_shared_experts": None},
        {"quantization_config": {"group_size": -1}},
    ],
)
def test_values_of_public_models_are_read(tmp_path, more):
    config = {"model_type": "llama", **SIZES, **more}
    assert read_config(write(tmp_path, json.dumps(config))) == config


def test_largest_model_within_the_bounds_has_a_shape_in_a_second():
    most = {**MOST, "num_attention_heads": 1_000, "num_key_value_heads": 1_000, "head_dim": 1_000}
    started = time.process_time()
    shape = shape_of({"model_type": "llama", **most})
    assert shape.dequantized().weight_bytes() > 4 * 10**15
    assert time.process_time() - started < 1


TENSOR = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
HEADERS = {
    "ends-beyond": ({**TENSOR, "data_offsets": [16, 32]}, "is cut off"),
    "huge-shape": ({**TENSOR, "shape": [10**9, 10**9]}, "which are not those of its shape"),
    "negative-offset": ({**TENSOR, "data_offsets": [-16, 0]}, "no whole number"),
    "turned-offsets": ({**TENSOR, "data_offsets": [16, 0]}, "which are not those of its shape"),
    "negative-shape": ({**TENSOR, "shape": [-2, -2]}, "no whole number"),
    "float-shape": ({**TENSOR, "shape": [2.0, 2]}, "no whole number"),
    "bool-shape": ({**TENSOR, "shape": [True, 4]}, "no whole number"),
    "text-offset": ({**TENSOR, "data_offsets": ["0", "16"]}, "no whole number"),
    "many-dimensions": ({**TENSOR, "shape": [1] * 1_000_000}, "1,000,000 dimensions"),
    "long-dimension": ({**TENSOR, "shape": [2**64]}, "no whole number"),
    "one-offset": ({**TENSOR, "data_offsets": [16]}, "not a safetensors file"),
    "no-offsets": ({"dtype": "F32", "shape": []}, "not a safetensors file"),
    "unknown-type": ({**TENSOR, "dtype": "F31"}, "not a safetensors file"),
    "type-is-list": ({**TENSOR, "dtype": ["F32"]}, "not a safetensors file"),
    "is-list": ([1], "not a safetensors file"),
    "is-null": (None, "not a safetensors file"),
    "nan": ({**TENSOR, "data_offsets": [0, float("nan")]}, "no whole number"),
}


def model_with(folder, weights):
    write(folder, json.dumps({"model_type": "llama", **SIZES}))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def safetensors(header, length=None, data=bytes(16)):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(header) if length is None else length).to_bytes(8, "little") + header + data


def test_whole_weights_are_taken(tmp_path):
    check_files(model_with(tmp_path, safetensors({"a": TENSOR, "__metadata__": {"x": "y"}})))


@pytest.mark.parametrize("kind", HEADERS)
def test_header_of_weights_that_lies_is_refused(tmp_path, kind):
    tensor, reason = HEADERS[kind]
    with pytest.raises(ModelError, match=reason) as fault:
        check_files(model_with(tmp_path, safetensors({"a": tensor})))
    assert str(tmp_path / "model.safetensors") in str(fault.value)


@pytest.mark.parametrize("length", [17_000_000, 2**62, 2**64 - 1, 1_000])
def test_length_of_a_header_beyond_the_file_or_16_mb_is_refused(tmp_path, length):
    folder = model_with(tmp_path, safetensors({"a": TENSOR}, length))
    with pytest.raises(ModelError, match=f"{length:,}, and it may have 16,000,000 bytes"):
        check_files(folder)


def test_header_within_the_file_but_beyond_16_mb_is_refused_unread(tmp_path):
    folder = model_with(tmp_path, safetensors(b"{}", 16_000_001))
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(20_000_000)
    with pytest.raises(ModelError, match="16,000,001, and it may have 16,000,000 bytes"):
        check_files(folder)


@pytest.mark.parametrize("header", [b"[" * 100_000, b"[]", b"{", b"\xff\xfe", b"1"])
def test_header_that_is_no_mapping_is_refused(tmp_path, header):
    with pytest.raises(ModelError, match="not a safetensors file"):
        check_files(model_with(tmp_path, safetensors(header)))
