"""The plan of a sweep before it runs: whether its settings fit, how they are run, and their time.

Nothing here loads a model or MLX: shapes come from ``config.json`` or the catalogue (of an unknown
architecture from a process that builds it without weights), lengths from an earlier run of the same
data or from its texts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from hawsweep.machine.backend import Device

import numpy as np

from hawsweep.errors import MemoryBudgetError, ModelError
from hawsweep.machine import backend
from hawsweep.machine import memory as machine_memory
from hawsweep.machine.memory import Budget
from hawsweep.models import resolve
from hawsweep.models.config_file import read_config
from hawsweep.models.hub import download_command
from hawsweep.models.known_configs import KNOWN_MODELS, find_known, near
from hawsweep.planning import calibration
from hawsweep.planning.check_settings import check_batch_size, check_model, check_shape
from hawsweep.planning.chips import assumed_speed, chip_with
from hawsweep.planning.fits import MEMORY_KEYS, TIME_KEYS, extreme_settings, scoring_bytes
from hawsweep.planning.memory_parts import memory_parts
from hawsweep.planning.peak import EMBEDDER_BYTES, arrays_budget
from hawsweep.planning.trial_plan import (
    CostModel,
    Plan,
    choose_plan,
    describe,
    n_steps,
    plans,
    smallest_plan,
)
from hawsweep.planning.workload import Workload, workload
from hawsweep.search.coordinates import most_trials
from hawsweep.spec.space import SearchValue, apply_settings, values_of
from hawsweep.spec.sweep import SweepSpec
from hawsweep.spec.train import TrainSpec
from hawsweep.units import parse_size

_MACOS_BYTES = round(2.5e9)


@dataclass(frozen=True)
class Fit:
    """Whether a setting fits.

    Attributes:
        plan: The fastest that fits; None where nothing does.
        least: The plan that takes the least memory.
        seconds: Of a whole trial, without evaluations.
        tokens_per_s: Without padding.
    """

    settings: dict[str, SearchValue]
    train: TrainSpec
    plan: Plan | None
    least: Plan
    seconds: float
    tokens_per_s: float

    @property
    def how(self) -> str:
        """The plan in words."""
        return "does not fit" if self.plan is None else describe(self.plan, self.train)


@dataclass(frozen=True)
class SweepPlan:
    """A sweep as it would run.

    Attributes:
        worker_bytes: The budget of a worker process.
        arrays_bytes: The part of it for MLX's arrays.
        smallest, largest: The settings that need the least and the most memory.
        by_value: For each searched key that changes memory or time, each value, with the other keys
            at their smallest and at their largest.
        faster: The largest settings without a memory limit, if that is faster.
        scoring_bytes: MLX's arrays while the validation prompts are translated.
    """

    spec: SweepSpec
    memory: CostModel
    budget: Budget
    n_workers: int
    worker_bytes: float
    arrays_bytes: float
    work: Workload
    smallest: Fit
    largest: Fit
    by_value: dict[str, list[tuple[SearchValue, Fit, Fit]]]
    faster: Plan | None
    scoring_bytes: int

    @property
    def fits(self) -> bool:
        """Whether any setting fits, and the translations: whether ``start`` begins."""
        return self.smallest.plan is not None and self.scoring_bytes <= self.arrays_bytes

    def epochs(self, train: TrainSpec) -> float:
        """How often a trial with these settings sees each of its examples."""
        n = len(self.work.lengths)
        n_examples = min(train.max_train_samples or n, n) * train.augment.growth
        n_examples *= self.work.mean_weight
        return train.iters * train.batch_size / n_examples

    @property
    def n_again(self) -> int:
        """Runs with new seeds."""
        return min(self.spec.confirm.top, most_trials(self.spec)) * self.spec.confirm.seeds


def plan_sweep(
    spec: SweepSpec,
    *,
    ram: str | None = None,
    data_pairs: int | None = None,
    device: Device | None = None,
) -> SweepPlan:
    """Plan a sweep for this machine or for another one.

    Args:
        ram: The memory of another machine, such as ``32GB``; with a known Metal model a Mac's.
        data_pairs: Plan for this many examples of the longest kind, instead of the data.

    Raises:
        ModelError: The model's shape is not known, or it cannot be trained as the sweep says.
        DataError: The data has fewer examples than a batch.
        MemoryBudgetError: The budget makes no sense for this model.
    """
    check_model(spec, known_config(spec.model))
    device = device or ("metal" if ram else backend.device_here())
    machine = machine_memory.this_machine() if ram is None else other_machine(ram, device)
    known = known_memory(spec, device, None if ram is None else chip_with(machine.total_bytes))
    budget = machine_memory.find_budget(spec.memory.budget, spec.memory.reserve, machine=machine)
    check_shape(spec, known.shape)
    work = workload(spec, data_pairs)
    if data_pairs is None:
        check_batch_size(spec, len(work.lengths))
    n_workers, each = share(spec, known, work, budget)
    arrays = arrays_budget(each, known.coefficients)
    smallest = _fit(known, spec, work, arrays, extreme_settings(known, spec, work, largest=False))
    largest = _fit(known, spec, work, arrays, extreme_settings(known, spec, work, largest=True))
    fastest = plans(known, largest.train, work)[0]
    chosen = largest.plan or largest.least
    return SweepPlan(
        spec,
        known,
        budget,
        n_workers,
        each,
        arrays,
        work,
        smallest,
        largest,
        dict(_by_value(known, spec, work, arrays, smallest.settings, largest.settings)),
        fastest if fastest.seconds < chosen.seconds else None,
        scoring_bytes(spec, known, work),
    )


def plan_models(
    spec: SweepSpec,
    *,
    ram: str | None = None,
    data_pairs: int | None = None,
    device: Device | None = None,
) -> list[SweepPlan]:
    """A plan for each model of a sweep, as if all trials trained it, with the number of workers
    that the models share; see ``plan_sweep``.
    """

    def plan_with(n_workers: int | Literal["auto"]) -> list[SweepPlan]:
        shared = spec.model_copy(update={"workers": n_workers})
        return [
            plan_sweep(shared.of_model(model), ram=ram, data_pairs=data_pairs, device=device)
            for model in spec.models
        ]

    plans = plan_with(spec.workers)
    n_workers = min((each.n_workers for each in plans if each.fits), default=1)
    if all(each.n_workers == n_workers for each in plans):
        return plans
    return plan_with(n_workers)


def known_memory(spec: SweepSpec, device: Device, chip: str | None = None) -> CostModel:
    """The memory model of a sweep's model: calibrated here, or by its shape.

    Args:
        chip: Of another Mac, which it is planned for.

    Raises:
        ModelError: It is not on this machine, and its shape is not known.
    """
    path = resolve.find_model(spec.model)
    if path is not None and device == backend.device_here():
        found = calibration.cost_model(path)
        if found is not None:
            is_other = chip is not None and device == "metal"
            return replace(found, speed=assumed_speed(device, chip)) if is_other else found
    shape = calibration.find_shape(known_config(spec.model), device)
    return calibration.uncalibrated(shape, device, chip)


def known_config(model: str) -> Mapping[str, Any]:
    """A model's config: of its files, or from the catalogue.

    Raises:
        ModelError: It is neither here nor known.
    """
    path = resolve.find_model(model)
    config = find_known(model) if path is None else read_config(path)
    if config is None:
        known = near(model) or f" Known without weights: {', '.join(sorted(KNOWN_MODELS))}."
        raise ModelError(
            f"The model {model!r} is not here, and its shape is not known.{known} Give a folder "
            f"with a config.json, or download it{download_command(model)}."
        )
    return config


def other_machine(ram: str, device: Device) -> machine_memory.Machine:
    """An idle machine with this much memory.

    A Mac's GPU may take what ``gpu_of_a_mac`` says; macOS itself is assumed to need 2.5 GB.

    Raises:
        MemoryBudgetError: That is no size.
    """
    try:
        total = parse_size(ram)
    except ValueError as fault:
        raise MemoryBudgetError(f"--ram is {ram!r}: {fault}.") from fault
    name = f"a machine with {ram}"
    if device != "metal":
        return machine_memory.Machine(total, total, device=name)
    gpu = machine_memory.gpu_of_a_mac(total)
    free = max(0, total - _MACOS_BYTES)
    return machine_memory.Machine(total, free, gpu_bytes=gpu, device=name)


def share(spec: SweepSpec, known: CostModel, work: Workload, budget: Budget) -> tuple[int, float]:
    """The number of workers, and the bytes of each.

    With ``workers: auto`` it is the number that calibration found worth it; without a calibration
    one on a GPU, and one a core on a CPU. Each keeps enough memory for every setting that a
    single worker could run.
    """
    if spec.workers != "auto":
        return spec.workers, worker_bytes(budget, spec.workers)
    assumed = machine_memory.usable_cores() if known.device == "cpu" else 1
    most = min(known.speed.n_workers or assumed, most_trials(spec))
    largest = apply_settings(spec.train, extreme_settings(known, spec, work, largest=True))
    smallest = apply_settings(spec.train, extreme_settings(known, spec, work, largest=False))
    for n_workers in range(most, 1, -1):
        each = worker_bytes(budget, n_workers)
        alone = arrays_budget(worker_bytes(budget, 1), known.coefficients)
        arrays = arrays_budget(each, known.coefficients)
        wanted = [
            train
            for train in (smallest, largest)
            if choose_plan(known, train, work, alone) is not None
        ]
        if wanted and all(choose_plan(known, train, work, arrays) for train in wanted):
            return n_workers, each
    return 1, worker_bytes(budget, 1)


def worker_bytes(budget: Budget, n_workers: int) -> float:
    """The bytes of each of ``n_workers`` workers, which share one embedder."""
    return max(0.0, budget.total_bytes - EMBEDDER_BYTES) / n_workers


def _fit(
    known: CostModel,
    spec: SweepSpec,
    work: Workload,
    arrays_bytes: float,
    settings: dict[str, SearchValue],
) -> Fit:
    train = apply_settings(spec.train, settings)
    work = work.cut(train.max_seq_length)
    plan = choose_plan(known, train, work, arrays_bytes)
    least = smallest_plan(known, train, work)
    # The longest examples' time, scaled to the mean ones' but for what each step takes besides.
    scale = work.mean_trained / float(np.sort(work.lengths)[-train.batch_size :].mean())
    chosen = plan or least
    step_s = known.speed.step_s * n_steps(train, chosen.execution.micro_batch)
    batch_s = step_s + (chosen.seconds - step_s) * scale
    rate = train.batch_size * work.mean_trained / batch_s if batch_s else 0.0
    return Fit(settings, train, plan, least, batch_s * train.iters, rate)


def _by_value(
    known: CostModel,
    spec: SweepSpec,
    work: Workload,
    arrays_bytes: float,
    smallest: dict[str, SearchValue],
    largest: dict[str, SearchValue],
) -> Iterator[tuple[str, list[tuple[SearchValue, Fit, Fit]]]]:
    for key, asked in spec.search.items():
        if key not in (*MEMORY_KEYS, *TIME_KEYS):
            continue
        rows = []
        for value in dict.fromkeys(values_of(key, asked)):
            ends = [
                _fit(known, spec, work, arrays_bytes, {**others, key: value})
                for others in (smallest, largest)
            ]
            rows.append((value, ends[0], ends[1]))
        yield key, rows


def to_plain(plan: SweepPlan) -> dict[str, Any]:
    """A sweep's plan as plain values, for ``--json``."""

    def verdict(each: Fit) -> dict[str, Any]:
        least = each.least
        return {
            "settings": each.settings,
            "fits": each.plan is not None,
            "how": each.how,
            "peak_bytes": (each.plan or least).peak_bytes,
            "needed_bytes": (each.plan or least).needed_bytes,
            "tokens_per_s": round(each.tokens_per_s, 1),
            "seconds": round(each.seconds, 1),
        }

    return {
        "model": plan.spec.model,
        "device": plan.memory.device,
        "memory_model": plan.memory.how,
        "error": plan.memory.error,
        "speed": plan.memory.speed.how,
        "budget_bytes": plan.budget.total_bytes,
        "budget": plan.budget.how,
        "workers": plan.n_workers,
        "worker_bytes": round(plan.worker_bytes),
        "arrays_bytes": round(plan.arrays_bytes),
        "lengths": plan.work.how,
        "longest": int(plan.work.lengths.max()),
        "examples": len(plan.work.lengths),
        **{
            name: {
                **verdict(end),
                "iters": end.train.iters,
                "epochs": round(plan.epochs(end.train), 3),
                "memory": memory_parts(plan, end),
            }
            for name, end in (("smallest", plan.smallest), ("largest", plan.largest))
        },
        "search": {
            key: [
                {"value": value, "smallest": verdict(low), "largest": verdict(high)}
                for value, low, high in rows
            ]
            for key, rows in plan.by_value.items()
        },
        "scoring_bytes": plan.scoring_bytes,
    }
