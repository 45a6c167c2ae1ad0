"""One LoRA run: steps, evaluation, the best adapter.

What it does otherwise than mlx-lm's trainer, which it follows in the meaning of its settings:
gradients of an update are weighted by tokens; the loss is computed only where a token counts;
evaluation follows the update, covers a frozen set whole, and the adapter kept is the one of the
best evaluation.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from hawsweep.backend import mx, nn, optim, peak_memory_bytes, reset_peak_memory

import numpy as np
import numpy.typing as npt
from mlx.utils import tree_map

from hawsweep.adapters import lora_layers, save_adapter
from hawsweep.batches import Batch, evaluation_order, lengths_of, make_batch, training_order
from hawsweep.encoding import Example
from hawsweep.errors import SpecError
from hawsweep.forward import FrozenBlocks, logits_at
from hawsweep.spec import TrainSpec


class NonFiniteLoss(Exception):  # noqa: N818 - a result of the trial, not an error of the program
    """The loss became infinite or NaN: the trial's settings diverge."""

    def __init__(self, iteration: int) -> None:
        super().__init__(f"the loss was not finite at iteration {iteration}")
        self.iteration = iteration


@dataclass(frozen=True)
class Report:
    """Training since the last report.

    Attributes:
        train_loss: Nats per target token.
        tokens_per_s: Real tokens, without padding, of training alone.
        padding_ratio: Padded tokens over real tokens.
    """

    iteration: int
    update: int
    train_loss: float
    learning_rate: float
    tokens_per_s: float
    padding_ratio: float
    peak_memory_bytes: int


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


@dataclass(frozen=True)
class TrainResult:
    """What a run came to.

    Attributes:
        best: The evaluation whose adapter is kept.
        n_tokens: Real tokens trained on.
        train_time_s: Training alone, without evaluations.
    """

    best: Evaluation
    n_tokens: int
    train_time_s: float
    peak_memory_bytes: int

    @property
    def tokens_per_s(self) -> float:
        """Real tokens trained on per second of training."""
        return self.n_tokens / self.train_time_s if self.train_time_s else 0.0


class TrainCallback(Protocol):
    """What a run tells. Each may raise to end the run; the best adapter so far is on disk then."""

    def on_iteration(self, iteration: int) -> None:
        """After every batch."""

    def on_report(self, report: Report) -> None:
        """Every ``steps_per_report`` iterations."""

    def on_evaluation(self, evaluation: Evaluation, is_best: bool) -> None:
        """Every ``steps_per_eval`` iterations and at the end, after the best adapter was saved."""


def train_adapter(
    model: Any,
    train: TrainSpec,
    train_examples: Sequence[Example],
    evaluate: Callable[[int], Evaluation],
    adapter_dir: Path,
    callback: TrainCallback,
    frozen: FrozenBlocks | None = None,
) -> TrainResult:
    """Train the LoRA layers that are in ``model`` and leave the best adapter in ``adapter_dir``.

    Args:
        model: With LoRA layers, everything else frozen; see ``adapters.lora_layers``.
        evaluate: Gives the evaluation of the model as it is, at an iteration.
        frozen: Keeps what the blocks below the trained ones give, from trial to trial.

    Raises:
        NonFiniteLoss: Training or evaluation diverged.
    """
    optimizer = make_optimizer(train)
    frozen = frozen or FrozenBlocks(model, budget_bytes=0)
    step = _compile_step(model, optimizer, frozen.n_blocks)
    order = training_order(lengths_of(train_examples), train.batch_size, train.seed)
    meter = _Meter(train)
    best: Evaluation | None = None
    pending: Any = None  # gradients and tokens since the last update
    reset_peak_memory()
    for iteration in range(1, train.iters + 1):
        meter.start()
        batch = make_batch(train_examples, next(order))
        is_last = iteration == train.iters
        update = is_last or iteration % train.grad_accumulation_steps == 0
        loss_sum, pending = step(_arrays(batch, frozen, "train"), pending, update)
        mx.eval(loss_sum, pending, model.trainable_parameters(), optimizer.state)
        loss = loss_sum.item() / batch.n_targets
        if not math.isfinite(loss):
            raise NonFiniteLoss(iteration)
        meter.stop(batch, loss, update, [len(train_examples[i].tokens) for i in batch.indices])
        callback.on_iteration(iteration)
        if is_last or iteration % train.steps_per_report == 0:
            callback.on_report(meter.report(iteration, float(optimizer.learning_rate.item())))
        if is_last or iteration % train.steps_per_eval == 0:
            evaluation = evaluate(iteration)
            if not math.isfinite(evaluation.val_loss):
                raise NonFiniteLoss(iteration)
            is_best = best is None or evaluation.val_loss < best.val_loss
            if is_best:
                best = evaluation
                save_adapter(model, train, adapter_dir)
            callback.on_evaluation(evaluation, is_best)
    assert best is not None
    return TrainResult(best, meter.n_tokens, meter.train_time_s, peak_memory_bytes())


def make_optimizer(train: TrainSpec) -> Any:
    """The optimizer by name; what ``optimizer_config`` does not say has MLX's defaults.

    One of these matters: MLX's Adam does not correct its moments' bias unless told to
    (``bias_correction``). Where the gradient is steady it so takes steps of
    (1 - 0.9^t) / sqrt(1 - 0.999^t) times the learning rate at update t: 3.2 to 6.6 up to t = 100.

    Raises:
        SpecError: It has no such option.
    """
    kinds = {"adam": optim.Adam, "adamw": optim.AdamW, "sgd": optim.SGD}
    options = train.optimizer_config.get(train.optimizer, {})
    try:
        return kinds[train.optimizer](learning_rate=train.learning_rate, **options)
    except TypeError as fault:
        raise SpecError(
            f"train.optimizer_config.{train.optimizer} has an option that MLX's optimizer does not "
            f"know: {fault}. Correct its name."
        ) from fault


def make_evaluator(
    model: Any,
    examples: Sequence[Example],
    batch_size: int,
    frozen: FrozenBlocks | None = None,
) -> Callable[[int], Evaluation]:
    """An evaluation of ``model`` on all of ``examples``, ready to be called after training steps.

    The loss does not depend on ``batch_size``, but for rounding.
    """
    order = evaluation_order(lengths_of(examples), batch_size)
    batches = [make_batch(examples, chosen) for chosen in order]
    n_targets = np.array([example.n_targets for example in examples])
    kept = frozen or FrozenBlocks(model, budget_bytes=0)

    def evaluate(iteration: int) -> Evaluation:
        started = time.perf_counter()
        model.eval()
        sums = np.zeros(len(examples))
        for batch in batches:
            losses = target_losses(model, _arrays(batch, kept, "valid"), kept.n_blocks)
            by_row = np.bincount(batch.rows, np.array(losses, np.float64), len(batch.indices))
            sums[list(batch.indices)] += by_row
        model.train()
        return Evaluation(
            iteration,
            float(sums.sum() / n_targets.sum()),
            (sums / n_targets).astype(np.float32),
            time.perf_counter() - started,
        )

    return evaluate


def target_losses(model: Any, arrays: tuple[Any, ...], n_frozen: int = 0) -> Any:
    """Cross-entropy of each target token in nats, 0 for padding, ``[targets]``.

    Args:
        arrays: A batch's inputs, positions, targets and weights, and the states after ``n_frozen``
            blocks.
    """
    inputs, positions, targets, weights, states = arrays
    logits = logits_at(model, inputs, positions, n_frozen, states)
    return nn.losses.cross_entropy(logits.astype(mx.float32), targets) * weights


@contextmanager
def gradient_checkpointing(model: Any) -> Iterator[None]:
    """Recompute each block's activations backwards; on leaving, the blocks are as before."""
    originals = {type(layer): type(layer).__call__ for layer in model.layers}
    for kind, call in originals.items():
        kind.__call__ = _checkpointed(call)
    try:
        yield
    finally:
        for kind, call in originals.items():
            kind.__call__ = call


@contextmanager
def trainable(model: Any, train: TrainSpec) -> Iterator[None]:
    """The model with LoRA layers and, where asked, gradient checkpointing; undone on leaving."""
    with lora_layers(model, train):
        if not train.grad_checkpoint:
            yield
            return
        with gradient_checkpointing(model):
            yield


def _checkpointed(call: Callable[..., Any]) -> Callable[..., Any]:
    def checkpointed_call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        def inner(parameters: Any, *args: Any, **kwargs: Any) -> Any:
            layer.update(parameters)
            return call(layer, *args, **kwargs)

        # The parameters are an argument, or no gradient would reach them.
        return mx.checkpoint(inner)(layer.trainable_parameters(), *args, **kwargs)

    return checkpointed_call


def _compile_step(model: Any, optimizer: Any, n_frozen: int) -> Callable[..., Any]:
    def loss(model: Any, arrays: tuple[Any, ...]) -> Any:
        return target_losses(model, arrays, n_frozen).sum()

    loss_and_gradients = nn.value_and_grad(model, loss)
    model.train()
    optimizer.init(model.trainable_parameters())
    state = [model.state, optimizer.state, mx.random.state]

    @partial(mx.compile, inputs=state, outputs=state)
    def step(arrays: tuple[Any, ...], pending: Any, update: bool) -> Any:
        loss_sum, gradients = loss_and_gradients(model, arrays)
        n_targets = arrays[3].sum()
        if pending is not None:
            gradients = tree_map(mx.add, gradients, pending[0])
            n_targets = n_targets + pending[1]
        if not update:
            return loss_sum, (gradients, n_targets)
        optimizer.update(model, tree_map(lambda gradient: gradient / n_targets, gradients))
        return loss_sum, None

    return step


def _arrays(batch: Batch, frozen: FrozenBlocks, split: str) -> tuple[Any, ...]:
    parts = (batch.inputs, batch.positions, batch.targets, batch.weights)
    inputs, *others = (mx.array(part) for part in parts)
    return inputs, *others, frozen.states(split, batch.indices, inputs)


class _Meter:
    """Adds up what the reports say."""

    def __init__(self, train: TrainSpec) -> None:
        self.n_tokens = 0
        self.train_time_s = 0.0
        self._updates = 0
        self._loss_sum = 0.0
        self._targets = self._padded = 0
        self._since = (0, 0.0)

    def start(self) -> None:
        self._started = time.perf_counter()

    def stop(self, batch: Batch, loss: float, update: bool, lengths: Sequence[int]) -> None:
        self.train_time_s += time.perf_counter() - self._started
        self.n_tokens += sum(lengths) - len(lengths)
        self._padded += batch.inputs.size
        self._updates += update
        self._loss_sum += loss * batch.n_targets
        self._targets += batch.n_targets

    def report(self, iteration: int, learning_rate: float) -> Report:
        tokens, seconds = self.n_tokens - self._since[0], self.train_time_s - self._since[1]
        report = Report(
            iteration,
            self._updates,
            self._loss_sum / self._targets,
            learning_rate,
            tokens / seconds,
            self._padded / tokens,
            peak_memory_bytes(),
        )
        self._loss_sum = 0.0
        self._targets = self._padded = 0
        self._since = (self.n_tokens, self.train_time_s)
        return report
