"""The validation loss of a model in its present state, on a frozen set of examples."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hawsweep.machine.backend import mx

import numpy as np
import numpy.typing as npt

from hawsweep.data.batches import Batch, evaluation_order, lengths_of, make_batch
from hawsweep.data.tokens import Example
from hawsweep.training.forward import FrozenBlocks
from hawsweep.training.loss import target_losses


@dataclass(frozen=True)
class Evaluation:
    """The validation loss of the adapter after ``iteration`` batches.

    Attributes:
        val_loss: Nats per target token, over all of them.
        example_losses: Mean nats per target token of each example, ``[examples]``.
    """

    iteration: int
    val_loss: float
    example_losses: npt.NDArray[np.float32]
    time_s: float

    @property
    def perplexity(self) -> float:
        """Perplexity of a target token."""
        return perplexity(self.val_loss)


def perplexity(loss: float) -> float:
    """The perplexity of a loss in nats; infinite if that is too large."""
    return math.exp(loss) if loss < 700 else math.inf


def make_evaluator(
    model: Any,
    examples: Sequence[Example],
    batch_size: int | None,
    frozen: FrozenBlocks | None = None,
    max_tokens: int | None = None,
    tokens_at_once: int | None = None,
    on_batch: Callable[[], None] = lambda: None,
) -> Callable[[int], Evaluation]:
    """An evaluation of ``model`` on all of ``examples``, ready to be called after training steps.

    The loss does not depend on the batches, except for rounding.

    Args:
        batch_size: Examples at a time; None for as many as ``max_tokens``, padded, allow.
        tokens_at_once: See ``loss.target_losses``.
        on_batch: Called after each batch.
    """
    order = evaluation_order(lengths_of(examples), batch_size, max_tokens)
    n_targets = np.array([example.n_targets for example in examples])
    kept = frozen or FrozenBlocks(model, budget_bytes=0)

    def evaluate(iteration: int) -> Evaluation:
        started = time.perf_counter()
        model.eval()
        sums = np.zeros(len(examples))
        for chosen in order:
            batch = make_batch(examples, chosen)
            arrays = batch_arrays(batch, kept, "valid")
            losses = target_losses(model, arrays, kept.n_blocks, tokens_at_once)
            sums[list(batch.indices)] += sum_by_row(losses, batch)
            on_batch()
        model.train()
        return Evaluation(
            iteration,
            float(sums.sum() / n_targets.sum()),
            (sums / n_targets).astype(np.float32),
            time.perf_counter() - started,
        )

    return evaluate


def batch_arrays(batch: Batch, frozen: FrozenBlocks, split: str) -> tuple[Any, ...]:
    """A batch for ``target_losses``: inputs, positions, targets, weights, states."""
    parts = (batch.inputs, batch.positions, batch.targets, batch.weights)
    inputs, *others = (mx.array(part) for part in parts)
    return inputs, *others, frozen.states(split, batch.indices, inputs)


def sum_by_row(losses: Any, batch: Batch) -> npt.NDArray[np.float64]:
    """Losses of target tokens added up by example, ``[batch]``."""
    sums: npt.NDArray[np.float64] = np.zeros(len(batch.indices))
    np.add.at(sums, batch.rows, np.array(losses, np.float64))
    return sums
