"""The shape of a model read off its layers is the one its config says."""

from dataclasses import replace

from hawsweep.machine.backend import mx

import pytest
import tiny_models
from mlx.utils import tree_flatten

from hawsweep.models.shape import ModelShape, is_known, shape_of
from hawsweep.planning.loaded_shape import shape_of_loaded
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
    assert mx.float32.size == found.float_bytes
