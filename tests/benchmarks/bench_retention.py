"""What SmolLM2 keeps of its own answers after it was trained on the phrase book: by the settings of
the bundled sweep's winner, and overtrained on purpose.

Each is a study of one setting with `retention: bundled`, which ends with the verdict's sentence.

    python tests/benchmarks/bench_retention.py --folder /tmp/retention
    python tests/benchmarks/bench_retention.py --folder /tmp/retention --only winner

The same command goes on with studies that were interrupted. On two cores the winner's takes about
as long as one trial of `lr-rank`, the overtrained one three times as long.
"""

import argparse
from pathlib import Path
from typing import Any

from hawsweep import run_sweep
from hawsweep.spec.read import load_sweep

# Rate, iterations and training pairs (None: all) of each.
SETTINGS: dict[str, tuple[float, int, int | None]] = {
    "winner": (1e-3, 140, None),
    "overtrained": (4e-3, 400, 20),
}


def sweep_of(rate: float, iters: int, n_pairs: int | None) -> dict[str, Any]:
    """The changes of `lr-rank` that make it a study of one setting."""
    search = {"learning_rate": {"low": rate, "high": rate}}
    return {
        "search": {**search, "lora_parameters.rank": {"choices": [16]}},
        "train.iters": iters,
        "train.max_train_samples": n_pairs,
        "pruning.name": "none",
        "confirm.top": 0,
        "trials": 1,
        "retention": "bundled",
    }


def main() -> None:
    """Train, and print what was lost."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--only", choices=SETTINGS)
    asked = parser.parse_args()
    for name in [asked.only] if asked.only else SETTINGS:
        spec = load_sweep("lr-rank", sweep_of(*SETTINGS[name]))
        outcome = run_sweep(spec, name, studies_dir=asked.folder)
        verdict = outcome.verdict()
        found = None if verdict is None else verdict.retention
        print(f"{name}: {'no answers' if found is None else found.sentence()}", flush=True)


if __name__ == "__main__":
    main()
