"""The execution plan of a trial: the fastest that fits into memory, with the same result.

A plan changes time and memory, never the result: micro-batches whose gradients are added up,
accumulated batches that run as one, gradient checkpointing, and how many tokens go through the head
at a time.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from hawsweep.machine.backend import Device

from hawsweep.data.batches import n_joined, padded_width, split
from hawsweep.models.shape import ModelShape
from hawsweep.planning.peak import (
    FEWEST_TOKENS,
    Coefficients,
    Execution,
    Step,
    evaluation_peak,
    slice_tokens,
    training_peak,
)
from hawsweep.planning.workload import Workload
from hawsweep.spec.sweep import SweepSpec
from hawsweep.spec.train import TrainSpec

# An evaluation keeps one block's activations, training those of all blocks: this many times the
# tokens of a training batch still take less memory.
_EVALUATION_FACTOR = 4
# Smaller slices are tried if memory is short.
_SLICE_PARTS = (1, 4)
# The most extra time for splitting a batch or a slice, which makes more and smaller products. It is
# assumed; it decides between plans that are otherwise equally fast.
_PART_COST = 0.02
# The further cost of each step, in padded tokens: weights are read however few the tokens. On a CPU
# it is measured: four rows of 40 tokens as one, with a tenth more padding, take 0.7 of the time
# (bench_training.py). On a GPU it is assumed, and low.
_STEP_TOKENS: dict[Device, int] = {"cpu": 40, "metal": 64, "cuda": 64}
# Accumulated batches run as one only where this share of the time is saved by that: the number
# above is rough, and outputs of the frozen blocks that are kept for a batch are of no use to a
# trial that runs it together with others.
_LEAST_SAVED = 0.1
# More rows at a time save nothing more, and a trial that is asked to stop ends after them.
_MOST_JOINED_ROWS = 64


@dataclass(frozen=True)
class Speed:
    """The training speed of a model on a device.

    Attributes:
        flops: Floating-point operations a second.
        step_s: Further seconds of each step.
        how: The origin of these numbers.
        n_workers: The number of workers worth running at a time; None if not measured.
        bandwidth: Bytes a second at which weights are read where few tokens are computed at a time.
    """

    flops: float
    step_s: float
    how: str
    n_workers: int | None = None
    bandwidth: float = math.inf

    def seconds(
        self, shape: ModelShape, train: TrainSpec, step: Step, execution: Execution
    ) -> float:
        """The time of one step."""
        return self.step_s + step_flops(shape, train, step, execution) / self.flops


def step_flops(shape: ModelShape, train: TrainSpec, step: Step, execution: Execution) -> float:
    """Floating-point operations of a step: all blocks forward; the trained ones backward by their
    activations, checkpointed ones forward again; the head forward and backward.
    """
    n_trained = shape.n_trained_blocks(train)
    block = 2 * shape.block_products
    block += 4 * step.width * shape.n_heads * shape.head_dim
    backward = 2 if train.fine_tune_type == "full" else 1
    n_passes = shape.n_layers + n_trained * (backward + execution.grad_checkpoint)
    head = 4 * step.n_targets * shape.hidden_size * shape.vocabulary
    return float(step.n_tokens * block * n_passes + head)


@dataclass(frozen=True)
class CostModel:
    """A model's memory and speed on a device, for predictions.

    Attributes:
        error: Relative error band; a plan must fit with it added.
        how: The origin of the coefficients.
        is_calibrated: Whether this model was measured on this machine.
        under_load: Whether other programs used the cores meanwhile, so that it seems slower.
    """

    shape: ModelShape
    device: Device
    coefficients: Coefficients
    speed: Speed
    how: str
    is_calibrated: bool = False
    under_load: bool = False

    @property
    def error(self) -> float:
        """The relative error band of a predicted peak."""
        return self.coefficients.error


@dataclass(frozen=True)
class Plan:
    """A plan with its memory and time.

    Attributes:
        peak_bytes: Predicted, of MLX's arrays.
        needed_bytes: The same with the error band; this must be free.
        seconds: Of one batch of the longest examples; of batches that run as one, its share.
    """

    execution: Execution
    peak_bytes: int
    needed_bytes: int
    seconds: float


def plans(model: CostModel, train: TrainSpec, work: Workload) -> list[Plan]:
    """All plans of a trial, fastest first."""
    work = work.cut(train.max_seq_length)
    found = [_plan(model, train, work, each) for each in executions(model, train)]
    found += _joined(model, train, work, found)
    return sorted(found, key=lambda plan: (plan.seconds, plan.needed_bytes))


def _plan(model: CostModel, train: TrainSpec, work: Workload, execution: Execution) -> Plan:
    step = work.largest_step(train.batch_size, execution.micro_batch)
    peak = training_peak(model.shape, train, step, execution, model.coefficients).total
    n_parts = len(split(range(train.batch_size), execution.micro_batch))
    whole = slice_tokens(model.shape.vocabulary, model.device)
    n_slices = whole // (execution.tokens_at_once or whole)
    seconds = n_parts * model.speed.seconds(model.shape, train, step, execution)
    seconds *= 1 + _PART_COST * (2 - 1 / n_parts - 1 / n_slices)
    return Plan(execution, peak, round(peak * (1 + model.error)), seconds)


def _joined(
    model: CostModel, train: TrainSpec, work: Workload, alone: Sequence[Plan]
) -> Iterator[Plan]:
    """The plans that run several batches of an update as one and are faster for it."""
    sizes = _joined_sizes(train)
    if not sizes:
        return
    before = _cost(work.typical_steps(train, train.batch_size), model.device)
    for size in sizes:
        share = _cost(work.typical_steps(train, size), model.device) / before
        if share > 1 - _LEAST_SAVED:
            continue
        for plan in alone:
            if plan.execution.micro_batch == train.batch_size:
                joined = _plan(model, train, work, replace(plan.execution, micro_batch=size))
                yield replace(joined, seconds=share * plan.seconds)


def _joined_sizes(train: TrainSpec) -> list[int]:
    """The rows of an update's batches as one: of all, half, a quarter and so on."""
    if train.lora_parameters.dropout > 0:
        return []  # the values dropped would be others
    n_batches, sizes = train.grad_accumulation_steps, []
    while n_batches > 1:
        if (rows := n_batches * train.batch_size) <= _MOST_JOINED_ROWS:
            sizes.append(rows)
        n_batches = -(-n_batches // 2)
    return sizes


def _cost(steps: Sequence[Step], device: Device) -> int:
    """The time of several steps, in padded tokens."""
    return sum(step.n_tokens + _STEP_TOKENS[device] for step in steps)


def n_steps(train: TrainSpec, micro_batch: int) -> float:
    """Steps of a batch: its parts, or its share where several batches run as one."""
    n_parts = len(split(range(train.batch_size), micro_batch))
    return n_parts / n_joined(train, micro_batch)


def choose_plan(
    model: CostModel,
    train: TrainSpec,
    work: Workload,
    budget_bytes: float,
    below_bytes: float | None = None,
) -> Plan | None:
    """The fastest plan that fits; None if none fits.

    Args:
        budget_bytes: For MLX's arrays.
        below_bytes: Only plans with a lower prediction, because a plan of this size ran out.
    """
    for plan in plans(model, train, work):
        if plan.needed_bytes <= budget_bytes and (
            below_bytes is None or plan.peak_bytes < below_bytes
        ):
            return plan
    return None


def smallest_plan(model: CostModel, train: TrainSpec, work: Workload) -> Plan:
    """The plan that takes the least memory."""
    return min(plans(model, train, work), key=lambda plan: plan.needed_bytes)


def executions(model: CostModel, train: TrainSpec) -> list[Execution]:
    """The plans of a trial that differ in memory or time, each batch alone."""
    sizes = {len(split(range(train.batch_size), m)[0]) for m in range(1, train.batch_size + 1)}
    asked = train.grad_checkpoint
    checkpointing = (False, True) if asked == "auto" else (bool(asked),)
    whole = slice_tokens(model.shape.vocabulary, model.device)
    slices = [max(FEWEST_TOKENS, whole // part) for part in _SLICE_PARTS]
    ways = product(sorted(sizes, reverse=True), checkpointing, slices)
    return [Execution(*each) for each in ways]


def most_evaluated(spec: SweepSpec) -> int:
    """The most examples that are evaluated at a time."""
    asked = spec.validation.batch_size
    return _EVALUATION_FACTOR * spec.ends_of("batch_size")[0] if asked == "auto" else asked


def evaluation_tokens(
    model: CostModel, work: Workload, execution: Execution, budget_bytes: float, most_rows: int
) -> int:
    """The padded tokens that an evaluation may take at a time: as many as fit, at most
    ``most_rows`` times the longest example, at least the longest example.
    """
    width = padded_width(int(work.lengths.max()) - 1)

    def needed_bytes(rows: int) -> float:
        step = Step(rows, width, rows * int(work.n_targets.max()))
        peak = evaluation_peak(model.shape, step, execution.tokens_at_once, model.coefficients)
        return peak * (1 + model.error)

    n_fitting = bisect_right(range(1, most_rows + 1), budget_bytes, key=needed_bytes)
    return max(1, n_fitting) * width


def describe(plan: Plan, train: TrainSpec) -> str:
    """A plan in a few words: ``2 at a time, checkpointed``, ``4 batches as one``."""
    micro = plan.execution.micro_batch
    n_batches = n_joined(train, micro)
    how = "whole" if n_batches == 1 else f"{n_batches} batches as one"
    how = f"{micro} at a time" if micro < train.batch_size else how
    return f"{how}, checkpointed" if plan.execution.grad_checkpoint else how
