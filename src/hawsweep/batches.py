"""Tokens become padded batches: grouped by true length, few widths, seeded order, none lost."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hawsweep.encoding import Example, Examples

# Batches are cut out of pools of this many, sorted by length: similar lengths meet, yet an epoch
# stays shuffled.
_POOL_BATCHES = 32
# A target count is padded to a multiple of this, so that compiled steps are few.
_TARGET_MULTIPLE = 32


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
    padding = -n_targets % _TARGET_MULTIPLE

    def pad(parts: list[npt.NDArray[Any]]) -> npt.NDArray[np.int32]:
        return np.pad(np.concatenate(parts), (0, padding)).astype(np.int32)

    weights = np.pad(np.ones(n_targets, np.float32), (0, padding))
    return Batch(inputs, pad(positions), pad(targets), weights, pad(rows), tuple(indices))


def lengths_of(examples: Sequence[Example]) -> npt.NDArray[np.integer[Any]]:
    """Tokens of each example, ``[examples]``; ``Examples`` knows them without reading any."""
    if isinstance(examples, Examples):
        return examples.lengths
    return np.array([len(example.tokens) for example in examples], np.int64)


def training_order(
    examples: Sequence[Example], batch_size: int, seed: int
) -> Iterator[tuple[int, ...]]:
    """Endless batches of indices. Each epoch has every example once; its last batches may be
    smaller.

    The order depends on the lengths, ``batch_size`` and ``seed`` alone.
    """
    generator = np.random.default_rng(seed)
    lengths = np.array([len(example.tokens) for example in examples])
    pool_size = _POOL_BATCHES * batch_size
    while True:
        order = generator.permutation(len(examples))
        batches: list[tuple[int, ...]] = []
        for start in range(0, len(order), pool_size):
            pool = order[start : start + pool_size]
            pool = pool[np.argsort(lengths[pool], kind="stable")]
            cut = [
                tuple(int(i) for i in pool[at : at + batch_size])
                for at in range(0, len(pool), batch_size)
            ]
            batches += [cut[i] for i in generator.permutation(len(cut))]
        yield from batches


def evaluation_order(examples: Sequence[Example], batch_size: int) -> list[tuple[int, ...]]:
    """Batches of indices, by length, that cover every example once."""
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].tokens))
    return [tuple(order[at : at + batch_size]) for at in range(0, len(order), batch_size)]
