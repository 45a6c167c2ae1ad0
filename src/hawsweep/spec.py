"""SweepSpec: what a sweep asks for, its schema and its fingerprint. Reading one from a file:
sweepfile.py.

The keys of ``train`` and ``search`` are mlx_lm.lora's, with its meaning and defaults; what hawsweep
adds or changes is said at the key.
"""

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    Tag,
    field_validator,
    model_validator,
)

SearchValue = bool | int | float | str
OptimizerName = Literal["adam", "adamw", "sgd", "adafactor", "muon"]
OptimizerOption = bool | int | float | tuple[float, ...]
_MOST_WORKERS = 64


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def parse_duration(value: object) -> float:
    """Seconds out of ``90``, ``"20m"``, ``"8h"`` or ``"1h30m"``.

    Raises:
        ValueError: It is none of these, or not above 0.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    else:
        match = re.fullmatch(
            r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?",
            str(value),
        )
        if match is None or not any(match.groups()):
            raise ValueError("must be a time such as 90s, 20m, 8h or 1h30m")
        seconds = sum(
            float(n) * unit
            for n, unit in zip(match.groups(), (86400, 3600, 60, 1), strict=True)
            if n
        )
    if not 0 < seconds < float("inf"):
        raise ValueError("must be longer than 0")
    return seconds


Duration = Annotated[float, BeforeValidator(parse_duration)]


class LoraParameters(_Section):
    """The adapter's shape, as in mlx-lm, with ``alpha`` beside ``scale``."""

    rank: int = Field(8, ge=1, description="Width of the adapter's inner dimension.")
    scale: float | None = Field(
        None, gt=0, description="Factor of the update, as is; 20.0 by default."
    )
    alpha: float | None = Field(
        None,
        gt=0,
        description=(
            "If given, scale = alpha / rank: a rank sweep is then no hidden learning-rate sweep."
        ),
    )
    use_rslora: bool = Field(
        False, description="Rank-stabilized: scale = alpha / sqrt(rank). Needs alpha."
    )
    loraplus_lr_ratio: float | None = Field(
        None,
        gt=0,
        description="LoRA+: the rate of the B matrices is this many times learning_rate.",
    )
    dropout: float = Field(
        0.0, ge=0, lt=1, description="Share of the adapter's inputs dropped in training."
    )
    keys: tuple[str, ...] | None = Field(
        None, description="Linear layers to adapt, as named in a block; all by default."
    )

    @model_validator(mode="after")
    def _scale_or_alpha(self) -> "LoraParameters":
        if self.alpha is not None and self.scale is not None:
            raise ValueError(
                "scale and alpha are both given, but alpha sets scale = alpha / rank; remove one"
            )
        return self

    @property
    def effective_scale(self) -> float:
        """The factor of the update: alpha / rank, alpha / sqrt(rank), or scale."""
        if self.alpha is not None:
            return self.alpha / (math.sqrt(self.rank) if self.use_rslora else self.rank)
        return 20.0 if self.scale is None else self.scale


class LrSchedule(_Section):
    """How the learning rate changes over a trial. Everything is counted in updates."""

    name: Literal["constant", "linear", "cosine", "cyclic"] = Field(
        "constant",
        description=(
            "After the warmup: constant; linear or cosine down to the end; cyclic up and down."
        ),
    )
    warmup: int | None = Field(
        None, ge=0, description="Updates in which the rate rises from warmup_init; 0 by default."
    )
    warmup_ratio: float | None = Field(
        None, ge=0, le=1, description="Instead of warmup: a share of the trial's updates."
    )
    warmup_init: float = Field(0.0, ge=0, description="Rate of the first update of a warmup.")
    decay_steps: int | None = Field(
        None,
        ge=1,
        description="linear, cosine: updates until the end; all after the warmup by default.",
    )
    cycle_steps: int | None = Field(
        None,
        ge=2,
        description="cyclic: updates up and down; all after the warmup by default.",
    )
    end_factor: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of learning_rate at the end of the decay, or between two cycles.",
    )

    @model_validator(mode="after")
    def _no_contradiction(self) -> "LrSchedule":
        if self.warmup is not None and self.warmup_ratio is not None:
            raise ValueError("warmup and warmup_ratio are both given; remove one")
        return self

    def warmup_steps(self, n_updates: int) -> int:
        """Updates of the warmup in a trial of ``n_updates``."""
        if self.warmup_ratio is not None:
            return math.ceil(self.warmup_ratio * n_updates)
        return self.warmup or 0

    def depends_on_length(self) -> bool:
        """Whether an update's rate depends on how many updates there are in all."""
        span = self.cycle_steps if self.name == "cyclic" else self.decay_steps
        return bool(self.warmup_ratio) or (self.name != "constant" and span is None)


def _lr_schedule(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


def _check_keep(value: object) -> int | Literal["every"]:
    if value == "every":
        return "every"
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError("must be every or a whole number, 0 or more")


class TrainSpec(_Section):
    """How a trial trains: mlx_lm.lora's keys."""

    fine_tune_type: Literal["lora", "dora", "full"] = Field(
        "lora", description="Adapters with or without a learned magnitude, or the blocks' weights."
    )
    learning_rate: float = Field(1e-5, gt=0, le=1, description="Peak learning rate.")
    iters: int = Field(
        1000,
        ge=1,
        description="Batches of batch_size to train on; updates = iters / grad_accumulation_steps.",
    )
    batch_size: int = Field(4, ge=1, description="Examples a batch.")
    grad_accumulation_steps: int = Field(1, ge=1, description="Batches an update.")
    num_layers: int = Field(
        16, ge=-1, description="Blocks to adapt, counted from the last; -1 for all."
    )
    lora_parameters: LoraParameters = Field(default_factory=LoraParameters)
    lr_schedule: Annotated[LrSchedule, BeforeValidator(_lr_schedule)] = Field(
        default_factory=LrSchedule
    )
    optimizer: OptimizerName = Field(
        "adam",
        description=(
            "Optimizer, with MLX's defaults; adafactor with scale_parameter and relative_step "
            "false, or it would not use learning_rate as it is."
        ),
    )
    optimizer_config: dict[OptimizerName, dict[str, OptimizerOption]] = Field(
        default_factory=dict,
        description="Options of MLX's optimizers by name: {adam: {bias_correction: true}}.",
    )
    max_grad_norm: float | None = Field(
        None, gt=0, description="Gradients of a larger total norm are scaled down to it."
    )
    order: Literal["shuffle", "curriculum"] = Field(
        "shuffle",
        description="Of the batches; curriculum: in the first epoch the easiest come first.",
    )
    difficulty: Literal["length", "base_loss"] = Field(
        "length",
        description="curriculum: what makes an example hard, its tokens or the base's loss on it.",
    )
    mask_prompt: bool = Field(False, description="Learn from the completion only.")
    max_seq_length: int = Field(2048, ge=8, description="Longer examples are truncated; in tokens.")
    grad_checkpoint: bool = Field(
        False, description="Recompute activations backwards, to save memory."
    )
    steps_per_report: int = Field(
        10, ge=1, description="Iterations between reports of the training loss."
    )
    steps_per_eval: int = Field(
        200, ge=1, description="Iterations between evaluations; pruning happens there."
    )
    early_stopping_patience: int | None = Field(
        None, ge=1, description="The trial ends after so many evaluations without improvement."
    )
    early_stopping_threshold: float = Field(
        0.0, ge=0, description="What is an improvement to that end: a val loss lower by more."
    )
    keep_checkpoints: Annotated[int | Literal["every"], PlainValidator(_check_keep)] = Field(
        0, description="Adapters kept beside the best: those of so many best evaluations, or every."
    )
    seed: int = Field(
        0, ge=0, description="Seed of the adapter's initial values, dropout and data order."
    )

    @field_validator("num_layers")
    @classmethod
    def _not_zero(cls, value: int) -> int:
        if value == 0:
            raise ValueError("must be 1 or more, or -1 for all layers")
        return value

    @property
    def n_updates(self) -> int:
        """Updates of the whole trial; batches left over at its end make one."""
        return math.ceil(self.iters / self.grad_accumulation_steps)

    def contradictions(self) -> Iterator[str]:
        """What its keys, each allowed by itself, do not allow together."""
        schedule, n_updates = self.lr_schedule, self.n_updates
        warmup = schedule.warmup_steps(n_updates)
        rest = f"the trial has {n_updates} updates (iters / grad_accumulation_steps)"
        if warmup > n_updates:
            yield f"lr_schedule.warmup is {warmup}, but {rest}. Shorten it, or use warmup_ratio."
        if schedule.name == "cyclic" and warmup:
            yield (
                f"lr_schedule.warmup is {warmup}, but cyclic begins each cycle with a rise. Remove "
                "the warmup."
            )
        names = {"decay_steps": ("linear", "cosine"), "cycle_steps": ("cyclic",)}
        for key, with_names in names.items():
            steps = getattr(schedule, key)
            if steps is not None and schedule.name not in with_names:
                yield (
                    f"lr_schedule.{key} is {steps}, but {schedule.name} has no use for it. Remove "
                    f"it, or use {' or '.join(with_names)}."
                )
            elif steps is not None and warmup + steps > n_updates:
                yield (
                    f"lr_schedule.{key} is {steps} after {warmup} of warmup, but {rest}. Shorten "
                    "it, or leave it out: all updates by default."
                )
        if schedule.warmup_init > self.learning_rate:
            yield (
                f"lr_schedule.warmup_init is {schedule.warmup_init:g}, above learning_rate "
                f"{self.learning_rate:g}. Lower it."
            )
        lora = self.lora_parameters
        if lora.use_rslora and lora.alpha is None:
            yield (
                "lora_parameters.use_rslora is true without alpha, but it sets scale = alpha / "
                "sqrt(rank). Give lora_parameters.alpha."
            )
        if self.fine_tune_type == "full" and lora.loraplus_lr_ratio is not None:
            yield "lora_parameters.loraplus_lr_ratio is given, but full has no B. Remove it."
        options = self.optimizer_config.get(self.optimizer, {})
        if "learning_rate" in options:
            yield (f"optimizer_config.{self.optimizer}.learning_rate is given. Use learning_rate.")
        if self.optimizer == "adafactor" and options.get("relative_step"):
            yield (
                "optimizer_config.adafactor.relative_step is true: Adafactor would ignore "
                "learning_rate and lr_schedule. Remove it."
            )


class Range(_Section):
    """Numbers from low to high, both included."""

    low: float
    high: float
    log: bool = False
    step: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> "Range":
        if self.low > self.high:
            raise ValueError(f"low is {self.low:g}, must not be above high, which is {self.high:g}")
        if self.log and self.step is not None:
            raise ValueError("log and step are both given; Optuna allows one of them")
        if self.log and self.low <= 0:
            raise ValueError(f"low is {self.low:g}, must be above 0 where log is true")
        if self.step is not None and not self.is_on_step(self.high):
            steps = math.floor((self.high - self.low) / self.step)
            raise ValueError(
                f"high is {self.high:g}, must be low and whole steps of {self.step:g}, such as "
                f"{self.low + steps * self.step:g} or {self.low + (steps + 1) * self.step:g}"
            )
        return self

    def is_on_step(self, value: float) -> bool:
        """Whether a value is a whole number of steps above ``low``; always without a step."""
        if self.step is None:
            return True
        steps = (value - self.low) / self.step
        return math.isclose(steps, round(steps), abs_tol=1e-6)


class Choices(_Section):
    """A list of values to choose from."""

    choices: tuple[SearchValue, ...] = Field(min_length=1)

    @field_validator("choices")
    @classmethod
    def _distinct(cls, value: tuple[SearchValue, ...]) -> tuple[SearchValue, ...]:
        if len(set(value)) < len(value):
            raise ValueError("must not have the same value twice")
        return value


def _search_kind(value: object) -> str:
    is_choices = "choices" in value if isinstance(value, dict) else isinstance(value, Choices)
    return "choices" if is_choices else "range"


Search = Annotated[
    Annotated[Range, Tag("range")] | Annotated[Choices, Tag("choices")], Discriminator(_search_kind)
]


class DataSpec(_Section):
    """Where the records come from, for a source that needs more than a name."""

    path: str = Field(
        min_length=1, description="A bundled name, a folder, a CSV or a Hugging Face data set."
    )
    source: str | None = Field(
        None, description="CSV: the column to translate from; the first by default."
    )
    target: str | None = Field(
        None, description="CSV: the column to translate to; the second by default."
    )
    prompt: str = Field("Translate to English: {source}", description="CSV: the user's message.")
    valid_fraction: float = Field(
        0.1, gt=0, lt=1, description="CSV: share of the rows for validation."
    )
    test_fraction: float = Field(
        0.1, ge=0, lt=1, description="CSV: share of the rows for the final test."
    )
    seed: int = Field(0, ge=0, description="CSV: seed of the split.")
    weight: float = Field(
        1.0,
        gt=0,
        le=1000,
        description=(
            "In a list of data sets: how often its training records come in an epoch; 0.5 is a "
            "random half of them each time."
        ),
    )

    @field_validator("prompt")
    @classmethod
    def _has_source(cls, value: str) -> str:
        if "{source}" not in value:
            raise ValueError("must contain {source}, where the text to translate goes")
        return value


def _auto_or_count(value: object) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise ValueError("must be auto or a whole number, 1 or more")


class ValidationSpec(_Section):
    """The frozen validation set for the loss."""

    max_examples: Annotated[int | Literal["auto"], PlainValidator(_auto_or_count)] = Field(
        "auto",
        description=(
            "A larger split is reduced to a seeded subset of this size; auto: as large as keeps "
            "evaluation under 15 % of a trial's time."
        ),
    )
    batch_size: Annotated[int | Literal["auto"], PlainValidator(_auto_or_count)] = Field(
        "auto",
        description=(
            "Examples evaluated at a time, no influence on the loss; auto: as many as need no more "
            "memory than training."
        ),
    )


class MemorySpec(_Section):
    """What a trial may take."""

    budget: Literal["auto"] = Field(
        "auto", description="Memory for a trial; auto: what the machine has."
    )


class PruningSpec(_Section):
    """When a trial that falls behind in validation loss is ended; Optuna's pruners."""

    name: Literal["median", "percentile", "none"] = "median"
    percentile: float = Field(
        50.0, gt=0, lt=100, description="percentile: share of the trials to keep."
    )
    n_startup_trials: int = Field(4, ge=0, description="Trials to complete before any is pruned.")
    n_warmup_steps: int = Field(
        0, ge=0, description="Iterations of a trial before it may be pruned."
    )
    n_min_trials: int = Field(
        2, ge=1, description="Completed trials needed at an iteration to compare with."
    )


class SamplerSpec(_Section):
    """How settings are proposed; Optuna's samplers."""

    name: Literal["tpe", "random"] = "tpe"
    n_startup_trials: int = Field(
        10, ge=0, description="tpe: random trials before the model decides."
    )


class ScoringSpec(_Section):
    """How survivors are judged: they translate validation prompts greedily."""

    metric: Literal["semantic_similarity"] = Field(
        "semantic_similarity", description="The study's value."
    )
    embedder: str = Field(
        "all-MiniLM-L6-v2",
        description="A sentence-transformers model: bundled, folder or repository.",
    )
    max_tokens: int = Field(128, ge=1, description="Longest translation, in tokens.")
    max_examples: int = Field(
        64, ge=1, description="Validation prompts translated; test: twice as many."
    )
    batch_size: int = Field(16, ge=1, description="Prompts generated at a time.")


def _check_workers(value: object) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MOST_WORKERS:
        return value
    raise ValueError(f"must be auto or a whole number from 1 to {_MOST_WORKERS}")


def _data_specs(value: object) -> object:
    """One data set or several, each a name or keys, as a list of keys."""
    listed = value if isinstance(value, list | tuple) else [value]
    if not listed:
        raise ValueError("must name at least one data set")
    return [{"path": each} if isinstance(each, str) else each for each in listed]


class SweepSpec(_Section):
    """A whole sweep."""

    description: str = ""
    model: str = Field(
        min_length=1, description="A bundled name, a folder, or a Hugging Face repository."
    )
    data: Annotated[tuple[DataSpec, ...], BeforeValidator(_data_specs)]
    train: TrainSpec = Field(default_factory=TrainSpec)
    search: dict[str, Search]
    enqueue: tuple[dict[str, SearchValue], ...] | None = Field(
        None, description="Settings to try first; by default two that published sweeps suggest."
    )
    memory: MemorySpec = Field(default_factory=MemorySpec)
    validation: ValidationSpec = Field(default_factory=ValidationSpec)
    pruning: PruningSpec = Field(default_factory=PruningSpec)
    sampler: SamplerSpec = Field(default_factory=SamplerSpec)
    scoring: ScoringSpec = Field(default_factory=ScoringSpec)
    trials: int = Field(20, ge=1, description="Trials to finish, pruned ones included.")
    timeout: Duration | None = Field(
        None, description="No trial starts after this time: 90s, 20m, 8h."
    )
    workers: Annotated[int | Literal["auto"], PlainValidator(_check_workers)] = Field(
        "auto",
        description="Processes that train at the same time; auto: one a core on a CPU, else one.",
    )
    seed: int = Field(0, ge=0, description="Seed of the sampler and of the validation subset.")
    trust_remote_code: bool = Field(False, description="Run code that comes with a model.")

    def fingerprint(self) -> dict[str, Any]:
        """What decides a trial's numbers, as plain values. A study goes on only with the same.

        How many trials, for how long and by how many workers may change.
        """
        return self.model_dump(mode="json", exclude={"description", "trials", "timeout", "workers"})

    def digest(self) -> str:
        """A short hash of ``fingerprint``."""
        text = json.dumps(self.fingerprint(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def dump_yaml(self) -> str:
        """The spec as resolved, every default written out, in a form ``read_sweep`` reads."""
        content = self.model_dump(mode="json", exclude_none=True)
        for key in self.search:
            section = content["train"]
            *parents, last = key.split(".")
            for part in parents:
                section = section.get(part, {})
            section.pop(last, None)
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


SEARCHABLE: dict[str, type] = {
    "fine_tune_type": str,
    "learning_rate": float,
    "iters": int,
    "batch_size": int,
    "grad_accumulation_steps": int,
    "num_layers": int,
    "optimizer": str,
    "optimizer_config.adamw.weight_decay": float,
    "max_grad_norm": float,
    "order": str,
    "lora_parameters.rank": int,
    "lora_parameters.scale": float,
    "lora_parameters.alpha": float,
    "lora_parameters.dropout": float,
    "lora_parameters.loraplus_lr_ratio": float,
    "lr_schedule.name": str,
    "lr_schedule.warmup_ratio": float,
    "lr_schedule.end_factor": float,
}


def corners(
    search: Mapping[str, Range | Choices], keys: Iterable[str]
) -> Iterator[dict[str, SearchValue]]:
    """Settings at the ends of a search space: its ``keys`` at their lowest and highest values,
    names at each.
    """
    ends: dict[str, tuple[SearchValue, ...]] = {}
    for key in keys:
        asked = search.get(key)
        if isinstance(asked, Range):
            low, high = (SEARCHABLE[key](value) for value in (asked.low, asked.high))
            ends[key] = (low, high)
        elif isinstance(asked, Choices):
            named = any(isinstance(value, str) for value in asked.choices)
            numbers = sorted(asked.choices, key=lambda value: 0 if named else float(value))
            ends[key] = asked.choices if named else (numbers[0], numbers[-1])
    for values in itertools.product(*ends.values()):
        yield dict(zip(ends, values, strict=True))


def apply_settings(train: TrainSpec, settings: Mapping[str, SearchValue]) -> TrainSpec:
    """A trial's settings: the fixed ones with the searched ones put in."""
    content = train.model_dump(exclude_unset=True)
    for key, value in settings.items():
        set_key(content, key, value)
    return TrainSpec.model_validate(content)


def set_key(content: dict[str, Any], key: str, value: Any) -> None:
    """Put a value at a dotted key of plain nested values, making the levels above it."""
    parts = key.split(".")
    if parts[0] == "search":  # its keys have dots of their own
        names = [
            name
            for name in SEARCHABLE
            if key == f"search.{name}" or key.startswith(f"search.{name}.")
        ]
        if names:
            rest = key.removeprefix(f"search.{names[0]}").strip(".")
            parts = ["search", names[0], *([rest] if rest else [])]
        if parts[2:] == ["choices"]:  # instead of a range
            key, value, parts = ".".join(parts[:2]), {"choices": value}, parts[:2]
    for part in parts[:-1]:
        below = content.get(part)
        if isinstance(below, str) and part == "data":
            below = {"path": below}
        content[part] = dict(below) if isinstance(below, dict) else {}
        content = content[part]
    content[parts[-1]] = value
