import math
from dataclasses import replace
from itertools import islice

from hawsweep.machine.backend import mx, nn

import numpy as np
import pytest
import tiny_models
from mlx.utils import tree_flatten, tree_map
from mlx_lm.tuner.trainer import default_loss, iterate_batches
from tiny_training import (
    EndsAt,
    Recorder,
    assert_same_adapter,
    mlx_lm_loss,
    run,
    settings,
)

from hawsweep.data.batches import lengths_of, make_batch, training_order
from hawsweep.training.adapters import adapted, load_adapter
from hawsweep.training.evaluation import make_evaluator
from hawsweep.training.train import NonFiniteLoss, gradient_checkpointing, trainable


@pytest.fixture
def model(tiny_model):
    return tiny_model.model


@pytest.fixture
def trained(model, train_examples, tmp_path):
    """The model with an adapter that is not zero."""
    train = settings(iters=3)
    run(model, train, train_examples, tmp_path / "trained")
    with adapted(model, train):
        load_adapter(model, tmp_path / "trained" / "adapters")
        yield model


def gradient_descent(model, train, examples):
    """The adapter after plain updates by the mean loss of all their tokens, one by one."""
    order = training_order(lengths_of(examples), train.batch_size, train.seed)
    batches = list(islice(order, train.iters))
    steps = train.grad_accumulation_steps
    with trainable(model, train):
        for at in range(0, train.iters, steps):
            chosen = [examples[i] for batch in batches[at : at + steps] for i in batch]

            def mean_loss(model, chosen=chosen):
                losses = [mlx_lm_loss(model, example) for example in chosen]
                return sum(mean * n for mean, n in losses) / sum(n for _, n in losses)

            _, gradients = nn.value_and_grad(model, mean_loss)(model)
            values = tree_map(
                lambda value, gradient: value - train.learning_rate * gradient,
                model.trainable_parameters(),
                gradients,
            )
            model.update(values)
        return dict(tree_flatten(model.trainable_parameters()))


@pytest.mark.parametrize("split", ["train_examples", "unmasked_examples"])
def test_mean_target_loss_is_mlx_lms(trained, request, split):
    examples = request.getfixturevalue(split)[:5]
    ours = make_evaluator(trained, examples, 5)(1).val_loss
    tokens = np.zeros((5, max(len(e.tokens) for e in examples)), np.int32)
    for row, example in enumerate(examples):
        tokens[row, : len(example.tokens)] = example.tokens
    lengths = mx.array([[e.offset, len(e.tokens) - 1] for e in examples])
    theirs, n_targets = default_loss(trained, mx.array(tokens), lengths)
    assert make_batch(examples, range(5)).n_targets == n_targets.item()
    assert ours == pytest.approx(theirs.item(), rel=1e-5)


def test_mlx_lms_own_batches_count_one_padding_token_more_an_example(model, train_examples):
    examples = train_examples[:4]
    dataset = [(example.tokens.tolist(), example.offset) for example in examples]
    tokens, lengths = next(iterate_batches(dataset, 4, 256))
    _, n_targets = default_loss(model, tokens, lengths)
    assert n_targets.item() == make_batch(examples, range(4)).n_targets + 4


def test_validation_loss_does_not_depend_on_its_batch_size(trained, valid_examples):
    expected = [mlx_lm_loss(trained, example)[0].item() for example in valid_examples]
    counts = [example.n_targets for example in valid_examples]
    for batch_size in (1, 2, 4, 8, 3):
        evaluation = make_evaluator(trained, valid_examples, batch_size)(7)
        assert evaluation.iteration == 7
        assert evaluation.val_loss == pytest.approx(np.average(expected, weights=counts), rel=1e-5)
        assert evaluation.example_losses == pytest.approx(np.array(expected), rel=1e-5)


def test_evaluation_is_without_dropout_and_leaves_the_model_training(model, valid_examples):
    train = settings(lora_parameters={"dropout": 0.9})
    with adapted(model, train):
        model.update(tree_map(lambda a: a + 0.1, model.trainable_parameters()))
        evaluate = make_evaluator(model, valid_examples, 8)
        assert evaluate(1).val_loss == evaluate(2).val_loss
        assert model.training


@pytest.mark.parametrize(
    ("iters", "batch_size", "accumulation"), [(1, 4, 1), (4, 1, 4), (3, 1, 2), (5, 3, 2)]
)
def test_updates_are_gradient_descent_weighted_by_tokens(
    model, train_examples, tmp_path, iters, batch_size, accumulation
):
    train = settings(iters=iters, batch_size=batch_size, grad_accumulation_steps=accumulation)
    expected = gradient_descent(model, train, train_examples)
    ours, recorder, _ = run(model, train, train_examples, tmp_path)
    assert_same_adapter(ours, expected, 1e-5)
    assert recorder.reports[-1].update == math.ceil(iters / accumulation)


def test_accumulated_batches_give_the_update_of_one_large_batch(model, train_examples, tmp_path):
    four = train_examples[:4]
    assert len({example.n_targets for example in four}) > 1  # else a mean of means would do
    whole = settings(iters=1, batch_size=4)
    parts = settings(iters=4, batch_size=1, grad_accumulation_steps=4)
    expected, _, _ = run(model, whole, four, tmp_path)
    ours, recorder, _ = run(model, parts, four, tmp_path)
    assert recorder.reports[-1].update == 1
    assert_same_adapter(ours, expected, 1e-5)


# Adam divides by a gradient's size: without eps, rounding decides what tiny ones do.
_ADAM = {"optimizer": "adam", "learning_rate": 0.01, "optimizer_config": {"adam": {"eps": 1e-3}}}


@pytest.mark.parametrize("n_joined", [2, 4])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        _ADAM,
        {"max_grad_norm": 0.5},
        {"fine_tune_type": "dora"},
        {"fine_tune_type": "full", "learning_rate": 0.02},
    ],
    ids=str,
)
def test_batches_of_an_update_as_one_give_what_they_give_alone(
    model, train_examples, valid_examples, tmp_path, changes, n_joined
):
    # Reports and evaluations fall within updates; the last update is incomplete.
    train = settings(
        **{
            "iters": 18,
            "batch_size": 2,
            "grad_accumulation_steps": 4,
            "steps_per_report": 5,
            "steps_per_eval": 6,
            "learning_rate": 0.02,
            **changes,
        }
    )
    expected, alone, before = run(model, train, train_examples, tmp_path / "alone")
    ours, joined, after = run(
        model, train, train_examples, tmp_path / "joined", micro_batch=2 * n_joined
    )
    assert_same_adapter(ours, expected, 1e-5)
    assert alone.iterations == list(range(1, 19))
    within = {2: [2, 14], 4: []}[n_joined]
    assert joined.iterations == sorted({4, 5, 6, 8, 10, 12, 15, 16, 18, *within})
    exact = ("iteration", "update", "learning_rate")
    for name in (*exact, "train_loss", "grad_norm"):
        theirs = [getattr(report, name) for report in alone.reports]
        found = [getattr(report, name) for report in joined.reports]
        assert found == (theirs if name in exact else pytest.approx(theirs, rel=1e-4)), name
    assert [e.iteration for e, _ in joined.evaluations] == [6, 12, 18]
    assert [(e.iteration, is_best) for e, is_best in joined.evaluations] == [
        (e.iteration, is_best) for e, is_best in alone.evaluations
    ]
    losses = [[e.val_loss for e, _ in each.evaluations] for each in (joined, alone)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert after.n_tokens == before.n_tokens


def test_joined_batches_take_the_memory_of_one_batch_of_their_rows(tmp_path):
    model = tiny_models.build("llama")
    examples = tiny_models.random_examples(8)
    shared = {"num_layers": 4, "steps_per_report": 100, "steps_per_eval": 100}
    large = settings(**shared, iters=2, batch_size=8)
    joined = settings(**shared, iters=16, batch_size=1, grad_accumulation_steps=8)
    _, _, expected = run(model, large, examples, tmp_path / "large")
    _, _, ours = run(model, joined, examples, tmp_path / "joined", micro_batch=8)
    _, _, alone = run(model, joined, examples, tmp_path / "alone")
    assert ours.peak_memory_bytes == pytest.approx(expected.peak_memory_bytes, rel=0.05)
    assert alone.peak_memory_bytes < 0.8 * ours.peak_memory_bytes


def test_reports_weigh_losses_by_tokens_since_the_last(model, train_examples, tmp_path):
    train = settings(iters=5, grad_accumulation_steps=2)
    _, each, result = run(model, train, train_examples, tmp_path)
    _, pairs, _ = run(
        model, train.model_copy(update={"steps_per_report": 2}), train_examples, tmp_path
    )
    order = training_order(lengths_of(train_examples), train.batch_size, train.seed)
    batches = [make_batch(train_examples, chosen) for chosen in islice(order, 5)]
    counts = [batch.n_targets for batch in batches]
    sums = np.array(each.losses) * counts
    assert [report.iteration for report in pairs.reports] == [2, 4, 5]
    assert [report.update for report in pairs.reports] == [1, 2, 3]
    expected = [sums[at : at + 2].sum() / sum(counts[at : at + 2]) for at in (0, 2, 4)]
    assert pairs.losses == pytest.approx(expected, rel=1e-6)
    tokens = [sum(len(train_examples[i].tokens) - 1 for i in batch.indices) for batch in batches]
    assert result.n_tokens == sum(tokens)
    padding = [batch.inputs.size / n for batch, n in zip(batches, tokens, strict=True)]
    assert [report.padding_ratio for report in each.reports] == pytest.approx(padding)
    assert all(report.learning_rate == pytest.approx(0.1) for report in each.reports)
    assert all(report.tokens_per_s > 0 for report in each.reports)


def test_evaluations_come_at_their_steps_and_at_the_end(model, train_examples, tmp_path):
    _, recorder, _ = run(model, settings(iters=5, steps_per_eval=2), train_examples, tmp_path)
    assert recorder.iterations == [1, 2, 3, 4, 5]
    assert [evaluation.iteration for evaluation, _ in recorder.evaluations] == [2, 4, 5]


def test_evaluating_more_often_does_not_change_training(model, train_examples, tmp_path):
    often = settings(iters=4, steps_per_eval=1, lora_parameters={"dropout": 0.5})
    once = often.model_copy(update={"steps_per_eval": 100})
    first, _, _ = run(model, often, train_examples, tmp_path)
    second, _, _ = run(model, once, train_examples, tmp_path)
    assert all(mx.array_equal(first[name], second[name]) for name in first)


def test_training_lowers_the_loss_of_what_it_trains_on(model, train_examples, tmp_path):
    train = settings(iters=20, optimizer="adam", learning_rate=2e-3, steps_per_eval=5)
    _, recorder, result = run(model, train, train_examples[:4], tmp_path)
    first, last = recorder.evaluations[0][0].val_loss, recorder.evaluations[-1][0].val_loss
    assert last < first - 1
    assert result.best.val_loss == min(e.val_loss for e, _ in recorder.evaluations)


def test_adapter_kept_is_that_of_the_best_evaluation(model, train_examples, tmp_path):
    said = {1: 3.0, 2: 1.0, 3: 1.0, 4: 2.0}
    train = settings(iters=4, steps_per_eval=1)
    true_losses = {}
    evaluate_truly = make_evaluator(model, train_examples, 8)

    def evaluate(iteration):
        evaluation = evaluate_truly(iteration)
        true_losses[iteration] = evaluation.val_loss
        return replace(evaluation, val_loss=said[iteration])

    _, recorder, result = run(model, train, train_examples, tmp_path, evaluate=evaluate)
    assert [is_best for _, is_best in recorder.evaluations] == [True, True, False, False]
    assert (result.best.iteration, result.best.val_loss) == (2, 1.0)
    with adapted(model, train):
        load_adapter(model, tmp_path / "adapters")
        again = evaluate_truly(2).val_loss
    assert again == pytest.approx(true_losses[2], rel=1e-6)
    assert all(abs(again - true_losses[i]) > 1e-4 for i in (1, 3, 4))


def test_run_ended_by_its_callback_leaves_the_best_adapter(model, train_examples, tmp_path):
    train = settings(iters=4, steps_per_eval=2)
    before = dict(model.named_modules())
    with pytest.raises(InterruptedError):
        run(model, train, train_examples, tmp_path, recorder=EndsAt(2))
    assert dict(model.named_modules()) == before
    expected, _, _ = run(model, settings(iters=2), train_examples, tmp_path / "two")
    assert mx.load(str(tmp_path / "adapters" / "adapters.safetensors")).keys() == expected.keys()
    for name, value in mx.load(str(tmp_path / "adapters" / "adapters.safetensors")).items():
        assert mx.array_equal(value, expected[name])


SAID = [3.0, 2.0, 2.0, 1.6, 1.5, 1.8, 1.7, 1.9, 1.9]


@pytest.mark.parametrize(
    ("patience", "threshold", "last"),
    [
        (1, 0.0, 3),  # 2.0 is no improvement on 2.0
        (2, 0.0, 7),  # 1.8 and 1.7 are none on 1.5
        (3, 0.0, 8),
        (None, 0.0, 9),
        (2, 0.45, 4),  # 1.6 is not lower than 2.0 by more than 0.45
        (3, 0.45, 8),  # but 1.5 is
        (3, 0.5, 5),  # 1.5 is lower than 2.0 by 0.5, not by more
    ],
)
def test_patience_ends_the_run_after_so_many_evaluations_without_improvement(
    model, train_examples, tmp_path, patience, threshold, last
):
    train = settings(
        iters=len(SAID),
        steps_per_eval=1,
        early_stopping_patience=patience,
        early_stopping_threshold=threshold,
    )
    evaluate_truly = make_evaluator(model, train_examples[:1], 1)

    def evaluate(iteration):
        return replace(evaluate_truly(iteration), val_loss=SAID[iteration - 1])

    _, recorder, result = run(model, train, train_examples, tmp_path, evaluate=evaluate)
    assert result.iteration == last
    assert recorder.iterations == list(range(1, last + 1))
    assert [each.iteration for each, _ in recorder.evaluations] == recorder.iterations
    assert result.best.val_loss == min(SAID[:last])  # the threshold is patience's alone


@pytest.mark.parametrize(("steps_per_eval", "kept"), [(100, 2), (1, 1)])
def test_loss_that_is_not_finite_ends_the_run_at_its_iteration(
    model, train_examples, tmp_path, steps_per_eval, kept
):
    train = settings(
        learning_rate=1, lora_parameters={"scale": 1e30}, steps_per_eval=steps_per_eval
    )
    recorder = Recorder()
    with pytest.raises(NonFiniteLoss, match=f"not finite at iteration {kept}") as caught:
        run(model, train, train_examples, tmp_path, recorder=recorder)
    # The first batch sees the base; its update makes the values too large.
    assert caught.value.iteration == kept
    assert recorder.iterations == [1]
    assert not (tmp_path / "adapters" / "adapters.safetensors").exists()


def test_whole_model_in_16_bit_stays_in_16_bit(tmp_path):
    model = tiny_models.build("llama")
    model.set_dtype(mx.bfloat16)
    train = settings(fine_tune_type="full", iters=3, grad_accumulation_steps=2, learning_rate=1e-2)
    examples = tiny_models.random_examples(8, longest=12)  # in 16 bit a CPU is slow
    before = mx.array(model.layers[-1].mlp.up_proj.weight)
    adapter, _, _ = run(model, train, examples, tmp_path)
    assert {value.dtype for value in adapter.values()} == {mx.bfloat16}
    saved = mx.load(str(tmp_path / "adapters" / "adapters.safetensors"))
    name = next(name for name in saved if name.endswith("up_proj.weight"))
    assert not mx.array_equal(saved[name], before)


def test_checkpointing_leaves_an_inherited_call_inherited(model):
    kind = type(model.layers[0])
    inherits = type("Block", (kind,), {})
    for block in model.layers:
        block.__class__ = inherits
    with gradient_checkpointing(model):
        assert "__call__" in vars(inherits)
    assert "__call__" not in vars(inherits)
    assert kind.__call__ is inherits.__call__
