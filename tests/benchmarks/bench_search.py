"""How many trials each strategy takes to come near the best, on a table of finished runs.

python tests/benchmarks/bench_search.py --table FILE [--repeats N] [--json]

FILE is a CSV of ``model,lr,rank,test_nll``, such as the one that Tinker Cookbook publishes. Each
model is a surface: monotone cubic interpolation in the logarithm of the rate, constant beyond the
rates of a rank. A trial's loss has noise of .05 %. The strategies are random settings; hawsweep
0.1's, two first settings and Optuna's TPE; today's first settings with TPE; and today's. The same
surfaces are then moved to where no prior expects them.
"""

import argparse
import csv
import json
import math
import re
import statistics
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from scipy.interpolate import PchipInterpolator

from hawsweep.search.distributions import first_settings, suggested_learning_rate
from hawsweep.search.sampler import GaussianProcessSampler
from hawsweep.spec.read import check_sweep
from hawsweep.spec.space import nearest, values_of
from hawsweep.spec.sweep import SweepSpec

N_TRIALS = 20
_NOISE = 0.0005
_RATE, _RANK = "learning_rate", "lora_parameters.rank"
# Widths from the models' published configs; the suggested rate needs them.
_WIDTHS = (
    ("Llama-3.2-1B", 2048),
    ("Llama-3.1-8B", 4096),
    ("70B", 8192),
    ("Qwen3(.5)?-4B", 2560),
    ("Qwen3-8B|Qwen3.5-9B|235B", 4096),
    ("27B", 5120),
    ("A3B", 2048),
    ("DeepSeek|Kimi", 7168),
    ("gpt-oss", 2880),
    ("Nano", 2688),
)
_USUAL_WIDTH = 4096
# How a surface is moved: its best rate by a factor, and whether low ranks take the place of high.
MOVES = {
    "as published": (1.0, False),
    "rate / 10": (0.1, False),
    "rate x 3": (3.0, False),
    "low rank best": (1.0, True),
}


@dataclass(frozen=True)
class Surface:
    """A model's loss over rate and rank, from its row of the table."""

    model: str
    curves: dict[int, tuple[float, float, Callable[[float], float]]]
    moved: float
    is_turned: bool

    def loss(self, rate: float, rank: int) -> float:
        """The loss of a setting, without noise."""
        ranks = sorted(self.curves)
        if self.is_turned:
            rank = ranks[-1 - ranks.index(rank)]
        low, high, curve = self.curves[rank]
        return float(curve(min(max(math.log10(rate / self.moved), low), high)))

    @property
    def spec(self) -> SweepSpec:
        """A sweep over it; a moved surface widens the range to where its best rate is."""
        low = min(low for low, _, _ in self.curves.values())
        high = max(high for _, high, _ in self.curves.values())
        rates = {"low": 10**low * min(self.moved, 1), "high": 10**high * max(self.moved, 1)}
        search = {_RATE: {**rates, "log": True}, _RANK: {"choices": sorted(self.curves)}}
        content = {"model": "m", "data": "phrasebook", "search": search, "train": {"iters": 1}}
        return check_sweep(content, self.model)

    @property
    def config(self) -> dict[str, object]:
        """What the suggested rate is made of."""
        width = next((w for form, w in _WIDTHS if re.search(form, self.model)), _USUAL_WIDTH)
        kinds = ("llama", "qwen", "other")
        kind = next(each for each in kinds if each in self.model.lower() or each == "other")
        return {"model_type": kind, "hidden_size": width}

    def best(self) -> float:
        """Its lowest loss."""
        rates = self.spec.search[_RATE]
        spaced = np.geomspace(rates.low, rates.high, 400)
        return min(self.loss(rate, rank) for rate in spaced for rank in self.curves)


def read_surfaces(path: Path, moved: float, is_turned: bool) -> list[Surface]:
    """The models of a table."""
    losses: dict[str, dict[int, dict[float, float]]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            of_rank = losses.setdefault(row["model"], {}).setdefault(int(row["rank"]), {})
            of_rank[math.log10(float(row["lr"]))] = float(row["test_nll"])
    return [
        Surface(
            model,
            {
                rank: (min(of), max(of), PchipInterpolator(sorted(of), [of[x] for x in sorted(of)]))
                for rank, of in by_rank.items()
            },
            moved,
            is_turned,
        )
        for model, by_rank in losses.items()
    ]


def _first_of_0_1(spec: SweepSpec, config: dict[str, object]) -> list[dict[str, object]]:
    rate, ranks = suggested_learning_rate(config), values_of(_RANK, spec.search[_RANK])
    middle, rates = ranks[(len(ranks) - 1) // 2], spec.search[_RATE]
    return [
        {_RATE: nearest(rates, rate), _RANK: middle},
        {_RATE: nearest(rates, rate / 3), _RANK: ranks[-1]},
    ]


def _tpe(spec: SweepSpec, seed: int) -> BaseSampler:
    return TPESampler(seed=seed, n_startup_trials=5)


_First = Callable[[SweepSpec, dict[str, object]], list[dict[str, object]]]
STRATEGIES: dict[str, tuple[_First, Callable[[SweepSpec, int], BaseSampler]]] = {
    "random": (lambda *_: [], lambda _, seed: RandomSampler(seed=seed)),
    "0.1": (_first_of_0_1, _tpe),
    "four first, then tpe": (first_settings, _tpe),
    "four first, then gp": (first_settings, GaussianProcessSampler),
}


def lowest_losses(surface: Surface, strategy: str, seed: int) -> list[float]:
    """The lowest loss, without noise, after each of ``N_TRIALS`` trials."""
    first, sampler = STRATEGIES[strategy]
    spec, noise = surface.spec, np.random.default_rng(seed)
    rates = spec.search[_RATE]
    space = {
        _RATE: FloatDistribution(rates.low, rates.high, log=True),
        _RANK: CategoricalDistribution(spec.search[_RANK].choices),
    }
    study = optuna.create_study(direction="maximize")
    for settings in first(spec, surface.config):
        study.enqueue_trial(settings)
    lowest, found = math.inf, []
    for number in range(N_TRIALS):
        study.sampler = sampler(spec, seed * 1000 + number)
        trial = study.ask(space)
        loss = surface.loss(trial.params[_RATE], trial.params[_RANK])
        value = -loss * math.exp(noise.normal(0, _NOISE))
        trial.report(value, 1)
        study.tell(trial, value)
        lowest = min(lowest, loss)
        found.append(lowest)
    return found


def summary(runs: list[tuple[list[float], float]]) -> dict[str, float]:
    """Means over runs: trials to within 1 % and .5 %, and percent above the best after some."""

    def trials_to(share: float) -> float:
        return statistics.mean(
            next((n for n, loss in enumerate(run, 1) if loss <= best * (1 + share)), N_TRIALS + 1)
            for run, best in runs
        )

    def regret(n_trials: int) -> float:
        return statistics.mean(100 * (run[n_trials - 1] / best - 1) for run, best in runs)

    found = {"to_1_percent": trials_to(0.01), "to_half_percent": trials_to(0.005)}
    return found | {f"regret_after_{n}": regret(n) for n in (5, 10, 15)}


def main() -> None:
    """Print a row for each strategy and each move of the surfaces."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    table: dict[str, dict[str, dict[str, float]]] = {}
    for move, how in MOVES.items():
        surfaces = read_surfaces(asked.table, *how)
        if not asked.json:
            print(
                f"{move}, {len(surfaces)} models: trials to 1 %, to .5 %; % above after 5, 10, 15"
            )
        for strategy in STRATEGIES:
            runs = [
                (lowest_losses(each, strategy, seed), each.best())
                for each in surfaces
                for seed in range(asked.repeats)
            ]
            found = table.setdefault(move, {})[strategy] = summary(runs)
            if not asked.json:
                print(
                    f"  {strategy:22}", *(f"{value:7.3f}" for value in found.values()), flush=True
                )
    if asked.json:
        print(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
