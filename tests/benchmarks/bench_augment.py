"""Few pairs with and without each augmentation, with several seeds: is it worth it?

Each seed is a sweep of the bundled model and phrase book whose trials differ in ``augment.name``
alone: same pairs, same steps, same validation set. A difference is that of a seed's two runs, and
its interval is Student's over the seeds.

    python tests/benchmarks/bench_augment.py --pairs 20 --seeds 4
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from scipy import stats

from hawsweep.running.start import run_sweep
from hawsweep.spec.read import find_sweep, read_sweep

NAMES = ("none", "diacritics", "reverse")
OTHER = "Translate English to Hawaiian: {source}"


def losses_and_scores(asked: argparse.Namespace, seed: int, folder: Path) -> dict[str, list[float]]:
    """The lowest validation loss and the score of each kind of a sweep."""
    changes = {
        "train.seed": seed,
        "seed": seed,
        "train.learning_rate": asked.learning_rate,
        "train.iters": asked.iters,
        "train.steps_per_eval": 10,
        "train.max_train_samples": asked.pairs,
        "train.augment": {"share": asked.share, "prompt": OTHER},
        "search": {"augment.name": {"choices": list(NAMES)}},
        "trials": len(NAMES),
        "workers": 1,
        "pruning": {"name": "none"},
        "confirm": {"top": 0},
        "scoring.test": False,
        "scoring.prompt": {"examples": 0},
    }
    spec = read_sweep(find_sweep("lr-rank"), changes)
    study = run_sweep(spec, f"seed-{seed}", studies_dir=folder).study
    return {
        trial.params["augment.name"]: [-max(trial.intermediate_values.values()), trial.value]
        for trial in study.trials
    }


def main() -> None:
    """Print the mean of each kind, and its difference from none."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--iters", type=int, default=40)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--share", type=float, default=1.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = [losses_and_scores(asked, seed, Path(folder)) for seed in range(asked.seeds)]
    print(f"{asked.pairs} pairs, {asked.iters} iterations, {asked.seeds} seeds")
    for name in NAMES:
        values = np.array([each[name] for each in found])
        print(f"  {name:11} val loss {values[:, 0].mean():.4f}, score {values[:, 1].mean():.4f}")
        if name == "none":
            plain = values
            continue
        for what, of_seeds in zip(("val loss", "score"), (values - plain).T, strict=True):
            mean, error = of_seeds.mean(), stats.sem(of_seeds)
            reach = error * stats.t.ppf(0.975, len(of_seeds) - 1)
            print(f"    {what}: {mean:+.4f} ({mean - reach:+.4f} to {mean + reach:+.4f}, 95 %)")


if __name__ == "__main__":
    main()
