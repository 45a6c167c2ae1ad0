"""Optuna distributions of the search parameters, and the first settings to try."""

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from hawsweep.spec.space import MODEL, SEARCHABLE, Choices, Range, SearchValue, nearest, values_of
from hawsweep.spec.sweep import SweepSpec

_FEW_RECORDS = 100
# Of more iterations, layers or warmup comes no harm; of all other numbers the lowest is the safest.
_SAFE_WHEN_HIGH = {"iters", "num_layers", "max_train_samples", "lr_schedule.warmup_ratio"}
# The suggested rate is for this alpha; the scale is mlx-lm's own.
_USUAL = {"lora_parameters.alpha": 32.0, "lora_parameters.scale": 20.0}


def distributions(search: Mapping[str, Range | Choices]) -> dict[str, BaseDistribution]:
    """One distribution per key, the same for every trial: samplers need that to learn jointly."""
    return {key: _distribution(key, asked) for key, asked in search.items()}


def suggested_learning_rate(config: Mapping[str, Any]) -> float:
    """A learning rate that published LoRA sweeps suggest for a model, at scale = alpha / rank with
    alpha 32.

    5e-4 * (2000 / hidden_size) ** p, p = 0.781 for Llama and 0.0775 for Qwen (Tinker Cookbook).
    Other architectures get the mean of the two.

    Args:
        config: The model's ``config.json``.
    """
    config = {**config, **config.get("text_config", {})}
    powers = {"llama": 0.781, "qwen": 0.0775}
    kind = str(config.get("model_type", ""))
    power = next(
        (p for name, p in powers.items() if kind.startswith(name)), sum(powers.values()) / 2
    )
    return float(5e-4 * (2000 / config.get("hidden_size", 2000)) ** power)


def first_settings(
    spec: SweepSpec, config: Mapping[str, Any], n_train: int | None = None
) -> list[dict[str, SearchValue]]:
    """Settings to try before the sampler proposes any.

    The sweep's ``enqueue``; else the suggested rate, its double and its third with the highest
    rank, and the suggested rate with the lowest. All else has the value that risks least.

    Args:
        n_train: Training records. With fewer than 100, the first setting has the middle rank.
    """
    if spec.enqueue is not None:
        return [dict(settings) for settings in spec.enqueue]
    rate = suggested_learning_rate(config)
    first = "middle" if n_train is not None and n_train < _FEW_RECORDS else "highest"
    points = ((rate, first), (2 * rate, "highest"), (rate / 3, "highest"), (rate, "lowest"))
    found = [
        {key: _first_value(key, asked, *point) for key, asked in spec.search.items()}
        for point in points
    ]
    return [each for n, each in enumerate(found) if each not in found[:n]]


def _first_value(key: str, asked: Range | Choices, rate: float, rank: str) -> SearchValue:
    values = values_of(key, asked)
    if key == "learning_rate":
        return nearest(asked, rate)
    if key == "lora_parameters.rank":
        at = {"lowest": 0, "middle": (len(values) - 1) // 2, "highest": -1}
        return values[at[rank]]
    if key in ("lora_parameters.alpha", "lora_parameters.scale"):
        return nearest(asked, _USUAL[key])
    return values[-1] if key in _SAFE_WHEN_HIGH else values[0]


def first_of_models(
    spec: SweepSpec,
    configs: Mapping[str, Mapping[str, Any]],
    n_train: int | None = None,
) -> list[dict[str, SearchValue]]:
    """``first_settings`` of the models in turn: the first of each model, then the second of each.

    Args:
        configs: Each model's ``config.json``.
    """
    if not spec.searches_models or spec.enqueue is not None:
        return first_settings(spec, configs[spec.model], n_train)
    of_each = [
        [
            {MODEL: model, **settings}
            for settings in first_settings(spec.of_model(model), config, n_train)
        ]
        for model, config in configs.items()
    ]
    return [each for turn in zip_longest(*of_each) for each in turn if each is not None]


def _distribution(key: str, asked: Range | Choices) -> BaseDistribution:
    if isinstance(asked, Choices):
        return CategoricalDistribution(asked.choices)
    if SEARCHABLE[key] is int:
        step = 1 if asked.step is None else int(asked.step)
        return IntDistribution(int(asked.low), int(asked.high), log=asked.log, step=step)
    return FloatDistribution(asked.low, asked.high, log=asked.log, step=asked.step)
