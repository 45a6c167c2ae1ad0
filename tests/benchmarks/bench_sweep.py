"""A whole sweep beside the obvious alternative: an Optuna study that calls ``mlx_lm.lora`` per
trial.

The alternative has the same spec, sampler, seed and number of trials, reads the validation loss
that ``mlx_lm.lora`` prints, and prunes on it by the same pruner. It neither measures a base nor
translates anything; hawsweep does both within its time. With ``--blas both`` the alternative runs
twice: as installed, and with the fast BLAS put into its processes by ``LD_PRELOAD``.

    python tests/benchmarks/bench_sweep.py --trials 4 --blas fast
    python tests/benchmarks/bench_sweep.py --trials 2 --set train.steps_per_eval=4 \\
        --set train.iters=8 --blas both
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import optuna
import yaml

from hawsweep.data.load import load_data
from hawsweep.machine import backend
from hawsweep.models import resolve
from hawsweep.running.start import run_sweep
from hawsweep.search.distributions import distributions, first_settings
from hawsweep.search.sampler import make_sampler
from hawsweep.spec.read import find_sweep, parse_override, read_sweep
from hawsweep.spec.space import apply_settings
from hawsweep.spec.sweep import SweepSpec
from hawsweep.study.study import make_pruner
from hawsweep.training.adapters import mlx_lm_config

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_VAL_LINE = re.compile(r"^\s*(\d+)\s+val\s+([\d.]+)")


def time_hawsweep(spec: SweepSpec, folder: Path) -> tuple[float, optuna.Study]:
    """Seconds of a whole sweep, and its study."""
    started = time.perf_counter()
    outcome = run_sweep(spec, "hawsweep", studies_dir=folder)
    return time.perf_counter() - started, outcome.study


def time_alternative(
    spec: SweepSpec, folder: Path, preload: Path | None
) -> tuple[float, optuna.Study]:
    """Seconds of an Optuna study over the ``mlx_lm.lora`` command, and the study."""
    started = time.perf_counter()
    model = resolve.resolve_model(spec.model)
    splits = load_data(spec.data)
    opened = optuna.create_study(direction="maximize", pruner=make_pruner(spec))
    config = yaml.safe_load((model / "config.json").read_text(encoding="utf-8"))
    for settings in first_settings(spec, config):
        opened.enqueue_trial(settings)
    for number in range(spec.trials):
        opened.sampler = make_sampler(spec, number)
        trial = opened.ask(distributions(spec.search))
        value = _run_lora(spec, trial, model, splits.folder, folder, preload)
        opened.tell(
            trial, value, state=None if value is not None else optuna.trial.TrialState.PRUNED
        )
    return time.perf_counter() - started, opened


def _run_lora(
    spec: SweepSpec,
    trial: optuna.Trial,
    model: Path,
    data_dir: Path | None,
    folder: Path,
    preload: Path | None,
) -> float | None:
    """Minus the last validation loss, or None where the trial was pruned."""
    train = apply_settings(spec.train, trial.params)
    assert data_dir is not None
    config = {
        **mlx_lm_config(train, model, data_dir, folder / f"adapter-{trial.number}"),
        "val_batches": max(1, spec.validation.max_examples // train.batch_size),
    }
    path = folder / f"config-{trial.number}.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    if preload is not None:
        environment["LD_PRELOAD"] = str(preload)
    process = subprocess.Popen(
        [sys.executable, "-m", "mlx_lm", "lora", "-c", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    loss = None
    for line in process.stdout:
        if match := _VAL_LINE.match(_COLOUR.sub("", line)):
            step, loss = int(match[1]), float(match[2])
            trial.report(-loss, step)
            if step < train.iters and trial.should_prune():
                process.terminate()
                process.wait()
                return None
    if process.wait() != 0 or loss is None:
        raise SystemExit(f"mlx_lm.lora -c {path} failed with exit code {process.returncode}")
    return -loss


def main() -> None:
    """Run the arms one after the other and print their times and ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sweep", default="lr-rank")
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--blas", choices=("fast", "stock", "both"), default="fast")
    parser.add_argument("--repeats", type=int, default=1)
    asked = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    overrides = dict(parse_override(text) for text in [*asked.set, f"trials={asked.trials}"])
    spec = read_sweep(find_sweep(asked.sweep), overrides)
    resolve.resolve_model(spec.model)  # converted once, before any arm
    preload = backend.preload_path()
    arms = {"fast": [preload], "stock": [None], "both": [preload, None]}[asked.blas]
    print(f"{spec.trials} trials of {asked.sweep}; alternative: optuna + mlx_lm.lora")
    for _ in range(asked.repeats):
        with tempfile.TemporaryDirectory() as folder:
            seconds, opened = time_hawsweep(spec, Path(folder))
            _print("hawsweep", seconds, opened, seconds)
        for arm in arms:
            with tempfile.TemporaryDirectory() as folder:
                name = "optuna + mlx_lm.lora" + (", fast BLAS" if arm else ", BLAS as installed")
                other, opened = time_alternative(spec, Path(folder), arm)
                _print(name, other, opened, seconds)


def _print(name: str, seconds: float, opened: optuna.Study, reference: float) -> None:
    states = [trial.state.name.lower() for trial in opened.get_trials(deepcopy=False)]
    counts = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
    print(
        f"{name:42} {seconds:8.1f} s  {seconds / reference:6.2f} x hawsweep  ({counts})", flush=True
    )


if __name__ == "__main__":
    main()
