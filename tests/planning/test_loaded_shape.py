"""The shape of a model read off its layers is the one its config says."""

from dataclasses import replace

from hawsweep.machine.backend import mx

import pytest
import tiny_models
from mlx.utils import tree_flatten

from hawsweep.models.known_configs import KNOWN_MODELS
from hawsweep.models.shape import ModelShape, is_known, shape_of
from hawsweep.planning.loaded_shape import shape_of_built, shape_of_loaded
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
