"""What a sweep will need before it runs: whether its settings fit, how, and how long they take.

Nothing here loads a model or MLX: shapes come from ``config.json`` or the catalogue, lengths from
an earlier run of the same data or from its texts.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hawsweep.backend import Device

import numpy as np
import numpy.typing as npt

from hawsweep import backend, calibration, catalogue, memory, models
from hawsweep.data import is_local, load_data
from hawsweep.errors import MemoryBudgetError, ModelError
from hawsweep.files import replacing
from hawsweep.memory import Budget
from hawsweep.peak import EMBEDDER_BYTES, arrays_budget, generation_peak
from hawsweep.planning import (
    MemoryModel,
    Plan,
    Workload,
    assumed_workload,
    choose_plan,
    describe,
    plans,
    smallest_plan,
)
from hawsweep.settings import apply_settings, corners, values_of
from hawsweep.shapes import read_config, shape_of
from hawsweep.spec import SearchValue, SweepSpec
from hawsweep.trainspec import TrainSpec

# What of a trial's settings changes its memory.
MEMORY_KEYS = (
    "fine_tune_type",
    "batch_size",
    "num_layers",
    "optimizer",
    "lora_parameters.rank",
)
_TIME_KEYS = ("iters", "grad_accumulation_steps")
# Tokens of a text that was not tokenized: so many characters each, and the chat template's own.
_CHARACTERS_A_TOKEN = 2.8
_TEMPLATE_TOKENS = 20
# Of data that is not here: enough for any batch.
_ASSUMED_EXAMPLES = 1000
_ASSUMED_HELD_OUT = 100


@dataclass(frozen=True)
class Fit:
    """Whether a setting fits.

    Attributes:
        plan: The fastest that fits; None where nothing does.
        least: The plan that takes the least memory.
        seconds: Of a whole trial, without evaluations.
        tokens_per_s: Real tokens.
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
        worker_bytes: What a worker process may take.
        arrays_bytes: What of it MLX's arrays may.
        smallest, largest: The settings that need the least and the most memory.
        by_value: For each searched key that matters, each value with the others at their smallest
            and at their largest.
        faster: The largest settings with no limit to memory, where that is faster.
        scoring_bytes: What translating the validation prompts takes, of MLX's arrays.
    """

    spec: SweepSpec
    memory: MemoryModel
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
        """Whether anything does."""
        return self.smallest.plan is not None

    @property
    def n_again(self) -> int:
        """Runs with new seeds."""
        return min(self.spec.confirm.top, self.spec.trials) * self.spec.confirm.seeds


def plan_sweep(
    spec: SweepSpec,
    *,
    ram: str | None = None,
    data_pairs: int | None = None,
    max_seq_length: int | None = None,
    device: Device | None = None,
) -> SweepPlan:
    """Plan a sweep for this machine, or for another that is not here.

    Args:
        ram: The memory of another machine, such as ``32GB``; with a known Metal model a Mac's.
        data_pairs: Plan for so many examples of the longest kind, instead of the data.
        max_seq_length: Instead of the sweep's.

    Raises:
        ModelError: The model's shape is not known.
        MemoryBudgetError: The budget makes no sense for this model.
    """
    if max_seq_length is not None:
        spec = spec.model_copy(
            update={"train": spec.train.model_copy(update={"max_seq_length": max_seq_length})}
        )
    known = known_memory(spec, device or ("metal" if ram else backend.device_here()))
    machine = memory.this_machine() if ram is None else other_machine(ram, known.device)
    budget = memory.find_budget(spec.memory.budget, spec.memory.reserve, machine=machine)
    work = workload(spec, data_pairs)
    n_workers, each = share(spec, known, work, budget)
    arrays = arrays_budget(each, known.coefficients)
    smallest = _fit(known, spec, work, arrays, _extreme(known, spec, work, largest=False))
    largest = _fit(known, spec, work, arrays, _extreme(known, spec, work, largest=True))
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
    max_seq_length: int | None = None,
    device: Device | None = None,
) -> list[SweepPlan]:
    """A plan for each model of a sweep, as if all trials were its, with as many workers as there
    are where the models share a study; see ``plan_sweep``.
    """

    def plan_with(n_workers: int | Literal["auto"]) -> list[SweepPlan]:
        shared = spec.model_copy(update={"workers": n_workers})
        return [
            plan_sweep(
                shared.of_model(model),
                ram=ram,
                data_pairs=data_pairs,
                max_seq_length=max_seq_length,
                device=device,
            )
            for model in spec.models
        ]

    plans = plan_with(spec.workers)
    n_workers = min((each.n_workers for each in plans if each.fits), default=1)
    if all(each.n_workers == n_workers for each in plans):
        return plans
    return plan_with(n_workers)


def check_fits(spec: SweepSpec, known: MemoryModel, work: Workload, arrays_bytes: float) -> None:
    """Refuse a sweep of which no setting fits.

    Raises:
        MemoryBudgetError: The message says what would help.
    """
    settings = _extreme(known, spec, work, largest=False)
    train = apply_settings(spec.train, settings)
    least = smallest_plan(known, train, work)
    if least.needed_bytes <= arrays_bytes:
        _check_scoring(spec, known, work, arrays_bytes)
        return
    weights = known.shape.weight_bytes()
    raise MemoryBudgetError(
        f"No setting of this sweep fits: the smallest needs {_gb(least.needed_bytes)} for its "
        f"arrays ({_gb(weights)} of it weights), and the budget leaves "
        f"{_gb(max(0.0, arrays_bytes))}. {_what_would(known, train, work, arrays_bytes)}",
        least.needed_bytes - arrays_bytes,
    )


def _check_scoring(
    spec: SweepSpec, known: MemoryModel, work: Workload, arrays_bytes: float
) -> None:
    needed = scoring_bytes(spec, known, work)
    if needed <= arrays_bytes:
        return
    asked = spec.scoring.batch_size
    fitting = [
        rows for rows in range(1, asked) if scoring_bytes(spec, known, work, rows) <= arrays_bytes
    ]
    would = f"scoring.batch_size: {fitting[-1]}" if fitting else "a smaller scoring.max_tokens"
    raise MemoryBudgetError(
        f"Translating {asked} prompts at a time needs {_gb(needed)}, and the budget leaves "
        f"{_gb(max(0.0, arrays_bytes))}. Use {would}, or raise memory.budget.",
        needed - arrays_bytes,
    )


def scoring_bytes(
    spec: SweepSpec, known: MemoryModel, work: Workload, rows: int | None = None
) -> int:
    """What answering the validation prompts takes at most, with the error band; ``rows`` at a time,
    by default as many as the sweep says.
    """
    rows = min(rows or spec.scoring.batch_size, spec.scoring.max_examples)
    shown = spec.scoring.prompt.examples * work.mean_tokens  # of the baseline with examples
    longest = int(min(spec.train.max_seq_length, work.lengths.max() + shown))
    peak = generation_peak(known.shape, rows, longest, spec.scoring.max_tokens, known.coefficients)
    return round(peak * (1 + known.error))


def known_memory(spec: SweepSpec, device: Device) -> MemoryModel:
    """The memory model of a sweep's model: calibrated here, or by its shape.

    Raises:
        ModelError: It is neither here nor in the catalogue.
    """
    path = models.find_model(spec.model)
    if path is not None and device == backend.device_here():
        found = calibration.memory_model(path)
        if found is not None:
            return found
    if path is not None:
        config: Mapping[str, Any] | None = read_config(path)
    else:
        config = catalogue.find_known(spec.model)
    if config is None:
        raise ModelError(
            f"The model {spec.model!r} is not here, and its shape is not known. Known without "
            f"weights: {', '.join(sorted(catalogue.KNOWN_MODELS))}. Give a folder with a "
            "config.json, or download it."
        )
    shape = shape_of(config)
    return calibration.uncalibrated(shape.dequantized() if device == "cpu" else shape, device)


def other_machine(ram: str, device: Device) -> memory.Machine:
    """A machine with so much memory, nothing else running; a Mac's GPU may wire three quarters.

    Raises:
        MemoryBudgetError: That is no size.
    """
    try:
        total = memory.parse_size(ram)
    except ValueError as fault:
        raise MemoryBudgetError(f"--ram is {ram!r}: {fault}.") from fault
    gpu = round(0.75 * total) if device == "metal" else None
    return memory.Machine(total, total, gpu_bytes=gpu, device=f"a machine with {ram}")


def workload(spec: SweepSpec, data_pairs: int | None = None) -> Workload:
    """The lengths of a sweep's training examples: known from an earlier run, else estimated."""
    longest = spec.train.max_seq_length
    if data_pairs is not None:
        return assumed_workload(
            data_pairs, longest, f"assumed: {data_pairs} examples of max_seq_length"
        )
    if not _data_is_here(spec):
        how = "the data is not here: all as long as max_seq_length"
        return assumed_workload(_ASSUMED_EXAMPLES, longest, how)
    splits = load_data(spec.data)
    known = _read_lengths(lengths_file(spec, splits.fingerprint()["train"]))
    if known is not None:
        return known
    characters = [
        [len(str(message.get("content", ""))) for message in record.messages or ()]
        or [len(str(record.content.get("text", "")))]
        for record in splits.train
    ]
    lengths = np.minimum(_tokens(map(sum, characters)) + _TEMPLATE_TOKENS, longest)
    targets = lengths - 1
    if spec.train.mask_prompt:
        targets = np.minimum(_tokens(each[-1] for each in characters) + 2, targets)
    return Workload(lengths, targets, "estimated from the texts, not tokenized yet")


def n_held_out(spec: SweepSpec, data_pairs: int | None = None) -> tuple[int, int]:
    """Validation and test records; where the data is not here, as many as a sweep may ask for."""
    if data_pairs is not None or not _data_is_here(spec):
        return max(_ASSUMED_HELD_OUT, spec.scoring.max_examples), 2 * spec.scoring.max_examples
    splits = load_data(spec.data)
    return len(splits.valid), len(splits.test)


def _data_is_here(spec: SweepSpec) -> bool:
    return all(is_local(each.path) for each in spec.data)


def _tokens(characters: Iterable[int]) -> npt.NDArray[np.int64]:
    return np.ceil(np.array(list(characters)) / _CHARACTERS_A_TOKEN).astype(np.int64)


def save_lengths(spec: SweepSpec, fingerprint: str, work: Workload) -> None:
    """Keep what tokenizing found, for plans to come; a full disk does not matter."""
    path = lengths_file(spec, fingerprint)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as beside:
            np.savez(beside, lengths=work.lengths, n_targets=work.n_targets)
    except OSError:
        return


def lengths_file(spec: SweepSpec, fingerprint: str) -> Path:
    """Where the lengths of a training split are kept."""
    train = spec.train
    key = (spec.model, fingerprint, train.max_seq_length, train.mask_prompt)
    digest = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
    return backend.cache_dir() / "lengths" / f"{digest}.npz"


def share(spec: SweepSpec, known: MemoryModel, work: Workload, budget: Budget) -> tuple[int, float]:
    """How many workers run, and what each may take.

    With ``workers: auto`` as many as calibration found the processor to profit from (where that was
    never measured: one on a GPU, on a CPU one a core), but no more than leave each enough for every
    setting that a single worker could run.
    """
    if spec.workers != "auto":
        return spec.workers, worker_bytes(budget, spec.workers)
    assumed = memory.usable_cores() if known.device == "cpu" else 1
    most = min(known.speed.n_workers or assumed, spec.trials)
    largest = apply_settings(spec.train, _extreme(known, spec, work, largest=True))
    smallest = apply_settings(spec.train, _extreme(known, spec, work, largest=False))
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
    """What each of so many workers may take, beside the one embedder of all."""
    return max(0.0, budget.total_bytes - EMBEDDER_BYTES) / n_workers


def _extreme(
    known: MemoryModel, spec: SweepSpec, work: Workload, *, largest: bool
) -> dict[str, SearchValue]:
    """The settings that need the most memory, or the least, each executed as small as can be; of
    equal ones those that take longer."""
    pick = max if largest else min
    found = pick(
        corners(spec.search, MEMORY_KEYS),
        key=lambda settings: (
            smallest_plan(known, apply_settings(spec.train, settings), work).needed_bytes
        ),
    )
    ends = {
        key: [each[key] for each in corners(spec.search, (key,))]
        for key in _TIME_KEYS
        if key in spec.search
    }
    return {**found, **{key: pick(values) for key, values in ends.items()}}


def _fit(
    known: MemoryModel,
    spec: SweepSpec,
    work: Workload,
    arrays_bytes: float,
    settings: dict[str, SearchValue],
) -> Fit:
    train = apply_settings(spec.train, settings)
    plan = choose_plan(known, train, work, arrays_bytes)
    least = smallest_plan(known, train, work)
    # The longest examples' time, scaled to the mean ones'.
    scale = work.mean_tokens / float(np.sort(work.lengths)[-train.batch_size :].mean())
    batch_s = (plan or least).seconds * scale
    rate = train.batch_size * work.mean_tokens / batch_s if batch_s else 0.0
    return Fit(settings, train, plan, least, batch_s * train.iters, rate)


def _by_value(
    known: MemoryModel,
    spec: SweepSpec,
    work: Workload,
    arrays_bytes: float,
    smallest: dict[str, SearchValue],
    largest: dict[str, SearchValue],
) -> Iterator[tuple[str, list[tuple[SearchValue, Fit, Fit]]]]:
    for key, asked in spec.search.items():
        if key not in (*MEMORY_KEYS, *_TIME_KEYS):
            continue
        rows = []
        for value in dict.fromkeys(values_of(key, asked)):
            ends = [
                _fit(known, spec, work, arrays_bytes, {**others, key: value})
                for others in (smallest, largest)
            ]
            rows.append((value, ends[0], ends[1]))
        yield key, rows


def _what_would(known: MemoryModel, train: TrainSpec, work: Workload, arrays_bytes: float) -> str:
    if known.shape.weight_bytes() > arrays_bytes:
        return "The weights alone are more than that. Use a smaller model, or raise memory.budget."
    tried: list[tuple[str, TrainSpec, Workload]] = []
    for length in (1024, 512, 256, 128):
        if length < int(work.lengths.max()):
            shorter = replace(
                work,
                lengths=np.minimum(work.lengths, length),
                n_targets=np.minimum(work.n_targets, length - 1),
            )
            tried.append((f"train.max_seq_length: {length}", train, shorter))
    for layers in (8, 4):
        if layers < known.shape.n_layers and (train.num_layers < 0 or train.num_layers > layers):
            tried.append(
                (
                    f"train.num_layers: {layers}",
                    train.model_copy(update={"num_layers": layers}),
                    work,
                )
            )
    if train.optimizer != "sgd":
        tried.append(("train.optimizer: sgd", train.model_copy(update={"optimizer": "sgd"}), work))
    enough = [
        text
        for text, changed, lengths in tried
        if smallest_plan(known, changed, lengths).needed_bytes <= arrays_bytes
    ]
    if enough:
        return f"Any of these would fit: {'; '.join(enough)}. Or raise memory.budget."
    return "Use a smaller model, or raise memory.budget."


def _read_lengths(path: Path) -> Workload | None:
    try:
        with np.load(path) as content:
            return Workload(content["lengths"], content["n_targets"], "as tokenized before")
    except (OSError, ValueError, KeyError, EOFError):
        return None  # never written, or half


def _gb(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.2f} GB"


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
        "smallest": verdict(plan.smallest),
        "largest": verdict(plan.largest),
        "search": {
            key: [
                {"value": value, "smallest": verdict(low), "largest": verdict(high)}
                for value, low, high in rows
            ]
            for key, rows in plan.by_value.items()
        },
        "scoring_bytes": plan.scoring_bytes,
    }
