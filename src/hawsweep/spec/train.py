"""TrainSpec: how a trial trains, as a sweep says it. The keys are mlx_lm.lora's, with its meaning
and defaults; what hawsweep adds or changes is said at the key.
"""

import math
from collections.abc import Iterator
from types import NoneType
from typing import Annotated, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationInfo,
    field_validator,
    model_validator,
)

OptimizerName = Literal["adam", "adamw", "sgd", "adafactor", "muon"]
OptimizerOption = bool | int | float | tuple[float, ...]


class Section(BaseModel):
    """Keys of a sweep that belong together: no others, no infinite numbers, no ``true`` for 1."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, bool) and info.field_name is not None:
            kind = cls.model_fields[info.field_name].annotation
            if {*(get_args(kind) or (kind,))} <= {int, float, NoneType}:
                raise ValueError("must be a number")
        return value


class LoraParameters(Section):
    """The adapter's shape, as in mlx-lm, with ``alpha`` beside ``scale``."""

    rank: int = Field(
        8,
        ge=1,
        le=2**16,
        description="Width of the adapter's inner dimension.",
        examples=[
            "train: {lora_parameters: {rank: 16}}",
            "search: {lora_parameters.rank: {choices: [8, 16, 32, 64]}}",
        ],
    )
    scale: float | None = Field(
        None,
        gt=0,
        description="Factor of the update, as is; 20.0 by default.",
        examples=[
            "train: {lora_parameters: {scale: 2.0}}",
            "search: {lora_parameters.scale: {low: 0.5, high: 20, log: true}}",
        ],
    )
    alpha: float | None = Field(
        None,
        gt=0,
        description=(
            "If given, scale = alpha / rank: a rank sweep is then no hidden learning-rate sweep."
        ),
        examples=[
            "train: {lora_parameters: {alpha: 32}}",
            "search: {lora_parameters.alpha: {choices: [16, 32, 64]}}",
        ],
    )
    use_rslora: bool = Field(
        False,
        description="Rank-stabilized: scale = alpha / sqrt(rank). Needs alpha.",
        examples=["train: {lora_parameters: {alpha: 32, use_rslora: true}}"],
    )
    loraplus_lr_ratio: float | None = Field(
        None,
        gt=0,
        description="LoRA+: the rate of the B matrices is this many times learning_rate.",
        examples=[
            "train: {lora_parameters: {loraplus_lr_ratio: 8}}",
            "search: {lora_parameters.loraplus_lr_ratio: {low: 1, high: 16, log: true}}",
        ],
    )
    dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the adapter's inputs dropped in training.",
        examples=[
            "train: {lora_parameters: {dropout: 0.05}}",
            "search: {lora_parameters.dropout: {low: 0, high: 0.1}}",
        ],
    )
    keys: tuple[str, ...] | None = Field(
        None,
        description="Linear layers to adapt, as named in a block; all by default.",
        examples=["train: {lora_parameters: {keys: [self_attn.q_proj, self_attn.v_proj]}}"],
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


class LrSchedule(Section):
    """How the learning rate changes over a trial. Everything is counted in updates."""

    name: Literal["constant", "linear", "cosine", "cyclic"] = Field(
        "constant",
        description=(
            "After the warmup: constant; linear or cosine down to the end; cyclic up and down."
        ),
        examples=[
            "train: {lr_schedule: cosine}",
            "search: {lr_schedule.name: {choices: [constant, cosine]}}",
        ],
    )
    warmup: int | None = Field(
        None,
        ge=0,
        description="Updates in which the rate rises from warmup_init; 0 by default.",
        examples=["train: {lr_schedule: {name: linear, warmup: 50}}"],
    )
    warmup_ratio: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Instead of warmup: a share of the trial's updates.",
        examples=[
            "train: {lr_schedule: {name: cosine, warmup_ratio: 0.05}}",
            "search: {lr_schedule.warmup_ratio: {low: 0, high: 0.1}}",
        ],
    )
    warmup_init: float = Field(
        0.0,
        ge=0,
        description="Rate of the first update of a warmup.",
        examples=["train: {lr_schedule: {warmup: 50, warmup_init: 1e-6}}"],
    )
    decay_steps: int | None = Field(
        None,
        ge=1,
        description="linear, cosine: updates until the end; all after the warmup by default.",
        examples=["train: {lr_schedule: {name: cosine, decay_steps: 500}}"],
    )
    cycle_steps: int | None = Field(
        None,
        ge=2,
        description="cyclic: updates up and down; all after the warmup by default.",
        examples=["train: {lr_schedule: {name: cyclic, cycle_steps: 200}}"],
    )
    end_factor: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of learning_rate at the end of the decay, or between two cycles.",
        examples=[
            "train: {lr_schedule: {name: cosine, end_factor: 0.1}}",
            "search: {lr_schedule.end_factor: {low: 0, high: 0.2}}",
        ],
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


class TrainSpec(Section):
    """How a trial trains: mlx_lm.lora's keys."""

    fine_tune_type: Literal["lora", "dora", "full"] = Field(
        "lora",
        description="Adapters with or without a learned magnitude, or the blocks' weights.",
        examples=[
            "train: {fine_tune_type: dora}",
            "search: {fine_tune_type: {choices: [lora, dora]}}",
        ],
    )
    learning_rate: float = Field(
        1e-5,
        gt=0,
        le=1,
        description="Peak learning rate.",
        examples=[
            "train: {learning_rate: 2e-4}",
            "search: {learning_rate: {low: 1e-5, high: 1e-3, log: true}}",
        ],
    )
    iters: int = Field(
        1000,
        ge=1,
        le=10**9,
        description="Batches of batch_size to train on; updates = iters / grad_accumulation_steps.",
        examples=[
            "train: {iters: 2000}",
            "search: {iters: {low: 500, high: 2000, step: 500}}",
        ],
    )
    batch_size: int = Field(
        4,
        ge=1,
        le=2**12,
        description="Examples a batch.",
        examples=[
            "train: {batch_size: 1}",
            "search: {batch_size: {choices: [1, 2, 4]}}",
        ],
    )
    grad_accumulation_steps: int = Field(
        1,
        ge=1,
        le=2**20,
        description="Batches an update.",
        examples=[
            "train: {grad_accumulation_steps: 4}",
            "search: {grad_accumulation_steps: {choices: [1, 4, 16]}}",
        ],
    )
    num_layers: int = Field(
        16,
        ge=-1,
        description="Blocks to adapt, counted from the last; -1 for all.",
        examples=[
            "train: {num_layers: -1}",
            "search: {num_layers: {choices: [8, 16, -1]}}",
        ],
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
        examples=[
            "train: {optimizer: adamw}",
            "search: {optimizer: {choices: [adam, muon]}}",
        ],
    )
    optimizer_config: dict[OptimizerName, dict[str, OptimizerOption]] = Field(
        default_factory=dict,
        description="Options of MLX's optimizers by name: {adam: {bias_correction: true}}.",
        examples=[
            "train: {optimizer_config: {adam: {bias_correction: true}}}",
            "search: {optimizer_config.adamw.weight_decay: {low: 0.001, high: 0.1, log: true}}",
        ],
    )
    max_grad_norm: float | None = Field(
        None,
        gt=0,
        description="Gradients of a larger total norm are scaled down to it.",
        examples=[
            "train: {max_grad_norm: 1.0}",
            "search: {max_grad_norm: {choices: [0.3, 1.0]}}",
        ],
    )
    order: Literal["shuffle", "curriculum"] = Field(
        "shuffle",
        description="Order of the batches; curriculum: the easiest first in the first epoch.",
        examples=[
            "train: {order: curriculum}",
            "search: {order: {choices: [shuffle, curriculum]}}",
        ],
    )
    difficulty: Literal["length", "base_loss"] = Field(
        "length",
        description="curriculum: what makes an example hard, its tokens or the base's loss on it.",
        examples=["train: {order: curriculum, difficulty: base_loss}"],
    )
    mask_prompt: bool = Field(
        False,
        description="Learn from the completion only.",
        examples=["train: {mask_prompt: true}"],
    )
    max_seq_length: int = Field(
        2048,
        ge=8,
        le=2**24,
        description="Longer examples are truncated; in tokens.",
        examples=["train: {max_seq_length: 1024}"],
    )
    grad_checkpoint: bool | Literal["auto"] = Field(
        "auto",
        description="Recompute activations backwards, to save memory; auto: where memory needs it.",
        examples=["train: {grad_checkpoint: auto}"],
    )
    steps_per_report: int = Field(
        10,
        ge=1,
        description="Iterations between reports of the training loss.",
        examples=["train: {steps_per_report: 20}"],
    )
    steps_per_eval: int = Field(
        200,
        ge=1,
        description="Iterations between evaluations; pruning happens there.",
        examples=["train: {steps_per_eval: 200}"],
    )
    early_stopping_patience: int | None = Field(
        None,
        ge=1,
        description="The trial ends after this many evaluations without improvement.",
        examples=["train: {early_stopping_patience: 3}"],
    )
    early_stopping_threshold: float = Field(
        0.0,
        ge=0,
        description="An improvement lowers the val loss by more than this.",
        examples=["train: {early_stopping_patience: 3, early_stopping_threshold: 0.005}"],
    )
    keep_checkpoints: Annotated[int | Literal["every"], PlainValidator(_check_keep)] = Field(
        0,
        description="Adapters kept beside the best: those of this many best evaluations, or every.",
        examples=["train: {keep_checkpoints: 3}"],
    )
    seed: int = Field(
        0,
        ge=0,
        lt=2**32,
        description="Seed of the adapter's initial values, dropout and data order.",
        examples=["train: {seed: 1}"],
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
        """The contradictions between keys that are each allowed alone."""
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
