"""MLX's optimizers for a spec, and the learning rate at each update."""

import math
from collections.abc import Callable
from typing import Any

from hawsweep.machine.backend import mx, optim

from hawsweep.errors import SpecError
from hawsweep.spec.train import TrainSpec

_KINDS = {
    "adam": "Adam",
    "adamw": "AdamW",
    "sgd": "SGD",
    "adafactor": "Adafactor",
    "muon": "Muon",
}
# With MLX's own, Adafactor ignores the learning rate it is given, or multiplies it by the size of a
# matrix, which for a fresh adapter's B is 0.
# Without momentum SGD is hardly used.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "adafactor": {"relative_step": False, "scale_parameter": False},
    "sgd": {"momentum": 0.9},
}


def optimizer_options(train: TrainSpec) -> dict[str, Any]:
    """The options of the optimizer besides its learning rate."""
    return {**_DEFAULTS.get(train.optimizer, {}), **train.optimizer_config.get(train.optimizer, {})}


def make_optimizer(train: TrainSpec) -> Any:
    """The optimizer by name; options not in ``optimizer_config`` have MLX's defaults.

    One of these matters: MLX's Adam does not correct its moments' bias unless told to
    (``bias_correction``). Where the gradient is steady it so takes steps of
    (1 - 0.9^t) / sqrt(1 - 0.999^t) times the learning rate at update t: 3.2 to 6.6 up to t = 100.

    Raises:
        SpecError: The optimizer does not have an option.
    """
    ratio = train.lora_parameters.loraplus_lr_ratio
    if ratio is None or train.fine_tune_type == "full":
        return _one_optimizer(train)
    # LoRA+ (arXiv 2402.12354): B learns faster than A.
    return optim.MultiOptimizer([_one_optimizer(train), _one_optimizer(train)], [_is_not_b])


def check_optimizer(train: TrainSpec) -> None:
    """Try an update with the optimizer.

    Raises:
        SpecError: The optimizer does not have an option, or cannot use its value.
    """
    optimizer = _one_optimizer(train)
    values = {"weight": mx.ones((2, 2))}
    try:
        mx.eval(optimizer.apply_gradients(values, values))
    except (TypeError, ValueError) as fault:
        raise SpecError(
            f"train.optimizer_config.{train.optimizer} has a value that MLX's optimizer cannot "
            f"use: {fault}. Correct it."
        ) from fault


def set_learning_rate(optimizer: Any, train: TrainSpec, rate: float) -> None:
    """Give an optimizer of ``make_optimizer`` its rate for the next update."""
    if isinstance(optimizer, optim.MultiOptimizer):
        ratio = train.lora_parameters.loraplus_lr_ratio or 1.0
        for each, factor in zip(optimizer.optimizers, (1.0, ratio), strict=True):
            each.learning_rate = mx.array(rate * factor, mx.float32)
    else:
        optimizer.learning_rate = mx.array(rate, mx.float32)


def learning_rate_at(train: TrainSpec, update: int) -> float:
    """The learning rate of an update, counted from 0.

    A warmup rises linearly from ``warmup_init``, reaches ``learning_rate`` at update ``warmup``
    and, as in mlx-lm, is there for one more. After it: linear and cosine reach
    ``end_factor * learning_rate`` after ``decay_steps`` and stay there; cyclic is triangular
    (arXiv 1506.01186), starting and ending each cycle at ``end_factor * learning_rate``.
    """
    schedule, peak = train.lr_schedule, train.learning_rate
    warmup = schedule.warmup_steps(train.n_updates)
    if update < warmup:
        return schedule.warmup_init + (peak - schedule.warmup_init) * update / warmup
    since = max(0, update - warmup - 1) if warmup else update
    share = _SHAPES[schedule.name](since, _span(train))
    return peak * (schedule.end_factor + (1 - schedule.end_factor) * share)


def mlx_lm_schedule(train: TrainSpec) -> dict[str, Any] | None:
    """The schedule as mlx-lm's ``lr_schedule``; None for a constant rate or an unknown schedule."""
    schedule, rate = train.lr_schedule, train.learning_rate
    warmup = schedule.warmup_steps(train.n_updates)
    span = _span(train)
    end = rate * schedule.end_factor
    arguments = {
        "constant": ("linear_schedule", [rate, rate, 1]),
        "linear": ("linear_schedule", [rate, end, span]),
        "cosine": ("cosine_decay", [rate, span, end]),
    }
    if schedule.name not in arguments or (schedule.name == "constant" and warmup == 0):
        return None
    name, values = arguments[schedule.name]
    return {
        "name": name,
        "arguments": values,
        "warmup": warmup,
        "warmup_init": schedule.warmup_init,
    }


def _span(train: TrainSpec) -> int:
    """Updates of the decay or of a cycle."""
    schedule = train.lr_schedule
    asked = schedule.cycle_steps if schedule.name == "cyclic" else schedule.decay_steps
    warmup = schedule.warmup_steps(train.n_updates)
    return asked or max(1, train.n_updates - (warmup + 1 if warmup else 0))


def _triangle(since: int, span: int) -> float:
    return 1 - abs(2 * (since % span) / span - 1)


_SHAPES: dict[str, Callable[[int, int], float]] = {
    "constant": lambda since, span: 1.0,
    "linear": lambda since, span: 1 - min(since / span, 1.0),
    "cosine": lambda since, span: (1 + math.cos(math.pi * min(since / span, 1.0))) / 2,
    "cyclic": _triangle,
}


def _one_optimizer(train: TrainSpec) -> Any:
    kind = getattr(optim, _KINDS[train.optimizer])
    try:
        return kind(learning_rate=train.learning_rate, **optimizer_options(train))
    except (TypeError, ValueError) as fault:
        raise SpecError(
            f"train.optimizer_config.{train.optimizer} has an option that MLX's optimizer does not "
            f"take: {fault}. Correct it."
        ) from fault


def _is_not_b(name: str, _: Any) -> bool:
    return not name.endswith("lora_b")
