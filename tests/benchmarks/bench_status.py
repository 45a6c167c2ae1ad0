"""How long `hawsweep status` takes on a long study, and `hawsweep --help`, each in its process.

python tests/benchmarks/bench_status.py [N_TRIALS]
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from optuna.storages._rdb import models
from sqlalchemy import insert

from hawsweep.space import distributions
from hawsweep.study import Place, create_study, open_storage
from hawsweep.sweepfile import check_sweep

_RUNS = 5
_N_PROMPTS = 40
_STATUS = """
import sys, time
from pathlib import Path
from hawsweep.cli import main
from hawsweep.cli import common, looking
from hawsweep import overview
from hawsweep.display import tables
import rich.console, rich.live
started = time.perf_counter()
try:
    main(["status", "long", "--studies-dir", sys.argv[1], *sys.argv[2:]])
finally:
    print(time.perf_counter() - started, file=sys.stderr)
"""
SPEC = check_sweep(
    {
        "model": "some/model",
        "data": "phrasebook",
        "search": {
            "learning_rate": {"low": 1e-5, "high": 2e-3, "log": True},
            "lora_parameters.rank": {"choices": [4, 8, 16, 32]},
            "iters": {"low": 60, "high": 140, "step": 40},
            "grad_accumulation_steps": {"choices": [1, 2, 4]},
        },
        "trials": 10**5,
    },
    "a sweep",
)


def make_study(place: Place, n_trials: int, *, with_samples: bool = True) -> None:
    """A study whose trials are as full as real ones: two in five complete, the others pruned."""
    storage = open_storage(place, create=True)
    study, _ = create_study(storage, place, "long", SPEC, {"test": "80:abc"})
    random = np.random.default_rng(0)
    space = distributions(SPEC.search)
    names = {name: json.dumps(_plain(each)) for name, each in space.items()}
    rows: dict[type, list[dict[str, object]]] = {}

    def add(table: type, **values: object) -> None:
        rows.setdefault(table, []).append(values)

    base = np.clip(random.normal(0.1, 0.1, _N_PROMPTS), 0, 1)
    _write_samples(place.study_dir("long") / "base", base)
    study.set_user_attr("base", {"score": base.mean(), "val_loss": 3.7, "time_s": 50.0})
    difficulty = random.normal(0, 0.2, _N_PROMPTS)
    for number in range(n_trials):
        is_complete = number % 5 < 2
        scores = np.clip(random.normal(0.5, 0.05) + difficulty, 0, 1)
        score = float(scores.mean())
        state = "COMPLETE" if is_complete else "PRUNED"
        times = {"datetime_start": _at(number), "datetime_complete": _at(number + 1)}
        add(
            models.TrialModel,
            trial_id=number + 1,
            number=number,
            study_id=study._study_id,
            state=state,
            **times,
        )
        for name, each in space.items():
            value = float(random.integers(2)) if "choices" in names[name] else each.low
            add(
                models.TrialParamModel,
                trial_id=number + 1,
                param_name=name,
                param_value=value,
                distribution_json=names[name],
            )
        for step in (20, 40, 60) if is_complete else (20,):
            add(
                models.TrialIntermediateValueModel,
                trial_id=number + 1,
                step=step,
                intermediate_value=-3.0 + step / 100,
                intermediate_value_type="FINITE",
            )
        attributes = {
            "val_loss": 1.1416852179140147,
            "best_iteration": 60,
            "tokens_per_s": 55.0,
            "peak_memory_bytes": 977112276,
            "time_s": 242.454,
            "train_time_s": 176.27,
            "plan": {"micro_batch": 4, "grad_checkpoint": False, "text": "whole", "peak_bytes": 1},
            "worker": {"host": "here", "boot": "1", "pid": 7, "started": 1.0},
        }
        if is_complete:
            add(
                models.TrialValueModel,
                trial_id=number + 1,
                objective=0,
                value=score,
                value_type="FINITE",
            )
            attributes |= {"score": score, "low": score - 0.1, "high": score + 0.1}
            attributes |= {"similarity": score, "chrf": 29.9, "bleu": 8.4, "exact_match": 0.0}
            attributes |= {"length_ratio": 1.0, "faults": {}, "score_time_s": 10.0}
            if with_samples:
                _write_samples(place.trial_dir("long", number), scores)
        else:
            attributes["reason"] = "behind the median of earlier trials at iteration 20"
        for key, value in attributes.items():
            add(
                models.TrialUserAttributeModel,
                trial_id=number + 1,
                key=key,
                value_json=json.dumps(value),
            )
    with storage.engine.begin() as connection:
        for table, values in rows.items():
            connection.execute(insert(table), values)
    storage.engine.dispose()


def _plain(distribution: object) -> dict[str, object]:
    from optuna.distributions import distribution_to_json

    return json.loads(distribution_to_json(distribution))


def _at(number: int) -> object:
    from datetime import datetime, timedelta

    return datetime(2026, 1, 1) + timedelta(seconds=60 * number)


def _write_samples(folder: Path, scores: "np.ndarray") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    record = {"source": "Ua heluhelu ʻo Leilani i ka puke.", "reference": "Leilani read the book."}
    record |= {"output": "Leilani read a book.", "faults": [], "group": "past"}
    lines = (json.dumps({**record, "similarity": s, "score": s}) for s in scores.tolist())
    (folder / "samples.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Print the seconds, each as minimum, median and maximum."""
    n_trials = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as folder:
        make_study(Place(Path(folder)), n_trials)
        for options in ((), ("--all",), ("--json",), ("--csv",)):
            times = []
            for _ in range(_RUNS):
                command = [sys.executable, "-c", _STATUS, folder, *options]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                times.append(float(done.stderr.split()[-1]))
            _print(f"status {' '.join(options)}", times)
    times = []
    for _ in range(_RUNS):
        started = time.perf_counter()
        command = [sys.executable, "-m", "hawsweep.cli", "--help"]
        subprocess.run(command, capture_output=True, check=True)
        times.append(time.perf_counter() - started)
    _print("--help, whole process", times)


def _print(name: str, values: list[float]) -> None:
    low, middle, high = min(values), statistics.median(values), max(values)
    print(f"{name:28} {low:8.3f} {middle:8.3f} {high:8.3f}")


if __name__ == "__main__":
    main()
