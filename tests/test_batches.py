import math
from collections import Counter
from itertools import islice

import numpy as np
import pytest

from hawsweep.batches import evaluation_order, make_batch, padded_width, training_order
from hawsweep.encoding import Example

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
    for batches in epochs(training_order(examples, batch_size, seed=0), len(examples), 3):
        seen = Counter(i for batch in batches for i in batch)
        assert seen == Counter(range(len(examples)))


def test_batches_but_an_epochs_last_are_full(examples):
    (batches,) = epochs(training_order(examples, 4, seed=0), len(examples), 1)
    assert Counter(map(len, batches)) == {4: len(examples) // 4, len(examples) % 4: 1}


def test_fewer_examples_than_a_batch_make_one_small_batch():
    batches = islice(training_order(examples_of_lengths([5, 3]), 4, seed=0), 3)
    assert [sorted(batch) for batch in batches] == [[0, 1]] * 3


def test_same_seed_gives_same_order_and_another_seed_another(examples):
    def first(seed):
        return list(islice(training_order(examples, 4, seed), 60))

    assert first(3) == first(3)
    assert first(3) != first(4)


def test_order_does_not_depend_on_the_generators_of_the_process(examples):
    np.random.seed(1)
    one = list(islice(training_order(examples, 4, 0), 30))
    np.random.seed(2)
    assert list(islice(training_order(examples, 4, 0), 30)) == one


def test_epochs_are_shuffled_anew(examples):
    first, second = epochs(training_order(examples, 4, seed=0), len(examples), 2)
    assert first != second


def test_examples_of_a_batch_are_of_like_length(examples):
    def padding(batches):
        widths = [max(len(examples[i].tokens) for i in batch) for batch in batches]
        return sum(w * len(batch) for w, batch in zip(widths, batches, strict=True))

    (batches,) = epochs(training_order(examples, 4, seed=0), len(examples), 1)
    unsorted = [tuple(range(at, min(at + 4, 101))) for at in range(0, 101, 4)]
    real = sum(len(e.tokens) for e in examples)
    assert padding(batches) - real < (padding(unsorted) - real) / 4


@pytest.mark.parametrize("batch_size", [1, 3, 8, 500])
def test_evaluation_covers_every_example_once(examples, batch_size):
    batches = evaluation_order(examples, batch_size)
    assert sorted(i for batch in batches for i in batch) == list(range(len(examples)))
    assert len(batches) == math.ceil(len(examples) / batch_size)


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
