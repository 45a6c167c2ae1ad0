"""A training run: steps, evaluations, the best adapter, and resuming.

Its settings mean the same as in mlx-lm's trainer. The differences: gradients of an update are
weighted by tokens and none is left over; the loss is computed only for tokens that count;
evaluation follows the update and covers a whole frozen set; the adapter of the best evaluation is
kept.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from hawsweep.machine.backend import (
    MemoryNow,
    clear_cache,
    memory_now,
    mx,
    nn,
    optim,
    peak_memory_bytes,
    random_seed,
    reset_peak_memory,
    seed,
    utils,
)

from hawsweep.data.batches import Batch, make_batch, training_steps
from hawsweep.data.tokens import Example
from hawsweep.files import remove_half_written
from hawsweep.layout import ADAPTER_DIR
from hawsweep.spec.train import TrainSpec
from hawsweep.training.adapters import adapted, save_adapter
from hawsweep.training.checkpoints import (
    RunProgress,
    TrainState,
    keep_checkpoint,
    save_state,
)
from hawsweep.training.dropout import dropout_keys, step_key
from hawsweep.training.evaluation import Evaluation, batch_arrays, sum_by_row
from hawsweep.training.forward import FrozenBlocks
from hawsweep.training.loss import target_losses
from hawsweep.training.optimizers import learning_rate_at, make_optimizer, set_learning_rate

_N_TARGETS = "n_targets"  # beside the names of pending gradients


class Interrupted(Exception):  # noqa: N818 - asked for, not an error
    """The run was asked to stop. Its state, if it has one, is on disk."""


class NonFiniteLoss(Exception):  # noqa: N818 - a result of the trial, not an error of the program
    """The loss became infinite or NaN: the trial's settings diverge."""

    def __init__(self, iteration: int) -> None:
        super().__init__(f"the loss was not finite at iteration {iteration}")
        self.iteration = iteration


@dataclass(frozen=True)
class StepReport:
    """Training since the last report.

    Attributes:
        train_loss: Nats per target token.
        learning_rate: Of the update that the last batch is part of.
        grad_norm: Of all gradients of the last update together, before clipping.
        tokens_per_s: Tokens without padding, per second of training alone.
        padding_ratio: Tokens with padding over tokens without.
        peak_memory_bytes: Of MLX's arrays, since the start of the run.
        memory: As it is now.
    """

    iteration: int
    update: int
    train_loss: float
    learning_rate: float
    grad_norm: float
    tokens_per_s: float
    padding_ratio: float
    peak_memory_bytes: int
    memory: MemoryNow


@dataclass(frozen=True)
class TrainResult:
    """The result of a run.

    Attributes:
        best: The evaluation whose adapter is kept.
        iteration: The last; less than ``iters`` if early stopping ended the run.
        n_tokens: Tokens trained on, without padding.
        train_time_s: Training alone, without evaluations.
    """

    best: Evaluation
    iteration: int
    n_tokens: int
    train_time_s: float
    eval_time_s: float
    peak_memory_bytes: int

    @property
    def tokens_per_s(self) -> float:
        """Tokens without padding, per second of training."""
        return self.n_tokens / self.train_time_s if self.train_time_s else 0.0


class TrainCallback:
    """The callbacks of a run, without effect.

    Each may raise to end it; the best adapter so far is then on disk.
    """

    def on_iteration(self, iteration: int) -> None:
        """After every batch; of batches that ran as one, after the last."""

    def on_report(self, report: StepReport) -> None:
        """Every ``steps_per_report`` iterations."""

    def on_evaluation(self, evaluation: Evaluation, is_best: bool) -> None:
        """Every ``steps_per_eval`` iterations and at the end, after the best adapter was saved."""


def train_adapter(
    model: Any,
    train: TrainSpec,
    examples: Sequence[Example],
    order: Iterator[tuple[int, ...]],
    evaluate: Callable[[int], Evaluation],
    folder: Path,
    callback: TrainCallback,
    *,
    frozen: FrozenBlocks | None = None,
    micro_batch: int | None = None,
    tokens_at_once: int | None = None,
    state: TrainState | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainResult:
    """Train the trainable parameters of ``model``; write the best adapter to ``folder/adapters``.

    After each evaluation the whole state is written to ``folder``. A run resumed from it ends with
    the same numbers as an uninterrupted one, on a CPU bit for bit.

    Args:
        model: See ``trainable``.
        order: The batches, as indices of ``examples``, from the first on.
        evaluate: Gives the evaluation of the model as it is, at an iteration.
        frozen: Keeps the outputs of the blocks below the trained ones, from trial to trial.
        micro_batch: Examples through the model at a time; None for each batch whole. It changes
            nothing but rounding and which values dropout drops. See ``batches.training_steps``.
        tokens_at_once: See ``loss.target_losses``.
        state: The state to resume from; see ``checkpoints.load_state``.
        should_stop: Asked when ``callback.on_iteration`` was called, and after its evaluation where
            one is due.

    Raises:
        NonFiniteLoss: Training or evaluation diverged.
        Interrupted: ``should_stop`` gave True; the state is of the last batch.
    """
    frozen = frozen or FrozenBlocks(model, budget_bytes=0)
    remove_half_written(folder)
    run = _Run(model, train, frozen, tokens_at_once, state or _first_state(model))
    done = run.progress.iteration
    steps = training_steps(train, islice(order, done, None), micro_batch, done)
    reset_peak_memory()
    while not run.is_done:
        iteration, parts = next(steps)
        n_tokens = sum(len(examples[i].tokens) - 1 for part in parts for i in part)
        run.step(iteration, [make_batch(examples, part) for part in parts], n_tokens)
        callback.on_iteration(run.progress.iteration)
        if run.is_due(train.steps_per_report):
            callback.on_report(run.report())
        if run.is_due(train.steps_per_eval):
            clear_cache()  # of training's buffers, and then of the evaluation's
            evaluation = evaluate(run.progress.iteration)
            clear_cache()
            is_best = run.note(evaluation)
            if is_best:
                save_adapter(model, train, folder / ADAPTER_DIR)
            keep_checkpoint(model, train, folder, run.progress.kept)
            callback.on_evaluation(evaluation, is_best)
            save_state(folder, train, run.state())
        if should_stop():
            if not run.is_due(train.steps_per_eval):
                save_state(folder, train, run.state())
            raise Interrupted
    return run.result()


@contextmanager
def gradient_checkpointing(model: Any) -> Iterator[None]:
    """Recompute each block's activations in the backward pass; on leaving, restore the blocks."""
    kinds = {type(layer) for layer in model.layers}
    own = {kind: vars(kind).get("__call__") for kind in kinds}  # None where it is inherited
    for kind in kinds:
        kind.__call__ = _checkpointed(kind.__call__)
    try:
        yield
    finally:
        for kind, call in own.items():
            if call is None:
                del kind.__call__
            else:
                kind.__call__ = call


@contextmanager
def trainable(model: Any, train: TrainSpec) -> Iterator[None]:
    """Adapt the model, with gradient checkpointing if asked; undo both on leaving."""
    with adapted(model, train):
        if train.grad_checkpoint is not True:
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


def _first_state(model: Any) -> TrainState:
    progress = RunProgress(random_seed=random_seed())
    adapter = utils.tree_flatten(model.trainable_parameters(), destination={})
    return TrainState(progress, adapter, {}, {}, None)


class _Run:
    """A running run: its state in memory, and its training step."""

    def __init__(
        self,
        model: Any,
        train: TrainSpec,
        frozen: FrozenBlocks,
        tokens_at_once: int | None,
        state: TrainState,
    ) -> None:
        self._model, self._train, self._frozen = model, train, frozen
        state = copy.deepcopy(state)  # the caller's state must not change
        self.progress, self._best = state.progress, state.best
        self._pending = state.pending
        self._optimizer = make_optimizer(train)
        model.update(utils.tree_unflatten(state.adapter))
        if state.optimizer:
            self._optimizer.state = utils.tree_unflatten(state.optimizer)
        model.train()
        self._optimizer.init(model.trainable_parameters())
        seed(state.progress.random_seed)
        self._step = _compile_step(model, self._optimizer, train, frozen.n_blocks, tokens_at_once)

    @property
    def is_done(self) -> bool:
        """Whether the last iteration is done, or early stopping ends the run."""
        patience = self._train.early_stopping_patience
        is_last = self.progress.iteration >= self._train.iters
        return is_last or (patience is not None and self.progress.n_since_best >= patience)

    def is_due(self, steps: int) -> bool:
        """Whether an action every ``steps`` iterations, and at the last one, is due."""
        iteration = self.progress.iteration
        return iteration % steps == 0 or iteration == self._train.iters

    def step(self, iteration: int, parts: Sequence[Batch], n_tokens: int) -> None:
        """Train up to ``iteration`` on its parts, of ``n_tokens`` real tokens."""
        now, train = self.progress, self._train
        started = time.perf_counter()
        now.iteration = iteration
        update = self.is_due(train.grad_accumulation_steps)
        now.learning_rate = learning_rate_at(train, now.n_updates)
        if update:
            set_learning_rate(self._optimizer, train, now.learning_rate)
        for number, part in enumerate(parts):
            arrays = batch_arrays(part, self._frozen, "train")
            key = step_key(train.seed, now.iteration, number)
            last = number == len(parts) - 1
            losses, grad_norm, self._pending = self._step(
                arrays, key, self._pending, update and last
            )
            trained = self._model.trainable_parameters()
            mx.eval(losses, grad_norm, self._pending, trained, self._optimizer.state)
            self._count(part, losses)
        if update:
            now.n_updates += 1
            now.grad_norm = grad_norm.item()
        now.n_tokens += n_tokens
        now.train_time_s += time.perf_counter() - started

    def _count(self, part: Batch, losses: Any) -> None:
        now, by_row = self.progress, sum_by_row(losses, part)
        if not math.isfinite(by_row.sum()):
            raise NonFiniteLoss(now.iteration)
        now.loss_sum += float(by_row.sum())
        now.n_targets += part.n_targets
        now.n_padded += part.inputs.size

    def report(self) -> StepReport:
        """The report since the last one."""
        now = self.progress
        tokens, seconds = now.n_tokens - now.reported_tokens, now.train_time_s - now.reported_time_s
        report = StepReport(
            now.iteration,
            now.n_updates,
            now.loss_sum / now.n_targets,
            now.learning_rate,
            now.grad_norm,
            tokens / seconds,
            now.n_padded / tokens,
            self._peak(),
            memory_now(),
        )
        now.loss_sum, now.n_targets, now.n_padded = 0.0, 0, 0
        now.reported_tokens, now.reported_time_s = now.n_tokens, now.train_time_s
        return report

    def note(self, evaluation: Evaluation) -> bool:
        """Record an evaluation; give whether it is the best."""
        if not math.isfinite(evaluation.val_loss):
            raise NonFiniteLoss(evaluation.iteration)
        now, loss = self.progress, evaluation.val_loss
        now.eval_time_s += evaluation.time_s
        now.kept.append((loss, evaluation.iteration))
        if now.to_improve is None or loss < now.to_improve - self._train.early_stopping_threshold:
            now.to_improve, now.n_since_best = loss, 0
        else:
            now.n_since_best += 1
        is_best = self._best is None or loss < self._best.val_loss
        if is_best:
            self._best = evaluation
        return is_best

    def state(self) -> TrainState:
        """The present state."""
        self.progress.random_seed = random_seed()
        self.progress.peak_memory_bytes = self._peak()
        return TrainState(
            self.progress,
            utils.tree_flatten(self._model.trainable_parameters(), destination={}),
            utils.tree_flatten(self._optimizer.state, destination={}),
            self._pending,
            self._best,
        )

    def result(self) -> TrainResult:
        """The result of the run."""
        now = self.progress
        assert self._best is not None
        return TrainResult(
            self._best,
            now.iteration,
            now.n_tokens,
            now.train_time_s,
            now.eval_time_s,
            self._peak(),
        )

    def _peak(self) -> int:
        return max(self.progress.peak_memory_bytes, peak_memory_bytes())


def _compile_step(
    model: Any, optimizer: Any, train: TrainSpec, n_frozen: int, tokens_at_once: int | None
) -> Callable[..., Any]:
    dropout = dropout_keys(model)

    def loss(model: Any, arrays: tuple[Any, ...], key: Any) -> tuple[Any, Any]:
        if dropout is not None:
            dropout.start_step(key)
        losses = target_losses(model, arrays, n_frozen, tokens_at_once, gradient=True)
        return losses.sum(), losses

    loss_and_gradients = nn.value_and_grad(model, loss)
    largest = train.max_grad_norm or math.inf
    state = [model.state, optimizer.state, mx.random.state]

    @partial(mx.compile, inputs=state, outputs=state)
    def step(arrays: tuple[Any, ...], key: Any, pending: Any, update: bool) -> Any:
        (_, losses), gradients = loss_and_gradients(model, arrays, key)
        gradients = utils.tree_map(lambda each: each.astype(mx.float32), gradients)
        n_targets = arrays[3].sum()
        if pending:
            # By name: on disk they lose their order, and with it the last bit of their norm.
            gradients = utils.tree_map_with_path(lambda name, each: each + pending[name], gradients)
            n_targets = n_targets + pending[_N_TARGETS]
        if not update:
            by_name = {_N_TARGETS: n_targets}
            return losses, None, utils.tree_flatten(gradients, destination=by_name)
        mean = utils.tree_map(lambda gradient: gradient / n_targets, gradients)
        clipped, norm = optim.clip_grad_norm(mean, largest)
        # Parameters keep their type: a model in 16 bit that is trained whole stays one.
        of_type = partial(utils.tree_map, lambda each, parameter: each.astype(parameter.dtype))
        optimizer.update(model, of_type(clipped, model.trainable_parameters()))
        return losses, norm, {}

    return step
