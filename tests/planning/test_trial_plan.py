"""How a trial is executed: the same result in parts, and the fastest way that fits."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import tiny_models
from tiny_training import assert_same_adapter, run, settings

from hawsweep.data.batches import make_batch, padded_width, split, training_order, training_steps
from hawsweep.data.tokens import Example
from hawsweep.models.shape import shape_of
from hawsweep.planning.calibration import uncalibrated
from hawsweep.planning.peak import Execution, Step, evaluation_peak, training_peak
from hawsweep.planning.trial_plan import (
    choose_plan,
    describe,
    evaluation_tokens,
    plans,
    smallest_plan,
)
from hawsweep.planning.workload import Workload
from hawsweep.spec.train import TrainSpec

SHAPE = shape_of(
    {
        "model_type": "llama",
        "hidden_size": 2048,
        "num_hidden_layers": 16,
        "intermediate_size": 8192,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "torch_dtype": "bfloat16",
    }
)
WORK = Workload(np.array([100, 300, 500, 900]), np.array([50, 100, 400, 300]), "by hand")
DEVICES = ["cpu", "metal"]


def known(device="metal"):
    return uncalibrated(SHAPE, device)


def train_of(**changes):
    return TrainSpec.model_validate({"batch_size": 4, **changes})


@pytest.fixture(scope="module")
def model():
    return tiny_models.build("llama")


def trained(model, folder, micro_batch, **changes):
    return run(
        model,
        settings(num_layers=4, iters=4, learning_rate=0.01, **changes),
        tiny_models.random_examples(12),
        folder,
        micro_batch=micro_batch,
    )


@pytest.mark.parametrize("accumulated", [1, 2])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_parts_of_a_batch_give_what_whole_batches_give(model, tmp_path, optimizer, accumulated):
    changes = {"optimizer": optimizer, "grad_accumulation_steps": accumulated}
    if optimizer == "adam":
        # Adam divides by a gradient's size: without this, rounding decides what tiny ones do.
        changes["optimizer_config"] = {"adam": {"eps": 1e-4}}
    expected, whole, _ = trained(model, tmp_path, None, **changes)
    assert len(set(whole.losses)) == 4
    for micro_batch in (1, 2, 3):
        adapter, parts, _ = trained(model, tmp_path, micro_batch, **changes)
        assert parts.losses == pytest.approx(whole.losses, rel=1e-5)
        assert_same_adapter(adapter, expected, 1e-5)


def test_parts_of_a_batch_have_each_their_own_dropout(model, tmp_path):
    dropped = {"lora_parameters": {"dropout": 0.5}}
    _, without, _ = trained(model, tmp_path, 1)
    _, parts, _ = trained(model, tmp_path, 1, **dropped)
    _, again, _ = trained(model, tmp_path, 1, **dropped)
    assert np.isfinite(parts.losses).all()
    assert parts.losses == again.losses
    assert parts.losses[1:] != without.losses[1:]
    assert parts.losses == pytest.approx(without.losses, rel=0.2)


@pytest.mark.parametrize("micro_batch", [*range(1, 12), None])
def test_split_loses_nothing_keeps_order_and_is_even(micro_batch):
    for n_rows in range(1, 12):
        indices = tuple(range(100, 100 + n_rows))
        parts = split(indices, micro_batch)
        most = micro_batch or n_rows
        assert sum(parts, ()) == indices
        assert len(parts) == -(-n_rows // most) or all(len(part) < most for part in parts)
        assert all(0 < len(part) <= most for part in parts)
        assert {len(part) for part in parts[:-1]} <= {len(parts[0])}
        assert len(parts[-1]) <= len(parts[0])


def test_whole_batches_are_one_part():
    assert split((3, 1, 2), None) == split((3, 1, 2), 5) == [(3, 1, 2)]


@pytest.mark.parametrize("device", DEVICES)
def test_fastest_plan_that_fits_is_chosen(device):
    model, train = known(device), train_of()
    everything = plans(model, train, WORK)
    assert len({plan.needed_bytes for plan in everything}) > 4
    for budget in sorted(plan.needed_bytes for plan in everything):
        chosen = choose_plan(model, train, WORK, budget)
        fitting = [plan.seconds for plan in everything if plan.needed_bytes <= budget]
        assert chosen.needed_bytes <= budget
        assert chosen.seconds == min(fitting)


@pytest.mark.parametrize("device", DEVICES)
def test_more_memory_never_gives_a_slower_plan(device):
    model, train = known(device), train_of()
    least = smallest_plan(model, train, WORK).needed_bytes
    most = max(plan.needed_bytes for plan in plans(model, train, WORK))
    chosen = [choose_plan(model, train, WORK, b) for b in np.linspace(least, most, 50)]
    seconds = [plan.seconds for plan in chosen]
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[-1] < seconds[0]


def test_no_plan_where_nothing_fits():
    least = smallest_plan(known(), train_of(), WORK)
    assert choose_plan(known(), train_of(), WORK, least.needed_bytes - 1) is None
    assert choose_plan(known(), train_of(), WORK, least.needed_bytes) is not None


def test_plan_that_ran_out_is_followed_by_strictly_smaller_ones_until_none_is_left():
    plan, seen = choose_plan(known(), train_of(), WORK, 1e12), []
    while plan is not None:
        seen.append(plan.peak_bytes)
        plan = choose_plan(known(), train_of(), WORK, 1e12, seen[-1])
    assert len(seen) > 2
    assert seen == sorted(set(seen), reverse=True)
    assert seen[-1] == smallest_plan(known(), train_of(), WORK).peak_bytes


@pytest.mark.parametrize(
    ("asked", "ways"), [(True, {True}), (False, {False}), ("auto", {True, False})]
)
def test_checkpointing_is_as_asked(asked, ways):
    found = plans(known(), train_of(grad_checkpoint=asked), WORK)
    assert {plan.execution.grad_checkpoint for plan in found} == ways


def test_memory_decides_on_checkpointing_only_where_it_is_auto():
    free = choose_plan(known(), train_of(), WORK, 1e12)
    assert not free.execution.grad_checkpoint
    assert free.execution.micro_batch == 4
    assert smallest_plan(known(), train_of(), WORK).execution.grad_checkpoint
    assert choose_plan(
        known(), train_of(grad_checkpoint=True), WORK, 1e12
    ).execution.grad_checkpoint


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("checkpointed", [True, False])
@pytest.mark.parametrize("at_once", [None, 64])
def test_peak_grows_with_rank_layers_width_rows_and_targets(device, checkpointed, at_once):
    def peak(rank=8, layers=4, width=256, rows=2, targets=256):
        train = train_of(num_layers=layers, lora_parameters={"rank": rank})
        execution = Execution(rows, checkpointed, at_once)
        coefficients = known(device).coefficients
        step = Step(rows, width, targets)
        return training_peak(SHAPE, train, step, execution, coefficients).total

    for key, values in {
        "rank": (4, 8, 64),
        "layers": (1, 4, 16),
        "width": (128, 256, 1024),
        "rows": (1, 2, 8),
    }.items():
        peaks = [peak(**{key: value}) for value in values]
        assert peaks == sorted(set(peaks)), key
    assert peak(layers=-1) == peak(layers=16)
    few, many = peak(targets=32), peak(targets=512)
    assert few <= many
    if at_once is None and checkpointed:
        assert few < many  # the head is its worst moment


def as_examples(lengths, n_targets):
    return [
        Example(np.zeros(length, np.int32), int(length - n))
        for length, n in zip(lengths, n_targets, strict=True)
    ]


def random_work(generator, unmasked):
    n_examples = int(generator.integers(1, 60))
    longest = int(generator.choice([12, 70, 300, 1500]))
    lengths = generator.integers(2, longest, n_examples, endpoint=True)
    n_targets = lengths - 1 if unmasked else generator.integers(1, lengths)
    return Workload(lengths, n_targets, "random")


@pytest.mark.parametrize("seed", range(40))
def test_no_step_of_training_is_larger_than_the_largest_predicted(seed):
    generator = np.random.default_rng(seed)
    work = random_work(generator, unmasked=seed % 4 == 0)
    examples = as_examples(work.lengths, work.n_targets)
    batch_size = int(generator.integers(1, 9))
    n_batches = 3 * -(-len(examples) // batch_size)
    train = train_of(batch_size=batch_size, grad_accumulation_steps=3, iters=n_batches)
    for micro_batch in (*range(1, batch_size + 1), 2 * batch_size, 3 * batch_size):
        largest = work.largest_step(batch_size, micro_batch)
        order = list(islice(training_order(work.lengths, batch_size, seed), n_batches))
        steps = training_steps(train, iter(order), micro_batch)
        batches = [make_batch(examples, part) for _, parts in steps for part in parts]
        real = [Step(*batch.inputs.shape, len(batch.targets)) for batch in batches]
        assert work.steps(train, iter(order), micro_batch) == real
        for step in real:
            assert step.rows <= largest.rows
            assert step.width <= largest.width
            assert step.n_targets <= largest.n_targets


def test_largest_step_is_hardly_larger_than_what_comes_up():
    work = replace(WORK, n_targets=WORK.lengths - 1)
    largest = work.largest_step(2, 2)
    order = iter([(2, 3), (0, 1)])
    real = max(work.steps(train_of(batch_size=2), order, 2), key=lambda step: step.n_tokens)
    assert (largest.rows, largest.width) == (real.rows, real.width) == (2, padded_width(899))
    assert real.n_targets <= largest.n_targets <= 1.05 * real.n_targets


def alike(length, n_examples=200):
    lengths = np.full(n_examples, length)
    return Workload(lengths, lengths - 1, "by hand")


SHORT = alike(41)  # 40 tokens go through the model


def accumulated(**changes):
    return train_of(**{"batch_size": 1, "grad_accumulation_steps": 4, **changes})


def micro_batches(train, work, device="cpu"):
    return {plan.execution.micro_batch for plan in plans(known(device), train, work)}


@pytest.mark.parametrize(("device", "step_tokens"), [("cpu", 40), ("metal", 64)])
def test_short_batches_of_an_update_run_as_one(device, step_tokens):
    model, train = known(device), accumulated(steps_per_report=8)
    chosen = choose_plan(model, train, SHORT, 1e12)
    assert chosen.execution.micro_batch == 4
    assert describe(chosen, train) == "4 batches as one"
    alone = choose_plan(model, train_of(batch_size=1), SHORT, 1e12)
    share = (4 * 40 + step_tokens) / (4 * (40 + step_tokens))
    assert chosen.seconds == pytest.approx(share * alone.seconds)
    checkpointed = accumulated(grad_checkpoint=True)
    found = choose_plan(model, checkpointed, SHORT, 1e12)
    assert describe(found, checkpointed) == "4 batches as one, checkpointed"


def test_batches_run_as_one_only_where_that_saves_a_tenth():
    # 40 tokens are what a step costs beside its own, and four as one save three times that.
    for length, saves in ((257, True), (289, False)):
        width = length - 1
        assert (4 * width + 40 <= 0.9 * 4 * (width + 40)) == saves
        assert padded_width(width) == width
        train = accumulated(steps_per_report=8)
        assert (4 in micro_batches(train, alike(length))) == saves
    lengths = np.where(np.arange(200) % 2, 17, 273)  # 16 and 272 tokens
    mixed = Workload(lengths, lengths - 1, "by hand")
    assert micro_batches(accumulated(), mixed) == {1}


@pytest.mark.parametrize(
    "changes",
    [
        {"grad_accumulation_steps": 1},
        {"lora_parameters": {"dropout": 0.1}},
        {"steps_per_report": 1},
        {"steps_per_eval": 1},
    ],
    ids=str,
)
def test_batches_run_alone_where_others_would_be_dropped_or_each_is_reported(changes):
    assert micro_batches(accumulated(), SHORT) == {1, 2, 4}
    assert micro_batches(accumulated(**changes), SHORT) == {1}


def test_update_of_many_batches_is_halved_until_it_has_64_rows():
    train = accumulated(grad_accumulation_steps=200, steps_per_report=200)
    assert micro_batches(train, SHORT) == {1, 2, 4, 7, 13, 25, 50}
    train = accumulated(batch_size=4, grad_accumulation_steps=16, steps_per_report=200)
    sizes = {size for size in micro_batches(train, alike(17)) if size > 4}
    assert sizes == {8, 16, 32, 64}


def test_batches_run_alone_where_memory_is_short():
    model, train = known(), accumulated()
    everything = plans(model, train, SHORT)
    joined = [plan for plan in everything if plan.execution.micro_batch > 1]
    chosen = choose_plan(model, train, SHORT, min(plan.needed_bytes for plan in joined) - 1)
    assert chosen.execution.micro_batch == 1
    assert smallest_plan(model, train, SHORT).execution.micro_batch == 1


@pytest.mark.parametrize("device", DEVICES)
def test_peak_of_batches_as_one_is_that_of_one_batch_of_their_rows(device):
    model, large = known(device), train_of(batch_size=4)
    expected = {p.execution: p.peak_bytes for p in plans(model, large, SHORT)}
    for every, n_copies in ((8, 0), (10, 1)):  # 10: a report falls within an update
        train = accumulated(steps_per_report=every, steps_per_eval=200)
        found = {p.execution: p.peak_bytes for p in plans(model, train, SHORT)}
        whole = [execution for execution in found if execution.micro_batch == 4]
        assert len(whole) == 4
        gradients = n_copies * 4 * SHAPE.trained_parameters(train)
        for execution in whole:
            assert found[execution] == pytest.approx(expected[execution] + gradients, abs=1)


@pytest.mark.parametrize("n_fitting", [0, 1, 2, 7, 64])
def test_evaluation_takes_as_many_examples_as_fit(n_fitting):
    model, execution, width = known(), Execution(4, False, 256), padded_width(899)
    step = Step(n_fitting, width, n_fitting * 400)
    peak = evaluation_peak(SHAPE, step, execution.tokens_at_once, model.coefficients)
    budget = peak * (1 + model.error)
    tokens = evaluation_tokens(model, WORK, execution, budget, 64)
    assert tokens == max(1, n_fitting) * width
    assert evaluation_tokens(model, WORK, execution, budget, 3) == min(tokens, 3 * width)
