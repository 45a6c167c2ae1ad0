import math
from collections import Counter
from itertools import chain, islice, pairwise

import numpy as np
import pytest

from hawsweep.data.batches import (
    adds_gradients,
    evaluation_order,
    lengths_of,
    make_batch,
    padded_width,
    training_order,
    training_steps,
    validation_size,
)
from hawsweep.data.tokens import Example
from hawsweep.spec.train import TrainSpec

LONGEST = 2048


def example(length, offset=1):
    return Example(np.arange(1, length + 1, dtype=np.int32), offset)


def examples_of_lengths(lengths):
    return [example(int(length)) for length in lengths]


@pytest.fixture
def examples():
    generator = np.random.default_rng(5)
    return examples_of_lengths(generator.integers(2, 200, size=101))


def epochs(order, n_examples, n_epochs):
    """The batches of each epoch, by counting examples."""
    found = []
    for _ in range(n_epochs):
        batches, count = [], 0
        while count < n_examples:
            batches.append(next(order))
            count += len(batches[-1])
        found.append(batches)
    return found


def test_padded_width_is_at_least_the_length_and_little_more():
    for length in range(1, LONGEST + 1):
        width = padded_width(length)
        assert width >= length
        assert width - length < max(8, length / 8)


def test_padded_width_of_a_padded_width_is_itself():
    for length in range(1, LONGEST + 1):
        assert padded_width(padded_width(length)) == padded_width(length)


def test_widths_are_eight_for_each_doubling():
    widths = {padded_width(length) for length in range(1, LONGEST + 1)}
    below_64 = 64 // 8
    assert len(widths) == below_64 + 8 * math.log2(LONGEST / 64)


@pytest.mark.parametrize("batch_size", [1, 4, 7])
def test_every_example_is_once_in_each_epoch(examples, batch_size):
    for batches in epochs(
        training_order(lengths_of(examples), batch_size, seed=0), len(examples), 3
    ):
        seen = Counter(i for batch in batches for i in batch)
        assert seen == Counter(range(len(examples)))


def test_batches_but_an_epochs_last_are_full(examples):
    (batches,) = epochs(training_order(lengths_of(examples), 4, seed=0), len(examples), 1)
    assert Counter(map(len, batches)) == {4: len(examples) // 4, len(examples) % 4: 1}


def test_fewer_examples_than_a_batch_make_one_small_batch():
    batches = islice(training_order(np.array([5, 3]), 4, seed=0), 3)
    assert [sorted(batch) for batch in batches] == [[0, 1]] * 3


def test_same_seed_gives_same_order_and_another_seed_another(examples):
    def first(seed):
        return list(islice(training_order(lengths_of(examples), 4, seed), 60))

    assert first(3) == first(3)
    assert first(3) != first(4)


def test_order_does_not_depend_on_the_generators_of_the_process(examples):
    np.random.seed(1)
    one = list(islice(training_order(lengths_of(examples), 4, 0), 30))
    np.random.seed(2)
    assert list(islice(training_order(lengths_of(examples), 4, 0), 30)) == one


def test_epochs_are_shuffled_anew(examples):
    first, second = epochs(training_order(lengths_of(examples), 4, seed=0), len(examples), 2)
    assert first != second


def test_examples_of_a_batch_are_of_like_length(examples):
    def padding(batches):
        widths = [max(len(examples[i].tokens) for i in batch) for batch in batches]
        return sum(w * len(batch) for w, batch in zip(widths, batches, strict=True))

    (batches,) = epochs(training_order(lengths_of(examples), 4, seed=0), len(examples), 1)
    unsorted = [tuple(range(at, min(at + 4, 101))) for at in range(0, 101, 4)]
    real = sum(len(e.tokens) for e in examples)
    assert padding(batches) - real < (padding(unsorted) - real) / 4


def plain_order(lengths, batch_size, seed, n_epochs):
    """The order without weights and difficulty, in plain words."""
    generator = np.random.default_rng(seed)
    for _ in range(n_epochs):
        order = [int(i) for i in generator.permutation(len(lengths))]
        for at in range(0, len(order), 32 * batch_size):
            pool = sorted(order[at : at + 32 * batch_size], key=lambda i: lengths[i])
            cut = [tuple(pool[i : i + batch_size]) for i in range(0, len(pool), batch_size)]
            yield from (cut[i] for i in generator.permutation(len(cut)))


@pytest.mark.parametrize("weights", [None, np.ones(101, np.float32)], ids=["none", "ones"])
@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_plain_order_is_pools_sorted_by_length(examples, batch_size, weights):
    lengths = lengths_of(examples)
    expected = list(plain_order(lengths, batch_size, 3, n_epochs=3))
    order = training_order(lengths, batch_size, 3, weights=weights)
    assert list(islice(order, len(expected))) == expected


# Of each weight as many examples as tell: an even number, an odd one, and some in tenths.
WEIGHTED = {0.5: 31, 1.0: 40, 3.0: 20, 2.25: 10, 0.9: 5}
WEIGHTS = np.repeat(np.array(list(WEIGHTED), np.float32), list(WEIGHTED.values()))
# 31 / 2, 40, 3 * 20, 22.5 and 4.5, the halves rounded up.
N_DRAWN = {0.5: 16, 1.0: 40, 3.0: 60, 2.25: 23, 0.9: 5}


def weighted_epochs(batch_size, n_epochs, **options):
    generator = np.random.default_rng(5)
    lengths = generator.integers(2, 200, size=len(WEIGHTS))
    order = training_order(lengths, batch_size, 0, weights=WEIGHTS, **options)
    return epochs(order, sum(N_DRAWN.values()), n_epochs)


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_weight_says_how_often_examples_come_in_every_epoch(batch_size):
    for batches in weighted_epochs(batch_size, 4):
        seen = Counter(i for batch in batches for i in batch)
        for weight, n_drawn in N_DRAWN.items():
            members = np.flatnonzero(np.isclose(WEIGHTS, weight)).tolist()
            counts = [seen[i] for i in members]
            assert sum(counts) == n_drawn
            assert {math.floor(weight), math.ceil(weight)} >= set(counts)


def test_share_of_a_fraction_is_drawn_anew_for_each_epoch():
    first, second = (
        {i for batch in batches for i in batch if WEIGHTS[i] == 0.5}
        for batches in weighted_epochs(4, 2)
    )
    assert len(first) == len(second) == N_DRAWN[0.5]
    assert first != second


def test_weight_that_rounds_to_no_example_gives_one():
    order = training_order(np.full(3, 9), 2, 0, weights=np.full(3, 0.1))
    assert {len(batch) for batch in islice(order, 40)} == {1}


def test_copies_of_an_example_do_not_meet_in_a_batch():
    lengths = np.random.default_rng(5).permutation(np.arange(2, 42))
    order = training_order(lengths, 4, 0, weights=np.full(40, 3.0))
    (batches,) = epochs(order, 120, 1)
    assert all(len(set(batch)) == len(batch) == 4 for batch in batches)


@pytest.fixture
def difficulty(examples):
    return np.random.default_rng(6).random(len(examples))


def mean_difficulties(batches, difficulty):
    return [float(np.mean([difficulty[i] for i in batch])) for batch in batches]


@pytest.mark.parametrize("n_batches", [None, 26, 500])
def test_curriculum_orders_the_first_epoch_alone_easiest_first(examples, difficulty, n_batches):
    lengths = lengths_of(examples)
    order = training_order(lengths, 4, 3, difficulty=difficulty, n_batches=n_batches)
    shuffled = list(islice(training_order(lengths, 4, 3), 3 * 26))  # an epoch: ceil(101 / 4)
    batches = list(islice(order, 3 * 26))
    means = mean_difficulties(batches, difficulty)
    assert means[:26] == sorted(means[:26])
    assert sorted(batches[:26]) == sorted(shuffled[:26]) != batches[:26]
    assert batches[26:] == shuffled[26:]


def test_short_trial_with_curriculum_sees_the_batches_it_would_see_without(examples, difficulty):
    lengths = lengths_of(examples)
    order = training_order(lengths, 4, 3, difficulty=difficulty, n_batches=10)
    shuffled = list(islice(training_order(lengths, 4, 3), 30))
    batches = list(islice(order, 30))
    assert sorted(batches[:10]) == sorted(shuffled[:10]) != shuffled[:10]
    means = mean_difficulties(batches[:10], difficulty)
    assert means == sorted(means)
    assert batches[10:] == shuffled[10:]


def test_ranked_examples_come_in_their_order_pool_by_pool():
    lengths = np.random.default_rng(1).integers(5, 60, 1000)
    rank = np.random.default_rng(2).permutation(1000).astype(np.float32)
    batches = list(islice(training_order(lengths, 4, 0, difficulty=rank, is_ranked=True), 250))
    ranks = [sorted(rank[list(batch)].tolist()) for batch in batches]
    for at in range(0, 250, 32):  # batches of a pool
        of_pool = sorted(chain(*ranks[at : at + 32]))
        assert of_pool == list(range(4 * at, 4 * at + len(of_pool)))
        means = [np.mean(each) for each in ranks[at : at + 32]]
        assert means == sorted(means)
    assert sorted(chain(*batches)) == list(range(1000))


def test_number_of_batches_has_no_influence_without_curriculum(examples):
    lengths = lengths_of(examples)
    orders = (training_order(lengths, 4, 3, n_batches=n) for n in (None, 10))
    first, second = (list(islice(order, 30)) for order in orders)
    assert first == second


def test_curriculum_keeps_the_weights_of_an_epoch():
    hard = np.arange(len(WEIGHTS), 0, -1.0)
    (plain,), (batches,) = weighted_epochs(4, 1), weighted_epochs(4, 1, difficulty=hard)
    assert sorted(plain) == sorted(batches)
    means = mean_difficulties(batches, hard)
    assert means == sorted(means)


@pytest.mark.parametrize("batch_size", [1, 3, 8, 500])
def test_evaluation_covers_every_example_once(examples, batch_size):
    batches = evaluation_order(lengths_of(examples), batch_size)
    assert sorted(i for batch in batches for i in batch) == list(range(len(examples)))
    assert len(batches) == math.ceil(len(examples) / batch_size)


def padded_tokens(batch, lengths):
    """By the batch as it is made, not by what the order counts on."""
    return make_batch(examples_of_lengths(lengths), batch).inputs.size


@pytest.mark.parametrize("batch_size", [None, 8])
def test_evaluation_batches_are_as_large_as_the_tokens_allow(examples, batch_size):
    lengths = lengths_of(examples)
    batches = evaluation_order(lengths, batch_size, max_tokens=1000)
    assert sorted(i for batch in batches for i in batch) == list(range(len(examples)))
    assert all(padded_tokens(batch, lengths) <= 1000 for batch in batches)
    for batch, following in pairwise(batches):
        larger = (*batch, following[0])
        assert len(larger) > (batch_size or 64) or padded_tokens(larger, lengths) > 1000
    assert max(map(len, batches)) > 4


@pytest.mark.parametrize(("max_tokens", "n_rows"), [(3 * 8, 3), (3 * 8 - 1, 2)])
def test_evaluation_batch_may_have_exactly_the_tokens_allowed(max_tokens, n_rows):
    lengths = np.full(6, 8 + 1)  # the last token is no input: 8, a width
    assert {len(b) for b in evaluation_order(lengths, None, max_tokens)} == {n_rows}


def test_example_longer_than_the_tokens_allow_is_evaluated_alone():
    batches = evaluation_order(np.array([300, 10, 200, 20]), 8, max_tokens=100)
    assert batches == [(1, 3), (2,), (0,)]


def test_evaluation_batch_has_at_most_64_rows_where_only_tokens_limit_it():
    batches = evaluation_order(np.full(150, 5), None, max_tokens=10**9)
    assert [len(batch) for batch in batches] == [64, 64, 22]


def test_validation_size_keeps_evaluation_within_its_share_of_the_time():
    generator = np.random.default_rng(5)
    train, valid = generator.integers(2, 200, 500), generator.integers(2, 90, 5000)

    def share_of(n_valid):
        evaluation = n_valid * valid.mean() / 2
        return evaluation / (evaluation + 30 * 4 * train.mean())

    for share in (0.05, 0.15, 0.5):
        size = validation_size(train, valid, 4, 30, share)
        assert 16 < size < len(valid)
        assert share_of(size) <= share < share_of(size + 1)
    assert validation_size(train, valid, 4, 30) == validation_size(train, valid, 4, 30, 0.15)


def test_validation_size_is_at_least_16_and_at_most_all():
    lengths = np.full(40, 50)
    assert validation_size(lengths, lengths, 1, 1) == 16
    assert validation_size(lengths, lengths[:10], 1, 1) == 10
    assert validation_size(lengths, lengths, 8, 1000) == 40


def test_batch_agrees_with_a_naive_double_loop():
    examples = [example(5, 1), example(70, 64), example(9, 8), example(2, 1)]
    chosen = (2, 1, 3)
    batch = make_batch(examples, chosen)
    expected = []
    for row, index in enumerate(chosen):
        tokens = examples[index].tokens
        for place in range(len(tokens)):
            if place >= examples[index].offset:
                expected.append((row, place - 1, tokens[place - 1], tokens[place]))
    n_targets = len(expected)
    width = batch.inputs.shape[1]
    assert width == padded_width(70 - 1)
    assert batch.n_targets == n_targets
    assert batch.weights.tolist() == [1] * n_targets + [0] * (len(batch.weights) - n_targets)
    for at, (row, place, before, target) in enumerate(expected):
        assert batch.rows[at] == row
        assert batch.positions[at] == row * width + place
        assert batch.inputs[row, place] == before
        assert batch.targets[at] == target
    for row, index in enumerate(chosen):
        n_inputs = len(examples[index].tokens) - 1
        assert batch.inputs[row].tolist() == [
            *examples[index].tokens[:-1],
            *[0] * (width - n_inputs),
        ]


@pytest.mark.parametrize("length", [2, 32, 33, 34, 65])
def test_target_count_is_padded_to_few_values(length):
    batch = make_batch([example(length)], [0])
    shapes = {getattr(batch, name).shape for name in ("positions", "targets", "weights", "rows")}
    assert shapes == {(math.ceil((length - 1) / 32) * 32,)}
    assert batch.n_targets == length - 1


def train_of(**changes):
    usual = {"batch_size": 2, "iters": 23, "steps_per_report": 10, "steps_per_eval": 6}
    return TrainSpec.model_validate({**usual, **changes})


def batches_of_two(n_batches):
    return [(2 * number, 2 * number + 1) for number in range(n_batches)]


def test_each_batch_is_a_step_of_its_own_without_a_plan_and_without_room_for_two():
    train, order = train_of(grad_accumulation_steps=4), batches_of_two(23)
    for micro_batch in (None, 2, 3):
        steps = list(training_steps(train, iter(order), micro_batch))
        assert steps == [(i + 1, [batch]) for i, batch in enumerate(order)]
    parts = [parts for _, parts in training_steps(train, iter(order), 1)]
    assert parts == [[(a,), (b,)] for a, b in order]


@pytest.mark.parametrize("n_joined", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("n_accumulated", [2, 4, 5, 8])
def test_joined_batches_end_at_updates_reports_evaluations_and_the_trials_end(
    n_accumulated, n_joined
):
    train, order = train_of(grad_accumulation_steps=n_accumulated), batches_of_two(23)
    steps = list(training_steps(train, iter(order), 2 * n_joined))
    is_end = [
        i % n_accumulated == 0
        or i % n_accumulated % n_joined == 0
        or i % train.steps_per_report == 0
        or i % train.steps_per_eval == 0
        or i == train.iters
        for i in range(1, 24)
    ]
    assert [end for end, _ in steps] == [i for i in range(1, 24) if is_end[i - 1]]
    assert all(len(parts) == 1 for _, parts in steps)
    assert tuple(chain(*(part for _, parts in steps for part in parts))) == tuple(range(46))
    assert {len(parts[0]) for _, parts in steps} <= {2 * n for n in range(1, n_joined + 1)}


def test_steps_after_any_end_are_those_of_the_whole_trial():
    train, order = train_of(grad_accumulation_steps=4), batches_of_two(23)
    steps = list(training_steps(train, iter(order), 6))
    for number, (done, _) in enumerate(steps):
        after = list(training_steps(train, iter(order[done:]), 6, done))
        assert after == steps[number + 1 :]


def test_steps_end_where_there_are_no_more_batches():
    steps = training_steps(train_of(grad_accumulation_steps=4), iter(batches_of_two(3)), 8)
    assert [parts for _, parts in steps] == [[tuple(range(6))]]


@pytest.mark.parametrize("micro_batch", [1, 2, 4, 6, 8])
@pytest.mark.parametrize("every", [(10, 6), (8, 4), (100, 40), (100, 10)])
@pytest.mark.parametrize("n_accumulated", [1, 2, 4])
def test_gradients_are_added_where_an_update_has_several_parts(n_accumulated, every, micro_batch):
    report, evaluate = every
    train = train_of(
        iters=24,
        grad_accumulation_steps=n_accumulated,
        steps_per_report=report,
        steps_per_eval=evaluate,
    )
    n_parts = Counter()
    for end, parts in training_steps(train, iter(batches_of_two(24)), micro_batch):
        n_parts[(end - 1) // n_accumulated] += len(parts)
    assert adds_gradients(train, micro_batch) == (max(n_parts.values()) > 1)
