"""TrainSpec: how a trial trains, as a sweep says it. The keys are mlx_lm.lora's, with its meaning
and defaults; what hawsweep adds or changes is said at the key.
"""

import math
from collections.abc import Iterator
from types import NoneType
from typing import Annotated, Any, Literal, get_args

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

from hawsweep.text import counted

OptimizerName = Literal["adam", "adamw", "sgd", "adafactor", "muon"]
OptimizerOption = bool | int | float | tuple[float, ...]


class Section(BaseModel):
    """Keys of a sweep that belong together: no others, no infinite numbers, no ``true`` for 1.

    The text below a key is its meaning in the reference. Its examples are lines of a sweep: the
    first as it stands in its section, the second, of a key that can be searched, what stands at the
    key under ``search``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, bool) and info.field_name is not None:
            kind = cls.model_fields[info.field_name].annotation
            if {*(get_args(kind) or (kind,))} <= {int, float, NoneType}:
                raise ValueError("must be a number")
        return value


def count_or(word: str, least: int, most: float = math.inf) -> PlainValidator:
    """A check of a key that takes a word or a whole number."""
    limits = f", {least} or more" if most == math.inf else f" from {least} to {most}"

    def check(value: Any) -> Any:
        is_count = isinstance(value, int) and not isinstance(value, bool)
        if value == word or (is_count and least <= value <= most):
            return value
        raise ValueError(f"must be {word} or a whole number{limits}")

    return PlainValidator(check)


def _named_layers(value: object) -> object:
    """A list of layers, which a search has as one text; None for all."""
    if value == "all":
        return None
    return tuple(map(str.strip, value.split(","))) if isinstance(value, str) else value


# Layers at most this share of the model's width, as the gates of linear attention are, may be
# adapted with a rank above their width.
NARROW = 1 / 32


class LoraParameters(Section):
    """The adapter's shape, as in mlx-lm, with ``alpha`` beside ``scale``."""

    rank: int = Field(8, ge=1, le=2**16, examples=["rank: 16", "{choices: [8, 16, 32, 64]}"])
    """Width of the adapter's inner dimension."""
    scale: float | None = Field(
        None, gt=0, examples=["scale: 2.0", "{low: 0.5, high: 20, log: true}"]
    )
    """Factor of the update, as is; 20.0 by default."""
    alpha: float | None = Field(None, gt=0, examples=["alpha: 32", "{choices: [16, 32, 64]}"])
    """If given, scale = alpha / rank: a rank sweep is then no hidden learning-rate sweep."""
    use_rslora: bool = Field(False, examples=["alpha: 32, use_rslora: true"])
    """Rank-stabilized: scale = alpha / sqrt(rank). Needs alpha."""
    loraplus_lr_ratio: float | None = Field(
        None, gt=0, examples=["loraplus_lr_ratio: 8", "{low: 1, high: 16, log: true}"]
    )
    """LoRA+: the rate of the B matrices is this many times learning_rate."""
    dropout: float = Field(0.0, ge=0, lt=1, examples=["dropout: 0.05", "{low: 0, high: 0.1}"])
    """Share of the adapter's inputs dropped in training."""
    keys: Annotated[tuple[str, ...] | None, BeforeValidator(_named_layers)] = Field(
        None,
        examples=[
            "keys: [self_attn.q_proj, self_attn.v_proj]",
            "{choices: [all, [self_attn.q_proj, self_attn.v_proj]]}",
        ],
    )
    """Linear layers to adapt, as named in a block; all by default."""

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
        "constant", examples=["train: {lr_schedule: cosine}", "{choices: [constant, cosine]}"]
    )
    """After the warmup: constant; linear or cosine down to the end; cyclic up and down."""
    warmup: int | None = Field(None, ge=0, examples=["name: linear, warmup: 50"])
    """Updates in which the rate rises from warmup_init; 0 by default."""
    warmup_ratio: float | None = Field(
        None, ge=0, le=1, examples=["name: cosine, warmup_ratio: 0.05", "{low: 0, high: 0.1}"]
    )
    """Instead of warmup: a share of the trial's updates."""
    warmup_init: float = Field(0.0, ge=0, examples=["warmup: 50, warmup_init: 1e-6"])
    """Rate of the first update of a warmup."""
    decay_steps: int | None = Field(None, ge=1, examples=["name: cosine, decay_steps: 500"])
    """linear, cosine: updates until the end; all after the warmup by default."""
    cycle_steps: int | None = Field(None, ge=2, examples=["name: cyclic, cycle_steps: 200"])
    """cyclic: updates up and down; all after the warmup by default."""
    end_factor: float = Field(
        0.0, ge=0, le=1, examples=["name: cosine, end_factor: 0.1", "{low: 0, high: 0.2}"]
    )
    """Share of learning_rate at the end of the decay, or between two cycles."""

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


class Augment(Section):
    """More from few training records. Validation and test stay as they are."""

    name: str = Field(
        "none",
        pattern=r"^(none|reverse|diacritics|[^\W\d]\w*:[^\W\d]\w*)$",
        examples=["train: {augment: diacritics}", "{choices: [none, diacritics]}"],
    )
    """reverse: each pair also the other way round; diacritics: the source without ʻokina and
    kahakō, in the place of the record; module:function of a module.py in the current folder, given
    source and reference, gives a pair more, or None."""
    share: float = Field(
        1.0, ge=0, le=1, examples=["name: diacritics, share: 0.5", "{low: 0, high: 1}"]
    )
    """Share of the training records, by the sweep's seed; more hold the fewer."""
    prompt: str | None = Field(
        None, examples=['name: reverse, prompt: "Translate to Hawaiian: {source}"']
    )
    """reverse: the user's message of the other direction."""

    @model_validator(mode="after")
    def _other_way_is_asked(self) -> "Augment":
        if self.prompt is not None and "{source}" not in self.prompt:
            raise ValueError("prompt must contain {source}, where the text to translate goes")
        return self

    def __str__(self) -> str:
        return self.name if self.share == 1 else f"{self.name} of {self.share:.0%}"

    @property
    def in_place(self) -> bool:
        """Whether what is made stands in the place of its record, not beside it."""
        return self.name == "diacritics"

    @property
    def growth(self) -> float:
        """Training examples for each of before, at most."""
        return 1.0 if self.name == "none" or self.in_place else 1.0 + self.share


def _named(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


_MOST_LAYERS = 10**6


def _check_layers(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        if 0 < value < 1:
            return value
        if (value == -1 or 1 <= value <= _MOST_LAYERS) and value == int(value):
            return int(value)
    raise ValueError("must be 1 or more, -1 for all layers, or a share of them such as 0.5")


class TrainSpec(Section):
    """How a trial trains: mlx_lm.lora's keys."""

    fine_tune_type: Literal["lora", "dora", "full"] = Field(
        "lora", examples=["fine_tune_type: dora", "{choices: [lora, dora]}"]
    )
    """Adapters with or without a learned magnitude, or the blocks' weights."""
    learning_rate: float = Field(
        1e-5, gt=0, le=1, examples=["learning_rate: 2e-4", "{low: 1e-5, high: 1e-3, log: true}"]
    )
    """Peak learning rate."""
    iters: int = Field(
        1000, ge=1, le=10**9, examples=["iters: 2000", "{low: 500, high: 2000, step: 500}"]
    )
    """Batches of batch_size to train on; updates = iters / grad_accumulation_steps."""
    batch_size: int = Field(4, ge=1, le=2**12, examples=["batch_size: 1", "{choices: [1, 2, 4]}"])
    """Examples a batch."""
    grad_accumulation_steps: int = Field(
        1, ge=1, le=2**20, examples=["grad_accumulation_steps: 4", "{choices: [1, 4, 16]}"]
    )
    """Batches an update."""
    num_layers: Annotated[int | float, BeforeValidator(_check_layers)] = Field(
        16, examples=["num_layers: -1", "{choices: [0.25, 0.5, -1]}"]
    )
    """Blocks to adapt, counted from the last; -1 for all; below 1 a share of them, which means the
    same for every model."""
    lora_parameters: LoraParameters = Field(default_factory=LoraParameters)
    lr_schedule: Annotated[LrSchedule, BeforeValidator(_named)] = LrSchedule()
    optimizer: OptimizerName = Field(
        "adam", examples=["optimizer: adamw", "{choices: [adam, muon]}"]
    )
    """Optimizer, with MLX's defaults; adafactor with scale_parameter and relative_step false, or it
    would not use learning_rate as it is."""
    optimizer_config: dict[OptimizerName, dict[str, OptimizerOption]] = Field(
        default_factory=dict,
        examples=[
            "optimizer_config: {adam: {bias_correction: true}}",
            "search: {optimizer_config.adamw.weight_decay: {low: 0.001, high: 0.1, log: true}}",
        ],
    )
    """Options of MLX's optimizers by name: {adam: {bias_correction: true}}."""
    max_grad_norm: float | None = Field(
        None, gt=0, examples=["max_grad_norm: 1.0", "{choices: [0.3, 1.0]}"]
    )
    """Gradients of a larger total norm are scaled down to it."""
    max_train_samples: int | None = Field(
        None, ge=1, examples=["max_train_samples: 400", "{choices: [20, 100, 400, 1800]}"]
    )
    """Train on so many of the training examples, by the sweep's seed; more hold the fewer."""
    augment: Annotated[Augment, BeforeValidator(_named)] = Augment()
    order: Literal["shuffle", "curriculum"] = Field(
        "shuffle", examples=["order: curriculum", "{choices: [shuffle, curriculum]}"]
    )
    """Order of the batches; curriculum: the easiest first in the first epoch."""
    difficulty: Literal["length", "base_loss", "place"] = Field(
        "length", examples=["order: curriculum, difficulty: base_loss", "difficulty: place"]
    )
    """curriculum: what makes an example hard, its tokens, the base's loss on it, or its place in
    the data, as `hawsweep curate --best-first` writes them."""
    mask_prompt: bool = Field(False, examples=["mask_prompt: true"])
    """Learn from the completion only."""
    max_seq_length: int = Field(
        2048, ge=8, le=2**24, examples=["max_seq_length: 1024", "{choices: [256, 512, 1024]}"]
    )
    """Longer examples are truncated; in tokens. Searched, it cuts training examples alone: those of
    the validation set have the longest."""
    grad_checkpoint: bool | Literal["auto"] = Field("auto", examples=["grad_checkpoint: auto"])
    """Recompute activations backwards, to save memory; auto: where memory needs it."""
    steps_per_report: int = Field(10, ge=1, examples=["steps_per_report: 20"])
    """Iterations between reports of the training loss."""
    steps_per_eval: int = Field(200, ge=1, examples=["steps_per_eval: 200"])
    """Iterations between evaluations; pruning happens there."""
    early_stopping_patience: int | None = Field(None, ge=1, examples=["early_stopping_patience: 3"])
    """The trial ends after this many evaluations without improvement."""
    early_stopping_threshold: float = Field(
        0.0, ge=0, examples=["early_stopping_patience: 3, early_stopping_threshold: 0.005"]
    )
    """An improvement lowers the val loss by more than this."""
    keep_checkpoints: Annotated[int | Literal["every"], count_or("every", 0)] = Field(
        0, examples=["keep_checkpoints: 3"]
    )
    """Adapters kept beside the best: those of this many best evaluations, or every."""
    seed: int = Field(0, ge=0, lt=2**32, examples=["seed: 1"])
    """Seed of the adapter's initial values, dropout and data order."""

    def n_blocks(self, n_all: int) -> int:
        """Blocks to adapt of a model with ``n_all``; may be more than that."""
        if self.num_layers < 0:
            return n_all
        share = isinstance(self.num_layers, float)
        return max(1, round(self.num_layers * n_all)) if share else int(self.num_layers)

    @property
    def n_updates(self) -> int:
        """Updates of the whole trial; batches left over at its end make one."""
        return math.ceil(self.iters / self.grad_accumulation_steps)

    def contradictions(self) -> Iterator[str]:
        """The contradictions between keys that are each allowed alone."""
        schedule, n_updates = self.lr_schedule, self.n_updates
        warmup = schedule.warmup_steps(n_updates)
        rest = f"the trial has {counted(n_updates, 'update')} (iters / grad_accumulation_steps)"
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
        if self.augment.name == "reverse" and self.augment.prompt is None:
            yield (
                "augment.name is reverse, but what asks for the other direction is not said. Give "
                'augment.prompt, such as "Translate to Hawaiian: {source}".'
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
