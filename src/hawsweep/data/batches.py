"""Tokens become padded batches: grouped by true length, few widths, seeded order, none lost."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from typing import Any

import numpy as np
import numpy.typing as npt

from hawsweep.data.tokens import Example, Examples
from hawsweep.spec.train import TrainSpec

# Batches are cut from pools of this many, sorted by length: a batch has similar lengths, and an
# epoch stays shuffled.
_POOL_BATCHES = 32
# A target count is padded to a multiple of this, or of a sixteenth of the batch if that is more:
# at most 17 steps are compiled for each shape of the inputs.
_TARGET_MULTIPLE = 32
# Rows of an evaluation batch without a limit on rows.
_MOST_ROWS = 64
# The cost of a forward pass, as a share of a training step: the backward pass through frozen
# weights computes gradients of the activations, which takes as many products as the forward pass.
EVALUATION_COST = 0.5
# The loss of fewer validation examples is mostly noise.
_FEWEST_VALIDATION = 16


@dataclass(frozen=True)
class Batch:
    """Padded tokens and the places to learn from.

    Attributes:
        inputs: ``[batch, width]``, padded with 0 on the right.
        positions: Places in the flattened inputs whose next token counts, ``[targets]``, padded
            with 0.
        targets: That next token, ``[targets]``, padded with 0.
        weights: 1 for a target, 0 for padding, ``[targets]``.
        rows: The row of each target, ``[targets]``.
        indices: Which examples these are.
    """

    inputs: npt.NDArray[np.int32]
    positions: npt.NDArray[np.int32]
    targets: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]
    rows: npt.NDArray[np.int32]
    indices: tuple[int, ...]

    @property
    def n_targets(self) -> int:
        """Tokens that count in the loss."""
        return int(self.weights.sum())


def padded_width(length: int) -> int:
    """The width for a length: at most 7 tokens too wide up to 64, and at most an eighth above.

    A step is compiled for each width, so there are only 8 for each doubling of the length.
    """
    step = max(8, 1 << max(0, (length - 1).bit_length() - 4))
    return -(-length // step) * step


def padded_targets(n_targets: int, n_tokens: int) -> int:
    """The padded count of targets in a batch of ``n_tokens`` padded tokens."""
    multiple = max(_TARGET_MULTIPLE, padded_width(-(-n_tokens // 16)))
    return -(-n_targets // multiple) * multiple


def make_batch(examples: Sequence[Example], indices: Sequence[int]) -> Batch:
    """Pad the examples at ``indices`` into one batch."""
    chosen = [examples[i] for i in indices]
    width = padded_width(max(len(example.tokens) for example in chosen) - 1)
    inputs = np.zeros((len(chosen), width), np.int32)
    positions: list[npt.NDArray[Any]] = []
    targets: list[npt.NDArray[Any]] = []
    rows: list[npt.NDArray[Any]] = []
    for row, example in enumerate(chosen):
        inputs[row, : len(example.tokens) - 1] = example.tokens[:-1]
        positions.append(np.arange(example.offset - 1, len(example.tokens) - 1) + row * width)
        targets.append(example.tokens[example.offset :])
        rows.append(np.full(example.n_targets, row, np.int32))
    n_targets = sum(map(len, targets))
    padding = padded_targets(n_targets, inputs.size) - n_targets

    def pad(parts: list[npt.NDArray[Any]]) -> npt.NDArray[np.int32]:
        return np.pad(np.concatenate(parts), (0, padding)).astype(np.int32)

    weights = np.pad(np.ones(n_targets, np.float32), (0, padding))
    return Batch(inputs, pad(positions), pad(targets), weights, pad(rows), tuple(indices))


def split(indices: Sequence[int], micro_batch: int | None) -> list[tuple[int, ...]]:
    """A batch's indices in even parts of at most ``micro_batch``; None: one part."""
    n_parts = 1 if micro_batch is None else -(-len(indices) // micro_batch)
    size = -(-len(indices) // n_parts)
    return [tuple(indices[at : at + size]) for at in range(0, len(indices), size)]


def training_steps(
    train: TrainSpec,
    order: Iterator[tuple[int, ...]],
    micro_batch: int | None,
    done: int = 0,
) -> Iterator[tuple[int, list[tuple[int, ...]]]]:
    """The iteration after each step of a trial, and the parts that go through the model in it.

    A step is one batch, in parts if it has more rows than ``micro_batch``; or as many whole
    batches of one update as ``micro_batch`` has room for, as one part. It ends at each report and
    each evaluation. Where it ends does not depend on ``done``: a resumed trial has the same steps.

    Args:
        order: The batches after iteration ``done``.
        micro_batch: None for each batch whole and alone.
        done: The iterations before.
    """
    while done < train.iters:
        end = _end_of_step(train, micro_batch, done)
        batches = list(islice(order, end - done))
        if not batches:
            return
        yield end, split(tuple(chain(*batches)), micro_batch)
        done = end


def n_joined(train: TrainSpec, micro_batch: int | None) -> int:
    """The most batches of an update that run as one."""
    return 1 if micro_batch is None else max(1, micro_batch // train.batch_size)


def adds_gradients(train: TrainSpec, micro_batch: int) -> bool:
    """Whether an update adds up the gradients of several parts."""
    n_batches = train.grad_accumulation_steps
    n_apart = [n for n in (train.steps_per_report, train.steps_per_eval) if n < train.iters]
    is_cut = any(steps % n_batches for steps in n_apart)
    return is_cut or micro_batch < n_batches * train.batch_size


def _end_of_step(train: TrainSpec, micro_batch: int | None, done: int) -> int:
    steps, size = train.grad_accumulation_steps, n_joined(train, micro_batch)
    in_update = done % steps
    end = done - in_update + min(steps, (in_update // size + 1) * size)
    due = ((done // each + 1) * each for each in (train.steps_per_report, train.steps_per_eval))
    return min(end, train.iters, *due)


def lengths_of(examples: Sequence[Example]) -> npt.NDArray[np.integer[Any]]:
    """Tokens of each example, ``[examples]``; ``Examples`` knows them without reading any."""
    if isinstance(examples, Examples):
        return examples.lengths
    return np.array([len(example.tokens) for example in examples], np.int64)


def targets_of(examples: Sequence[Example]) -> npt.NDArray[np.integer[Any]]:
    """Tokens learned from of each example, ``[examples]``."""
    if isinstance(examples, Examples):
        return examples.n_targets
    return np.array([example.n_targets for example in examples], np.int64)


def training_order(
    lengths: npt.NDArray[np.integer[Any]],
    batch_size: int,
    seed: int,
    *,
    weights: npt.NDArray[np.floating[Any]] | None = None,
    difficulty: npt.NDArray[np.floating[Any]] | None = None,
    n_batches: int | None = None,
    is_ranked: bool = False,
) -> Iterator[tuple[int, ...]]:
    """Endless batches of indices, epoch after epoch. An epoch's last batches may be smaller.

    The order depends on the arguments alone.

    Args:
        lengths: Tokens of each example, ``[examples]``.
        weights: How often each comes in an epoch, ``[examples]``; once by default. The whole part
            is a number of copies. The fraction is a share, drawn anew for each epoch, of all
            examples of that weight, rounded half up; of a weight below 1 at least one comes. An
            example is rarely twice in a batch: only where fewer others than a batch come again
            among those the batch is cut out of, or where lengths are equal.
        difficulty: How hard each is, ``[examples]``. The first epoch's batches are ordered by their
            mean difficulty, easiest first; later epochs are not.
        n_batches: How many will be taken. Where that is less than an epoch, those are ordered that
            come without ``difficulty``: a short trial learns from the same batches in either order.
        is_ranked: The difficulty is a place in a ranking: the first epoch takes the examples in its
            order, pool by pool, and a short trial the first of them.
    """
    generator = np.random.default_rng(seed)
    if difficulty is not None and is_ranked:
        yield from _shuffled_epoch(lengths, batch_size, weights, generator, difficulty)
    elif difficulty is not None:
        first = _shuffled_epoch(lengths, batch_size, weights, generator)
        yield from _easiest_first(list(islice(first, n_batches)), difficulty)
        yield from first
    while True:
        yield from _shuffled_epoch(lengths, batch_size, weights, generator)


def evaluation_order(
    lengths: npt.NDArray[np.integer[Any]], batch_size: int | None, max_tokens: int | None = None
) -> list[tuple[int, ...]]:
    """Batches of indices, by length, that cover every example once.

    Args:
        lengths: Tokens of each example, ``[examples]``.
        batch_size: The most examples of a batch; None: 64.
        max_tokens: The most tokens of a batch, padding included. An example that is longer has a
            batch of its own.
    """
    most_rows = batch_size or _MOST_ROWS
    batches: list[tuple[int, ...]] = []
    rows: list[int] = []
    for index in np.argsort(lengths, kind="stable").tolist():
        width = padded_width(int(lengths[index]) - 1)  # the longest so far is the latest
        too_many = max_tokens is not None and (len(rows) + 1) * width > max_tokens
        if rows and (too_many or len(rows) == most_rows):
            batches.append(tuple(rows))
            rows = []
        rows.append(index)
    return [*batches, tuple(rows)] if rows else batches


def validation_size(
    train_lengths: npt.NDArray[np.integer[Any]],
    valid_lengths: npt.NDArray[np.integer[Any]],
    batch_size: int,
    steps_per_eval: float,
    share: float = 0.15,
) -> int:
    """How many validation examples keep evaluation within ``share`` of a trial's time.

    Time is counted in tokens: n * mean(valid_lengths) * 0.5 of an evaluation, steps_per_eval *
    batch_size * mean(train_lengths) of the training between two. At least 16, and at most what
    there is.

    Args:
        train_lengths: Tokens of each training example, ``[examples]``.
        valid_lengths: The same of the validation examples.
        share: Between 0 and 1, both excluded.
    """
    train_cost = steps_per_eval * batch_size * float(np.mean(train_lengths))
    example_cost = float(np.mean(valid_lengths)) * EVALUATION_COST
    affordable = math.floor(train_cost * share / (1 - share) / example_cost)
    return min(len(valid_lengths), max(affordable, _FEWEST_VALIDATION))


def _shuffled_epoch(
    lengths: npt.NDArray[np.integer[Any]],
    batch_size: int,
    weights: npt.NDArray[np.floating[Any]] | None,
    generator: np.random.Generator,
    rank: npt.NDArray[np.floating[Any]] | None = None,
) -> Iterator[tuple[int, ...]]:
    drawn = np.arange(len(lengths)) if weights is None else _draw(weights, generator)
    shuffled = generator.permutation(len(drawn)) if rank is None else np.argsort(rank[drawn])
    order = drawn[shuffled]
    pool_size = _POOL_BATCHES * batch_size
    for start in range(0, len(order), pool_size):
        pool = order[start : start + pool_size]
        # Copies have the same length. All of the first ones go before all of the second ones, or
        # they would meet in one batch.
        copy = np.zeros(len(pool), np.int64) if weights is None else _copy_numbers(pool)
        chosen = pool[np.lexsort((lengths[pool], copy))].tolist()
        cut = [tuple(chosen[at : at + batch_size]) for at in range(0, len(chosen), batch_size)]
        if rank is not None:
            yield from _easiest_first(cut, rank)
            continue
        for number in generator.permutation(len(cut)):
            yield cut[number]


def _draw(
    weights: npt.NDArray[np.floating[Any]], generator: np.random.Generator
) -> npt.NDArray[np.int64]:
    """The examples of one epoch, as often as they come in it."""
    parts = []
    for weight in np.unique(weights):
        members = np.flatnonzero(weights == weight)
        # By its shortest decimal, which is what the sweep says: 0.9 of 5 is then 4.5, half up 5.
        n_copies, share = divmod(Fraction(str(weight)), 1)
        n_more = math.floor(share * len(members) + Fraction(1, 2))
        n_more = max(n_more, 0 if n_copies else 1)
        parts += [np.tile(members, n_copies), generator.choice(members, n_more, replace=False)]
    return np.concatenate(parts)


def _copy_numbers(pool: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """For each element, how many equal ones come before it, ``[pool]``."""
    order = np.argsort(pool, kind="stable")
    ordered = pool[order]
    numbers = np.empty_like(order)
    numbers[order] = np.arange(len(pool)) - np.searchsorted(ordered, ordered)
    return numbers


def _easiest_first(
    batches: list[tuple[int, ...]], difficulty: npt.NDArray[np.floating[Any]]
) -> Iterator[tuple[int, ...]]:
    flat = np.fromiter(chain.from_iterable(batches), np.int64)
    sizes = np.array([len(batch) for batch in batches])
    starts = np.cumsum(sizes) - sizes
    sums = np.add.reduceat(difficulty[flat], starts, dtype=np.float64)
    for number in np.argsort(sums / sizes, kind="stable"):
        yield batches[number]
