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


def distributions(search: Mapping[str, Range | Choices]) -> dict[str, BaseDistribution]:
    """One distribution per key, the same for every trial: TPE needs that to learn jointly."""
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


def first_settings(spec: SweepSpec, config: Mapping[str, Any]) -> list[dict[str, SearchValue]]:
    """Settings to try before the sampler proposes any.

    The sweep's ``enqueue``; else the suggested learning rate and a third of it, with the middle and
    the highest rank, the most iterations and the fewest accumulated batches.
    """
    if spec.enqueue is not None:
        return [dict(settings) for settings in spec.enqueue]
    rate = suggested_learning_rate(config)
    middle: dict[str, SearchValue] = {}
    widest: dict[str, SearchValue] = {}
    for key, asked in spec.search.items():
        if key == "learning_rate":
            middle[key], widest[key] = (nearest(asked, value) for value in (rate, rate / 3))
        elif key == "iters":
            middle[key] = widest[key] = values_of(key, asked)[-1]
        elif key == "grad_accumulation_steps":
            middle[key] = widest[key] = values_of(key, asked)[0]
        else:
            values = values_of(key, asked)
            middle[key], widest[key] = values[(len(values) - 1) // 2], values[-1]
    return [middle] if middle == widest else [middle, widest]


def first_of_models(
    spec: SweepSpec, configs: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, SearchValue]]:
    """``first_settings`` of the models in turn: the first of each model, then the second of each.

    Args:
        configs: Each model's ``config.json``.
    """
    if not spec.searches_models or spec.enqueue is not None:
        return first_settings(spec, configs[spec.model])
    of_each = [
        [{MODEL: model, **settings} for settings in first_settings(spec.of_model(model), config)]
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
