"""The number and size of trials that fit into the time."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hawsweep.data.batches import validation_size
from hawsweep.errors import MemoryBudgetError, SpecError
from hawsweep.planning.fits import check_fits, scoring_bytes
from hawsweep.planning.sweep_plan import Fit, SweepPlan, plan_sweep
from hawsweep.planning.sweep_time import Timing, generation_s, time_sweep
from hawsweep.prepare.inspect_data import DataView
from hawsweep.spec.read import check_sweep
from hawsweep.spec.sweep import SweepSpec

# The planned share of the time asked: estimates are not more exact.
PLANNED_SHARE = 0.9
ENOUGH_TRIALS, FEWEST_TRIALS = 10, 3
_MOST_TRIALS = 30
# The least share of the wanted iterations; longer trials only if there is time for many.
_FRACTIONS = (2.0, 1.0, 0.75, 0.5, 0.35, 0.25, 0.15)
_EVALUATIONS, _FEW_EVALUATIONS = 8, 5
_FEWEST_VALIDATION = 32
# The share of the whole time for the translations of baselines and test.
_BASELINES_SHARE = 0.15
# Room for the examples in a baseline's prompt, if it is cheap.
_SHOWN, _WIDTH_FOR_SHOWN = 4, 1024
# Tokens without padding that a batch should have to keep a device busy.
_TOKENS_A_BATCH = 200
_WIDTHS = (64, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 8192)
# A data set with fewer records is small: few iterations, high rates, many seeds.
_SMALL = 100
_ROUND = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
# The time for answers, as a share of a trial's training.
_ANSWERS_SHARE = 0.2
_PROMPTS = (128, 96, 64, 48, 32, 24, 16)


@dataclass(frozen=True)
class Basis:
    """The facts that a sweep is designed for.

    Attributes:
        data: The value of the sweep's key ``data``.
        rate: The learning rate that published sweeps suggest for the model.
        narrowest: Width of the narrowest layer that may be adapted; no rank is above it.
        width: ``max_seq_length``.
        seconds: The time asked.
        n_layers: The model's blocks.
    """

    model: str
    data: str | Mapping[str, Any]
    view: DataView
    rate: float
    narrowest: int
    width: int
    batch_size: int
    seconds: float
    n_layers: int

    @property
    def n_train(self) -> int:
        """Training records."""
        return self.view.count("train")

    @property
    def n_valid(self) -> int:
        """Validation records."""
        return self.view.count("valid")

    @property
    def is_small(self) -> bool:
        """Whether the data set is small."""
        return self.n_train < _SMALL

    @property
    def epochs(self) -> int:
        """The most epochs in the wanted iterations."""
        return min(10, max(1, math.ceil(1500 / self.n_train)))

    @property
    def answer_tokens(self) -> float:
        """Tokens of a long reference."""
        return float(np.quantile(self.view.n_targets, 0.98))


@dataclass(frozen=True)
class Design:
    """A sweep of a certain size.

    Attributes:
        steps: Iterations between evaluations.
        content: Its keys and values, without the timeout.
    """

    layers: int
    iters: int
    steps: int
    n_trials: int
    top: int
    seeds: int
    content: Mapping[str, Any]
    plan: SweepPlan
    timing: Timing


def choose_width(view: DataView) -> int:
    """The smallest usual width that cuts no example; if only a few are long, one that cuts them; if
    all are short, one with room for a few before a question.
    """
    longest, most = int(view.lengths.max()), float(np.quantile(view.lengths, 0.99))
    with_shown = longest + _SHOWN * float(view.lengths.mean())
    whole, nearly, roomy = (
        next((width for width in _WIDTHS if width >= n), _WIDTHS[-1])
        for n in (longest, most, with_shown)
    )
    return nearly if whole > 2 * nearly else max(whole, min(roomy, _WIDTH_FOR_SHOWN))


def choose_batch(view: DataView, width: int) -> int:
    """Examples in a batch: enough tokens to keep a device busy, and at least eight batches."""
    mean = float(np.minimum(view.lengths, width).mean())
    wanted = 2 ** round(math.log2(max(1.0, _TOKENS_A_BATCH / mean)))
    return int(max(1, min(8, wanted, view.count("train") // 8)))


def choose_design(basis: Basis) -> Design:
    """The most trained blocks, then the most iterations, that leave time for enough trials.

    Raises:
        MemoryBudgetError: Nothing fits.
        SpecError: The time is too short for three trials; the message says how much is enough.
    """
    largest: Design | None = None
    planned_s = basis.seconds * PLANNED_SHARE
    fault: MemoryBudgetError | None = None
    for layers in (-1, *(fewer for fewer in (16, 8) if fewer < basis.n_layers)):
        try:
            plan = _plan(basis, layers)
        except MemoryBudgetError as error:
            fault = error
            continue
        for fraction in _FRACTIONS:
            found = _fill(basis, plan, layers, fraction)
            enough = 2 * ENOUGH_TRIALS if fraction > 1 else ENOUGH_TRIALS
            # All blocks, if that costs no more than half of the iterations.
            if found.n_trials >= enough and (layers != -1 or fraction >= 0.5):
                return found
            if (
                largest is None
                or found.n_trials > largest.n_trials
                or planned_s < largest.timing.total_s > found.timing.total_s
            ):
                largest = found
    if largest is None:
        assert fault is not None
        raise MemoryBudgetError(
            f"{fault} `hawsweep init` has no option for a budget or a length: use a smaller model, "
            "or write a sweep with these keys yourself.",
            fault.short_bytes,
        ) from fault
    if largest.timing.total_s > planned_s:
        hours = math.ceil(largest.timing.total_s / PLANNED_SHARE / 360) / 10
        raise SpecError(
            f"{basis.seconds / 3600:g} hours are too short for {FEWEST_TRIALS} trials of "
            f"{basis.model}, each of {largest.iters} iterations. Give --hours {hours:g} or more, "
            "or a smaller model."
        )
    return largest


def spec_of(content: Mapping[str, Any]) -> SweepSpec:
    """The checked sweep of ``content``."""
    return check_sweep(dict(content), "the drafted sweep")


def _plan(basis: Basis, layers: int) -> SweepPlan:
    """The plan with the largest rank that fits."""
    for n_ranks in range(len(_ranks(basis, ENOUGH_TRIALS)), 0, -1):
        content = _content(basis, layers, 80, 10, ENOUGH_TRIALS, (2, 1), n_ranks)
        plan = plan_sweep(spec_of(content))
        if plan.largest.plan is not None:
            return plan
    check_fits(plan.spec, plan.memory, plan.work, plan.arrays_bytes)
    return plan


def _fill(basis: Basis, plan: SweepPlan, layers: int, fraction: float) -> Design:
    """The size with the most trials that fit the time, or with the fewest allowed."""
    wanted = basis.epochs * basis.n_train / basis.batch_size * fraction
    n_evaluations = _EVALUATIONS if wanted >= 200 else _FEW_EVALUATIONS
    steps = _round_down(wanted / n_evaluations)
    iters = steps * n_evaluations
    n_ranks = len(plan.spec.search["lora_parameters.rank"].choices)  # type: ignore[union-attr]

    def design(n_trials: int, most_prompts: int) -> Design:
        again = (3, 2) if basis.is_small and n_trials >= 8 else (2, 1) if n_trials >= 8 else (0, 1)
        content = _content(
            basis, layers, iters, steps, n_trials, again, n_ranks, plan, most_prompts
        )
        resized = _resized(plan, spec_of(content))
        timing = time_sweep(resized, basis.n_valid, basis.view.count("test"), basis.answer_tokens)
        return Design(layers, iters, steps, n_trials, *again, content, resized, timing)

    for most_prompts in _PROMPTS:
        found = design(FEWEST_TRIALS, most_prompts)
        if found.timing.baselines_s <= _BASELINES_SHARE * basis.seconds:
            break
    fits, fails = FEWEST_TRIALS, _MOST_TRIALS + 1
    while fails - fits > 1:  # more trials take longer
        n_trials = (fits + fails) // 2
        larger = design(n_trials, most_prompts)
        if larger.timing.total_s <= basis.seconds * PLANNED_SHARE:
            fits, found = n_trials, larger
        else:
            fails = n_trials
    return found


def _resized(plan: SweepPlan, spec: SweepSpec) -> SweepPlan:
    """The plan of the same settings with other iterations and counts; its memory is the same."""

    def fit(each: Fit) -> Fit:
        train = each.train.model_copy(update={"iters": spec.train.iters})
        return replace(each, train=train, seconds=each.seconds / each.train.iters * train.iters)

    return replace(plan, spec=spec, smallest=fit(plan.smallest), largest=fit(plan.largest))


def _content(
    basis: Basis,
    layers: int,
    iters: int,
    steps: int,
    n_trials: int,
    again: tuple[int, int],
    n_ranks: int,
    plan: SweepPlan | None = None,
    most_prompts: int = _PROMPTS[-1],
) -> dict[str, Any]:
    train: dict[str, Any] = {
        "batch_size": basis.batch_size,
        "iters": iters,
        "steps_per_eval": steps,
        "num_layers": layers,
        "max_seq_length": basis.width,
        "mask_prompt": True,
        "optimizer_config": {"adam": {"bias_correction": True}},
        "lora_parameters": {"alpha": 32},
    }
    if iters * basis.batch_size > 2 * basis.n_train:
        train["early_stopping_patience"] = 3
    low, high = _rates(basis, iters)
    ranks = _ranks(basis, n_trials)
    if n_ranks < len(_ranks(basis, ENOUGH_TRIALS)):  # memory is short
        ranks = ranks[:n_ranks]
    lengths = np.minimum(basis.view.lengths, basis.width)
    evaluated = max(
        min(_FEWEST_VALIDATION, basis.n_valid),
        validation_size(lengths, np.resize(lengths, basis.n_valid), basis.batch_size, steps),
    )
    return {
        "model": basis.model,
        "data": basis.data,
        "train": train,
        "search": {
            "learning_rate": {"low": low, "high": high, "log": True},
            "lora_parameters.rank": {"choices": ranks},
        },
        "memory": {"budget": "auto"},
        "validation": {"max_examples": evaluated},
        "scoring": {
            "metric": "semantic_similarity",
            "max_examples": _prompts(basis, plan, iters, most_prompts),
            "max_tokens": max(16, 8 * math.ceil(1.25 * basis.answer_tokens / 8)),
            "batch_size": _answers_at_once(plan),
        },
        "confirm": {"top": again[0], "seeds": again[1]},
        "trials": n_trials,
    }


def _ranks(basis: Basis, n_trials: int) -> list[int]:
    wanted = [4, 8, 16] if basis.is_small else [8, 16, 32]
    if n_trials >= 16 and not basis.is_small:
        wanted.append(64)
    return [rank for rank in wanted if rank <= basis.narrowest] or [basis.narrowest]


def _rates(basis: Basis, iters: int) -> tuple[float, float]:
    """A range around the suggested rate; higher for few updates."""
    below, above = (4, 6) if basis.is_small else (10, 3) if iters < 150 else (20, 3)
    high = min(0.01, nice(basis.rate * above))
    return min(nice(basis.rate / below), high / 2), high


def _prompts(basis: Basis, plan: SweepPlan | None, iters: int, most: int) -> int:
    """The number of validation prompts that take at most a part of a trial's time."""
    fewest = min(_PROMPTS[-1], basis.n_valid)
    if plan is None:
        return fewest
    train_s = plan.smallest.seconds / plan.smallest.train.iters * iters
    source = float((basis.view.lengths - basis.view.n_targets).mean())
    rows = _answers_at_once(plan)
    for count in _PROMPTS:
        count = min(count, most, basis.n_valid)
        took = generation_s(plan.memory, count, rows, source, basis.answer_tokens)
        if took <= _ANSWERS_SHARE * train_s:
            return count
    return fewest


def _answers_at_once(plan: SweepPlan | None) -> int:
    """The most prompts at a time, up to 16, that fit into memory."""
    if plan is None:
        return 1
    for rows in (16, 8, 4, 2):
        needed = scoring_bytes(plan.spec, plan.memory, plan.work, rows)
        if needed <= plan.arrays_bytes:
            return rows
    return 1


def nice(value: float) -> float:
    """The nearest of 1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return float(f"{min((*_ROUND, 10), key=lambda n: abs(n - value / power)) * power:.3g}")


def _round_down(value: float) -> int:
    """The largest round whole number up to one."""
    powers = range(len(str(int(value))))
    numbers = (n * 10**power for power in powers for n in _ROUND)
    return max((int(n) for n in numbers if n <= value and n % 1 == 0), default=1)
