"""The shape of a model read off its layers is the one its config says."""

from dataclasses import replace

from hawsweep.machine.backend import mx, nn

import pytest
import tiny_models
from mlx.utils import tree_flatten

from hawsweep.errors import ModelError
from hawsweep.models.known_configs import KNOWN_MODELS
from hawsweep.models.shape import ModelShape, is_known, shape_of
from hawsweep.planning.check_settings import narrowest_layer
from hawsweep.planning.loaded_shape import _state, shape_of_built, shape_of_loaded
from hawsweep.planning.measured_steps import Point, measure_step
from hawsweep.planning.peak import COEFFICIENTS, Execution, Step, training_peak
from hawsweep.spec.train import TrainSpec
from hawsweep.training.adapters import adapted

KNOWN = [name for name in tiny_models.ARCHITECTURES if is_known(name)]
TRAINS = [
    TrainSpec(num_layers=2),
    TrainSpec(num_layers=-1, optimizer="adafactor"),
    TrainSpec(num_layers=3, fine_tune_type="full", optimizer="sgd"),
]


@pytest.mark.parametrize("architecture", KNOWN)
def test_loaded_model_has_the_shape_its_config_says(architecture):
    config = {**tiny_models.config_of(architecture), "dtype": "float32"}
    found = shape_of_loaded(tiny_models.build(architecture), config)
    said = replace(shape_of(config), is_tied=found.is_tied)  # which a Gemma 3's config may not say
    for name in ("hidden_size", "n_layers", "n_heads", "n_kv_heads", "vocabulary", "body"):
        assert getattr(found, name) == getattr(said, name)
    assert found.linears == said.linears
    assert found.uncounted_bytes == 0
    assert found.weight_bytes() == said.weight_bytes()
    for train in TRAINS:
        assert found.trained_parameters(train) == said.trained_parameters(train)
        assert found.optimizer_bytes(train) == said.optimizer_bytes(train)


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("architecture", tiny_models.ARCHITECTURES)
def test_weights_and_adapter_are_those_in_memory(architecture, quantized):
    model = tiny_models.build(architecture, quantized=quantized)
    found = shape_of_loaded(model, tiny_models.config_of(architecture))
    assert found.weight_bytes() == sum(each.nbytes for _, each in tree_flatten(model.parameters()))
    train = TrainSpec(num_layers=2, lora_parameters={"rank": 4})
    with adapted(model, train):
        trained = sum(each.size for _, each in tree_flatten(model.trainable_parameters()))
    assert found.trained_parameters(train) == trained


def test_layers_of_any_block_are_adapted_by_their_keys():
    keys = ["linear_attn.out_proj", "linear_attn.in_proj_b", "self_attn.q_proj", "mlp.down_proj"]
    model = tiny_models.build("qwen3_5")
    found = shape_of_loaded(model, tiny_models.config_of("qwen3_5"))
    train = TrainSpec(num_layers=-1, lora_parameters={"rank": 2, "keys": keys})
    with adapted(model, train):
        trained = sum(each.size for _, each in tree_flatten(model.trainable_parameters()))
        there = {name for name, module in model.named_modules() if "lora_a" in module}
    assert set(found.adapted_linears(train)) == there
    assert found.trained_parameters(train) == trained
    with pytest.raises(ModelError, match=r"keys \['self_attn.o'\] match no linear layer"):
        found.adapted_linears(TrainSpec(num_layers=-1, lora_parameters={"keys": ["self_attn.o"]}))


@pytest.mark.parametrize(
    ("keys", "width"),
    [
        (None, 16),  # not the 2 of linear_attn.in_proj_b, which is a 32nd of the widest
        (["linear_attn.in_proj_a", "linear_attn.in_proj_b"], 2),
        (["linear_attn.out_proj"], 32),
        (["self_attn.k_proj", "linear_attn.out_proj"], 16),
    ],
)
def test_narrowest_layer_is_that_of_any_block(keys, width):
    config = tiny_models.config_of("qwen3_5")
    config["text_config"] |= {
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_key_value_heads": 2,
        "linear_num_key_heads": 1,
        "linear_num_value_heads": 2,
    }
    assert narrowest_layer(shape_of_built(config, in_float32=True), keys) == width


def test_experts_that_count_as_one_wide_layer_hide_no_narrow_one():
    shape = shape_of_loaded(tiny_models.build("mixtral"), tiny_models.config_of("mixtral"))
    linears = {"self_attn.k_proj": (32, 16), "mlp.switch_mlp.up_proj": (128 * 32, 128 * 64)}
    assert narrowest_layer(replace(shape, linears=linears)) == 16


# Heads that have a state, no heads, a state by chunks, and no state.
@pytest.mark.parametrize(
    ("module", "state"),
    [
        ({"A_log": 0, "num_heads": 4, "head_dim": 8}, (32, 8)),
        ({"A_log": 0, "num_v_heads": 4, "head_k_dim": 8, "head_v_dim": 16}, (64, 8)),
        ({"A_log": 0, "intermediate_size": 64, "ssm_state_size": 16}, (64, 16)),
        ({"A_log": 0, "num_heads": 4, "head_dim": 8, "ssm_state_size": 16}, None),
        ({"A_log": 0, "num_heads": 4, "d_state": 16}, None),
        ({"num_heads": 4, "head_dim": 8}, None),
    ],
)
def test_state_is_that_of_a_module_which_computes_it_token_by_token(module, state):
    block = nn.Module()
    block.mixer = nn.Module()
    for name, value in module.items():
        setattr(block.mixer, name, mx.array(1.0) if name == "A_log" else value)
    assert _state(block) == state


# The states of all value heads, and the slices of the backward pass, which grow by the width's
# square: without them the peaks are 2 to 9 times the prediction.
@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize(("rows", "width"), [(1, 64), (1, 256), (2, 128)])
def test_peak_of_linear_attention_is_predicted(rows, width, checkpoint):
    config = tiny_models.config_of("qwen3_5")
    config["text_config"] |= {
        "vocab_size": 300,
        "linear_num_value_heads": 8,
        "linear_key_head_dim": 32,
        "linear_value_head_dim": 32,
    }
    model = tiny_models.build("qwen3_5", text_config=config["text_config"])
    shape = shape_of_loaded(model, config)
    assert (shape.n_recurrent, shape.state) == (3, (8 * 32, 32))
    point = Point(Step(rows, width, 16 * rows), -1, 8, Execution(rows, checkpoint, None))
    measured = measure_step(model, point)["peak_bytes"]
    k = COEFFICIENTS["cpu"]
    predicted = training_peak(shape, point.train(), point.step, point.execution, k).total
    assert 0.9 * measured < predicted < 1.5 * measured


def test_shape_is_read_as_it_was_written():
    model = tiny_models.build("mixtral")
    found = shape_of_loaded(model, tiny_models.config_of("mixtral"))
    assert ModelShape.of(found.to_plain()) == found
    assert found.intermediate_size == 2 * 64  # two experts a token
    dense = [each for name, each in found.linears.items() if "switch_mlp" not in name]
    experts = sum(a * b for name, (a, b) in found.linears.items() if "switch_mlp" in name)
    n = len(model.layers[-1].block_sparse_moe.switch_mlp.up_proj.weight)
    assert found.block_products == sum(a * b for a, b in dense) + experts * 2 / n**2
    assert mx.float32.size == found.float_bytes


@pytest.mark.parametrize("in_float32", [False, True])
@pytest.mark.parametrize("architecture", tiny_models.ARCHITECTURES)
def test_built_without_weights_it_has_the_same_shape(architecture, in_float32):
    size = {"group_size": tiny_models.GROUP_SIZE, "bits": 4}
    config = tiny_models.config_of(architecture, dtype="float32", quantization=size)
    loaded = shape_of_loaded(tiny_models.build(architecture, quantized=not in_float32), config)
    built = shape_of_built(config, in_float32=in_float32)
    if architecture == "gemma3":  # whose head mlx-lm ties, if no weights are for it
        assert built.is_tied
        built, loaded = (replace(each, is_tied=None, uncounted_bytes=0) for each in (built, loaded))
    assert built == loaded


def test_single_modules_and_types_are_obeyed():
    size = {"group_size": 32, "bits": 4}
    own = {"model.layers.0.mlp.down_proj": {"group_size": 32, "bits": 8}, "lm_head": False}
    config = tiny_models.config_of("llama", dtype="bfloat16", quantization={**size, **own})
    built, said = shape_of_built(config, in_float32=False), shape_of(config)
    assert built.weight_bytes() == said.weight_bytes()
    assert built.float_bytes == 2


# Published sizes in billions, with embeddings and with the parts for pictures and sound, which are
# not trained and not loaded.
@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("mlx-community/gemma-4-e2b-it-4bit", 5.1),
        ("mlx-community/gemma-4-e4b-it-4bit", 8.0),
        ("Qwen/Qwen3.5-4B", 4.5),
        ("Qwen/Qwen3.5-9B", 9.7),
    ],
)
def test_models_of_the_catalogue_without_a_family_are_built(name, published):
    config = KNOWN_MODELS[name]
    found = shape_of_built(config, in_float32=True)
    assert 0.9 * published < found.weight_bytes() / 4e9 < published
    text = config["text_config"]
    assert (found.n_layers, found.hidden_size) == (
        text.get("num_hidden_layers", 35),
        text.get("hidden_size", 1536),
    )
