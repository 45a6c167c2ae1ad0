"""A whole sweep beside the obvious alternative: an Optuna study that calls ``mlx_lm.lora`` per
trial.

The alternative has the same spec, first settings, sampler, seed and number of settings begun, reads
the validation loss that ``mlx_lm.lora`` prints, and prunes on it by the spec's pruner; where the
spec promotes, by Optuna's median pruner. It neither measures a base nor translates anything;
hawsweep does both within its time. With ``--blas both`` the alternative runs twice: as installed,
and with the fast BLAS put into its processes by ``LD_PRELOAD``. With ``--plain`` it has what Optuna
gives by itself: its tree sampler with one of the seeds, and no first settings.

The time to the same validation loss is the seconds from the start of an arm until it first had an
adapter of that loss. ``mlx_lm.lora`` prints the loss of other batches at each evaluation. So it
saves its adapter at each, when hawsweep evaluates too, and these adapters are evaluated afterwards,
untimed, on hawsweep's validation examples. Their time is that of the file, so the alternative knows
a loss without evaluating it. A trial pruned at an evaluation has saved up to the one before.
hawsweep's time is that of its ``eval`` events; confirming runs do not count. The losses compared
are the worse of the two arms' lowest ones, and two on the way to it.

The arms run one after the other, each on the whole machine.

    python tests/benchmarks/bench_sweep.py --trials 6 --blas fast
    python tests/benchmarks/bench_sweep.py --trials 2 --set train.steps_per_eval=4 \\
        --set train.iters=8 --blas both
"""

import argparse
import itertools
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hawsweep.machine.backend import mx, utils

import optuna
import yaml

from hawsweep.data.load import load_data
from hawsweep.machine import backend
from hawsweep.models import resolve
from hawsweep.models.load import load_model
from hawsweep.running.events import Event
from hawsweep.running.start import run_sweep
from hawsweep.search.distributions import distributions, first_settings
from hawsweep.search.sampler import make_sampler
from hawsweep.spec.read import find_sweep, parse_override, read_sweep
from hawsweep.spec.space import apply_settings
from hawsweep.spec.sweep import SweepSpec
from hawsweep.study.study import make_pruner
from hawsweep.training.adapters import adapted, mlx_lm_config
from hawsweep.trial.context import make_context

# Seconds since the start of an arm, and a validation loss known then.
Curve = list[tuple[float, float]]

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_VAL_LINE = re.compile(r"^\s*(\d+)\s+val\s+([\d.]+)")


def time_hawsweep(spec: SweepSpec, folder: Path) -> tuple[float, optuna.Study, Curve]:
    """Seconds of a whole sweep, its study, and its lowest validation losses."""
    started, known, confirms = time.perf_counter(), Curve(), False

    def keep(event: Event) -> None:
        nonlocal confirms
        confirms = confirms or event.kind == "confirm_start"
        if event.kind == "eval" and event.values["val_loss"] is not None and not confirms:
            known.append((time.perf_counter() - started, event.values["val_loss"]))

    outcome = run_sweep(spec, "hawsweep", studies_dir=folder, on_event=keep)
    return time.perf_counter() - started, outcome.study, lowest(known)


def time_alternative(
    spec: SweepSpec, folder: Path, preload: Path | None, plain_seed: int | None
) -> tuple[float, optuna.Study, Curve]:
    """Seconds of an Optuna study over the ``mlx_lm.lora`` command, the study, and its lowest
    validation losses.

    Args:
        plain_seed: The seed of Optuna's own sampler; None for hawsweep's, and its first settings.
    """
    started, began = time.perf_counter(), time.time()
    model = resolve.resolve_model(spec.model)
    splits = load_data(spec.data)
    opened = optuna.create_study(direction="maximize", pruner=_pruner(spec))
    if plain_seed is None:
        config = yaml.safe_load((model / "config.json").read_text(encoding="utf-8"))
        for settings in first_settings(spec, config):
            opened.enqueue_trial(settings)
    else:
        opened.sampler = optuna.samplers.TPESampler(seed=plain_seed)
    for number in range(spec.trials):
        if plain_seed is None:
            opened.sampler = make_sampler(spec, number)
        trial = opened.ask(distributions(spec.search))
        value = _run_lora(spec, trial, model, splits.folder, folder, preload)
        opened.tell(
            trial, value, state=None if value is not None else optuna.trial.TrialState.PRUNED
        )
    seconds = time.perf_counter() - started
    return seconds, opened, lowest((at - began, loss) for at, loss in _saved(spec, opened, folder))


def _pruner(spec: SweepSpec) -> optuna.pruners.BasePruner:
    promotes = spec.pruning.name == "promote"
    return optuna.pruners.MedianPruner() if promotes else make_pruner(spec)


def _saved(spec: SweepSpec, study: optuna.Study, folder: Path) -> Curve:
    """When each adapter was saved, and its loss on hawsweep's validation examples."""
    loaded = load_model(resolve.resolve_model(spec.model))
    nothing: Any = None  # nothing is scored
    context = make_context(spec, loaded, load_data(spec.data), nothing, Path(), Path())
    evaluate = context.evaluator(context.valid)
    found = []
    for trial in study.get_trials(deepcopy=False):
        train = apply_settings(spec.train, trial.params)
        with adapted(loaded.model, train):
            names = {name for name, _ in utils.tree_flatten(loaded.model.trainable_parameters())}
            for path in (folder / f"adapter-{trial.number}").glob("*adapters.safetensors"):
                weights = mx.load(str(path))
                assert weights.keys() == names
                loaded.model.load_weights(list(weights.items()), strict=False)
                found.append((path.stat().st_mtime, evaluate(0).val_loss))
    return found


def lowest(known: Iterable[tuple[float, float]]) -> Curve:
    """The losses below all before them."""
    found = Curve()
    for at, loss in sorted(known):
        if not found or loss < found[-1][1]:
            found.append((at, loss))
    return found


def time_to(curve: Curve, loss: float) -> float:
    """Seconds until a loss at most this high was known."""
    return next(at for at, each in curve if each <= loss)


def levels(curves: Iterable[Curve]) -> list[float]:
    """The losses at which arms are compared: the worse of their lowest, last, and before it those
    that are a half and three quarters of the way down from their first.
    """
    first = min(curve[0][1] for curve in curves)
    last = max(curve[-1][1] for curve in curves)
    return [first + share * (last - first) for share in (0.5, 0.75) if last < first] + [last]


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
        "save_every": train.steps_per_eval,
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
    parser.add_argument("--plain", type=int, nargs="+", default=[None], metavar="SEED")
    parser.add_argument("--repeats", type=int, default=1)
    asked = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    overrides = dict(parse_override(text) for text in [*asked.set, f"trials={asked.trials}"])
    spec = read_sweep(find_sweep(asked.sweep), overrides)
    resolve.resolve_model(spec.model)  # converted once, before any arm
    preload = backend._compile_shim(backend._scipy_openblas())
    arms = {"fast": [preload], "stock": [None], "both": [preload, None]}[asked.blas]
    print(f"{spec.trials} trials of {asked.sweep}; alternative: optuna + mlx_lm.lora")
    for _ in range(asked.repeats):
        with tempfile.TemporaryDirectory() as folder:
            seconds, opened, ours = time_hawsweep(spec, Path(folder))
            _print("hawsweep", seconds, opened, seconds, ours)
        for arm, seed in itertools.product(arms, asked.plain):
            with tempfile.TemporaryDirectory() as folder:
                name = "optuna + mlx_lm.lora" + (", fast BLAS" if arm else ", BLAS as installed")
                name += "" if seed is None else f", seed {seed}"
                other, opened, theirs = time_alternative(spec, Path(folder), arm, seed)
                _print(name, other, opened, seconds, theirs)
            for loss in levels([ours, theirs]):
                ahead, behind = time_to(ours, loss), time_to(theirs, loss)
                print(
                    f"  validation loss {loss:.3f}: {ahead:7.1f} s and {behind:7.1f} s,"
                    f" {behind / ahead:6.2f} x hawsweep",
                    flush=True,
                )


def _print(name: str, seconds: float, opened: optuna.Study, reference: float, curve: Curve) -> None:
    states = [trial.state.name.lower() for trial in opened.get_trials(deepcopy=False)]
    counts = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
    print(f"{name:42} {seconds:8.1f} s  {seconds / reference:6.2f} x hawsweep  ({counts})")
    known = ", ".join(f"{loss:.3f} at {at:.0f} s" for at, loss in curve)
    print(f"  lowest validation loss: {known}", flush=True)


if __name__ == "__main__":
    main()
