"""A check that a sweep's largest and smallest settings fit into memory."""

from dataclasses import replace

import numpy as np

from hawsweep.errors import MemoryBudgetError
from hawsweep.planning.peak import generation_peak
from hawsweep.planning.trial_plan import CostModel, smallest_plan
from hawsweep.planning.workload import Workload
from hawsweep.spec.space import SearchValue, apply_settings, corners
from hawsweep.spec.sweep import SweepSpec
from hawsweep.spec.train import TrainSpec
from hawsweep.text import counted

# The keys that change a trial's memory.
MEMORY_KEYS = (
    *("fine_tune_type", "batch_size", "num_layers", "optimizer", "max_seq_length"),
    *("lora_parameters.rank", "lora_parameters.keys"),
)
TIME_KEYS = ("iters", "grad_accumulation_steps")


def check_fits(spec: SweepSpec, known: CostModel, work: Workload, arrays_bytes: float) -> None:
    """Refuse a sweep without a setting that fits.

    Raises:
        MemoryBudgetError: The message has the remedies.
    """
    settings = extreme_settings(known, spec, work, largest=False)
    train = apply_settings(spec.train, settings)
    least = smallest_plan(known, train, work)
    if least.needed_bytes <= arrays_bytes:
        _check_scoring(spec, known, work, arrays_bytes)
        return
    weights = known.shape.weight_bytes()
    raise MemoryBudgetError(
        f"No setting of this sweep fits: the smallest needs {_gb(least.needed_bytes)} for its "
        f"arrays ({_gb(weights)} of it weights), and the budget leaves "
        f"{_gb(max(0.0, arrays_bytes))}. {_what_would(spec, known, train, work, arrays_bytes)}",
        least.needed_bytes - arrays_bytes,
    )


def _check_scoring(spec: SweepSpec, known: CostModel, work: Workload, arrays_bytes: float) -> None:
    needed = scoring_bytes(spec, known, work)
    if needed <= arrays_bytes:
        return
    raise MemoryBudgetError(
        f"Translating {counted(spec.scoring.batch_size, 'prompt')} at a time needs "
        f"{_gb(needed)}, and the budget leaves {_gb(max(0.0, arrays_bytes))}. Use "
        f"{scoring_remedy(spec, known, work, arrays_bytes)}, or raise memory.budget.",
        needed - arrays_bytes,
    )


def scoring_remedy(spec: SweepSpec, known: CostModel, work: Workload, arrays_bytes: float) -> str:
    """The setting with which the validation prompts are translated within the memory."""
    for rows in range(spec.scoring.batch_size - 1, 0, -1):
        if scoring_bytes(spec, known, work, rows) <= arrays_bytes:
            return f"scoring.batch_size: {rows}"
    return "a smaller scoring.max_tokens"


def scoring_bytes(
    spec: SweepSpec, known: CostModel, work: Workload, rows: int | None = None
) -> int:
    """The most bytes for answering the validation prompts, with the error band; ``rows`` at a time,
    by default the sweep's ``scoring.batch_size``.
    """
    return round(scoring_peak(spec, known, work, rows) * (1 + known.error))


def scoring_peak(spec: SweepSpec, known: CostModel, work: Workload, rows: int | None = None) -> int:
    """The same without the error band."""
    rows = min(rows or spec.scoring.batch_size, spec.scoring.max_examples)
    shown = max(spec.scoring.prompt.examples) * work.mean_tokens  # of the baseline
    longest = int(min(spec.train.max_seq_length, work.lengths.max() + shown))
    return generation_peak(known.shape, rows, longest, spec.scoring.max_tokens, known.coefficients)


def extreme_settings(
    known: CostModel, spec: SweepSpec, work: Workload, *, largest: bool
) -> dict[str, SearchValue]:
    """The settings that need the most memory, or the least, each with its smallest plan; of equal
    ones the slower."""
    pick = max if largest else min
    found = pick(
        corners(spec.search, MEMORY_KEYS),
        key=lambda settings: (
            smallest_plan(known, apply_settings(spec.train, settings), work).needed_bytes
        ),
    )
    ends = {
        key: [each[key] for each in corners(spec.search, (key,))]
        for key in TIME_KEYS
        if key in spec.search
    }
    return {**found, **{key: pick(values) for key, values in ends.items()}}


def _what_would(
    spec: SweepSpec, known: CostModel, train: TrainSpec, work: Workload, arrays_bytes: float
) -> str:
    if known.shape.weight_bytes() > arrays_bytes:
        return "The weights alone are more than that. Use a smaller model, or raise memory.budget."
    tried: list[tuple[str, int | str, TrainSpec, Workload]] = []
    for length in (1024, 512, 256, 128):
        if length < int(work.lengths.max()):
            shorter = replace(
                work,
                lengths=np.minimum(work.lengths, length),
                n_targets=np.minimum(work.n_targets, length - 1),
            )
            tried.append(("max_seq_length", length, train, shorter))
    for layers in (8, 4):
        if layers < train.n_blocks(known.shape.n_layers):
            fewer = train.model_copy(update={"num_layers": layers})
            tried.append(("num_layers", layers, fewer, work))
    if train.optimizer != "sgd" and not train.optimizer_config:  # which is of another optimizer
        plainer = train.model_copy(update={"optimizer": "sgd"})
        tried.append(("optimizer", "sgd", plainer, work))
    enough = [
        f"search.{key}.choices: [{value}]" if key in spec.search else f"train.{key}: {value}"
        for key, value, changed, lengths in tried
        if smallest_plan(known, changed, lengths).needed_bytes <= arrays_bytes
    ]
    if enough:
        return f"Any of these would fit: {'; '.join(enough)}. Or raise memory.budget."
    return "Use a smaller model, or raise memory.budget."


def _gb(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.2f} GB"
