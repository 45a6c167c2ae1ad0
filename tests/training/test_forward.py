import importlib

from hawsweep.machine.backend import mx

import pytest
from mlx.utils import tree_flatten
from tiny_models import config_of
from tiny_training import Recorder, assert_same_adapter, run, settings

from hawsweep.data.batches import lengths_of, training_order
from hawsweep.training.adapters import adapted
from hawsweep.training.evaluation import make_evaluator
from hawsweep.training.forward import FrozenBlocks, logits_at
from hawsweep.training.train import train_adapter, trainable

N_BLOCKS = 3


@pytest.fixture
def model(tiny_model):
    return tiny_model.model


def run_frozen(model, train, examples, folder, frozen):
    recorder = Recorder()
    order = training_order(lengths_of(examples), train.batch_size, train.seed)
    with trainable(model, train), frozen.in_use():
        evaluate = make_evaluator(model, examples[:4], 4, frozen)
        train_adapter(model, train, examples, order, evaluate, folder, recorder, frozen=frozen)
        return dict(tree_flatten(model.trainable_parameters())), recorder


def test_logits_at_places_are_those_of_the_whole(model):
    inputs = mx.array([[3, 4, 5, 6], [7, 8, 9, 10]])
    positions = mx.array([1, 3, 6])
    whole = model(inputs).reshape(8, -1)
    assert mx.allclose(logits_at(model, inputs, positions), whole[positions], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", ["phi", "stablelm"])
def test_body_that_needs_a_cache_is_run_without_one(architecture):
    module = importlib.import_module(f"mlx_lm.models.{architecture}")
    known = {"use_qkv_bias": True, "partial_rotary_factor": 0.5, "layer_norm_eps": 1e-5}
    config = {**config_of("llama"), **known, "model_type": architecture}
    model = module.Model(module.ModelArgs.from_dict(config))
    inputs, positions = mx.array([[3, 4, 5, 6], [7, 8, 9, 10]]), mx.array([1, 3, 6])
    whole = model(inputs).reshape(8, -1)
    with adapted(model, settings(num_layers=1)), (frozen := FrozenBlocks(model, 0)).in_use():
        states = frozen.states("train", [0, 1], inputs)
        given = logits_at(model, inputs, positions, frozen.n_blocks, states)
    assert mx.allclose(given, whole[positions], rtol=1e-4, atol=1e-4)


def test_blocks_are_frozen_with_dropout_too(model):
    frozen = FrozenBlocks(model, budget_bytes=0)
    train = settings(num_layers=2, lora_parameters={"dropout": 0.1})
    with adapted(model, train), frozen.in_use():
        assert frozen.n_blocks == 1


@pytest.mark.parametrize(("num_layers", "n_frozen"), [(1, 2), (2, 1), (N_BLOCKS, 0), (-1, 0)])
def test_blocks_below_the_adapted_ones_are_frozen_while_in_use(model, num_layers, n_frozen):
    frozen = FrozenBlocks(model, budget_bytes=0)
    with adapted(model, settings(num_layers=num_layers)):
        assert frozen.n_blocks == 0
        with frozen.in_use():
            assert frozen.n_blocks == n_frozen
        assert frozen.n_blocks == 0


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("grad_checkpoint", [False, True])
def test_skipping_frozen_blocks_gives_the_same_adapter(
    model, train_examples, tmp_path, num_layers, grad_checkpoint
):
    train = settings(num_layers=num_layers, grad_checkpoint=grad_checkpoint)
    expected, _, result = run(model, train, train_examples, tmp_path)
    frozen = FrozenBlocks(model, budget_bytes=0)
    ours, recorder = run_frozen(model, train, train_examples, tmp_path, frozen)
    assert_same_adapter(ours, expected, 1e-5)
    assert recorder.evaluations[-1][0].val_loss == pytest.approx(result.best.val_loss, rel=1e-5)


def test_states_are_kept_within_the_budget(model):
    inputs = mx.arange(24).reshape(2, 12)
    n_bytes = 2 * 12 * model.args.hidden_size * 4
    with adapted(model, settings(num_layers=1)):
        for budget_bytes, n_kept in ((0, 0), (2 * n_bytes - 1, 1), (2 * n_bytes, 2)):
            frozen = FrozenBlocks(model, budget_bytes)
            with frozen.in_use():
                batches = [("train", (0, 1)), ("valid", (0, 1))]
                first = [frozen.states(*batch, inputs) for batch in batches]
                again = [frozen.states(*batch, inputs) for batch in batches]
            same = [one is two for one, two in zip(first, again, strict=True)]
            assert same == [True] * n_kept + [False] * (2 - n_kept)


@pytest.mark.parametrize("budget_bytes", [60_000, 10**9], ids=["some", "all"])
def test_numbers_do_not_depend_on_what_was_kept_from_other_trials(
    model, train_examples, tmp_path, budget_bytes
):
    train = settings(num_layers=1, lora_parameters={"dropout": 0.1})
    nothing = FrozenBlocks(model, budget_bytes=0)
    expected, fresh = run_frozen(model, train, train_examples, tmp_path, nothing)
    frozen = FrozenBlocks(model, budget_bytes)
    run_frozen(model, settings(num_layers=2), train_examples, tmp_path, frozen)
    for _ in range(2):
        ours, again = run_frozen(model, train, train_examples, tmp_path, frozen)
        assert again.losses == fresh.losses
        assert all(mx.array_equal(ours[name], expected[name]) for name in expected)
