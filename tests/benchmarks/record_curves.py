"""Records learning curves: settings trained whole, without pruning, evaluated again and again.

Each setting, a learning rate, a rank and a seed, trains as a trial of ``lr-rank`` does, at a
constant rate. What its evaluations give goes into one file that replays read. The recorded files
are in tests/search/curves, with the commands that made them.

The file is NumPy's ``.npz``. It has an entry of each array for a setting (s), an evaluation (e),
the first of the untrained adapter, and a validation example (x):

- ``rate``, ``rank``, ``seed``: ``[s]``.
- ``iteration``: ``[e]``, batches trained on; each is an update.
- ``val_loss``: ``[s, e]``, nats per target token; NaN after a run diverged.
- ``example_losses``: ``[s, e, x]``, nats per target token of each example, in units of 1e-4; -1
  where ``val_loss`` is NaN.
- ``n_targets``: ``[x]``, target tokens of each example, the weights of ``val_loss``.
- ``train_loss``, ``grad_norm``: ``[s, e]``, since the evaluation before, and of the last update.
- ``about``: JSON with model, data, batch, device, precision and versions.

The file is written after each setting, and a second run adds those that it does not have.

    python tests/benchmarks/record_curves.py --out phrasebook.npz
    python tests/benchmarks/record_curves.py --out fornander.npz --data ../shared/data/fornander \\
        --max-seq-length 1024 --validation 64 --rates 1e-4 2e-4 4e-4 8e-4 --ranks 8 32
"""

import argparse
import importlib.metadata
import json
import math
import os
import platform
import tempfile
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from hawsweep.machine.backend import device_here, device_name, mx, utils

import numpy as np

from hawsweep.data.load import load_data
from hawsweep.models import resolve
from hawsweep.models.load import load_model
from hawsweep.spec.read import check_sweep
from hawsweep.training.evaluation import Evaluation
from hawsweep.training.train import (
    NonFiniteLoss,
    StepReport,
    TrainCallback,
    train_adapter,
    trainable,
)
from hawsweep.trial.context import TrialContext, make_context

Setting = tuple[float, int, int]

# Of freed buffers, a process. Several that each keep theirs fill a GPU's memory.
_CACHE_BYTES = 2 * 10**9
_UNIT = 1e-4  # of the losses of examples
_NUMBERS = {"val_loss": np.float64, "train_loss": np.float32, "grad_norm": np.float32}


class _Curve(TrainCallback):
    """Keeps what a run tells at its evaluations."""

    def __init__(self, n_evaluations: int, n_examples: int) -> None:
        self.arrays = {k: np.full(n_evaluations, np.nan, v) for k, v in _NUMBERS.items()}
        self.arrays["example_losses"] = np.full((n_evaluations, n_examples), -1, np.int32)
        self._next = 0

    def on_report(self, report: StepReport) -> None:
        self.arrays["train_loss"][self._next] = round(report.train_loss, 4)
        self.arrays["grad_norm"][self._next] = round(report.grad_norm, 4)

    def on_evaluation(self, evaluation: Evaluation, is_best: bool) -> None:
        self.arrays["val_loss"][self._next] = round(evaluation.val_loss, 6)
        losses = np.rint(evaluation.example_losses / _UNIT).astype(np.int32)
        self.arrays["example_losses"][self._next] = losses
        self._next += 1


def make_spec(asked: argparse.Namespace) -> Any:
    """The sweep whose settings are recorded: ``lr-rank`` with what was asked."""
    train = {
        "batch_size": asked.batch_size,
        "iters": asked.iters,
        "num_layers": -1,
        "mask_prompt": True,
        "max_seq_length": asked.max_seq_length,
        "steps_per_eval": asked.every,
        "steps_per_report": asked.every,
        "optimizer_config": {"adam": {"bias_correction": True}},
        "lora_parameters": {"alpha": 32},
    }
    content = {
        "model": asked.model,
        "data": asked.data,
        "train": train,
        "search": {"learning_rate": {"low": 1e-6, "high": 1e-1, "log": True}},
        "validation": {"max_examples": asked.validation},
    }
    return check_sweep(content, "the recorded sweep")


@cache
def context_of(asked_text: str) -> TrialContext:
    """The model and the data, once in a process."""
    asked = argparse.Namespace(**json.loads(asked_text))
    spec = make_spec(asked)
    loaded = load_model(resolve.resolve_model(spec.model))
    nothing: Any = None  # nothing is scored
    return make_context(spec, loaded, load_data(spec.data), nothing, Path(), Path())


def record(asked_text: str, setting: Setting) -> dict[str, Any]:
    """Train one setting; give its arrays."""
    context = context_of(asked_text)
    mx.set_cache_limit(_CACHE_BYTES)
    rate, rank, seed = setting
    fixed = context.spec.train
    lora = fixed.lora_parameters.model_copy(update={"rank": rank})
    changes = {"learning_rate": rate, "lora_parameters": lora, "seed": seed}
    train = fixed.model_copy(update=changes)
    n_evaluations = 1 + math.ceil(train.iters / train.steps_per_eval)
    curve = _Curve(n_evaluations, len(context.valid))
    model, started = context.loaded.model, time.perf_counter()
    evaluate = context.evaluator()
    with (
        tempfile.TemporaryDirectory() as folder,
        trainable(model, train),
        context.frozen.in_use(),
    ):
        curve.on_evaluation(evaluate(0), False)
        try:
            train_adapter(
                model,
                train,
                context.train.examples,
                context.order(train),
                evaluate,
                Path(folder),
                curve,
                frozen=context.frozen,
                tokens_at_once=context.tokens_at_once,
            )
        except NonFiniteLoss as fault:
            print(f"rate {rate:g}, rank {rank}, seed {seed}: {fault}", flush=True)
    n_targets = [example.n_targets for example in context.valid]
    precisions = {str(v.dtype) for _, v in utils.tree_flatten(model.parameters())}
    return {
        **curve.arrays,
        "n_targets": np.array(n_targets, np.int32),
        "seconds": time.perf_counter() - started,
        "precision": sorted(precisions),
        "device": device_name() or platform.machine(),
    }


def about(asked: argparse.Namespace, done: dict[str, Any]) -> dict[str, Any]:
    """Where and how the curves were recorded."""
    is_product_exact = device_here() != "cuda" or os.environ.get("MLX_ENABLE_TF32") == "0"
    return {
        "model": asked.model,
        "data": Path(asked.data).name,
        "batch_size": asked.batch_size,
        "max_seq_length": asked.max_seq_length,
        "alpha": 32,
        "optimizer": "adam, bias_correction",
        "backend": device_here(),
        "device": done["device"],
        "precision": done["precision"],
        "products": "as stored" if is_product_exact else "float32 by TF32",
        "unit_of_example_losses": _UNIT,
        "versions": {name: importlib.metadata.version(name) for name in ("mlx", "mlx-lm")},
    }


def read_known(path: Path) -> dict[Setting, dict[str, Any]]:
    """The settings that a file has, with their arrays."""
    if not path.is_file():
        return {}
    with np.load(path) as saved:
        parts = {key: saved[key] for key in saved.files}
    rows = zip(parts["rate"].tolist(), parts["rank"].tolist(), parts["seed"].tolist(), strict=True)
    return {
        setting: {key: parts[key][at] for key in (*_NUMBERS, "example_losses")}
        for at, setting in enumerate(rows)
    }


def write(
    path: Path, curves: dict[Setting, dict[str, Any]], done: dict[str, Any], asked: Any
) -> None:
    """Write all curves, the settings in order."""
    settings = sorted(curves)
    rate, rank, seed = (np.array(column) for column in zip(*settings, strict=True))
    ends = range(asked.every, asked.iters + asked.every, asked.every)
    stacked = {
        key: np.stack([curves[setting][key] for setting in settings])
        for key in (*_NUMBERS, "example_losses")
    }
    beside = path.with_suffix(".part.npz")
    np.savez_compressed(
        beside,
        rate=rate,
        rank=rank.astype(np.int32),
        seed=seed.astype(np.int32),
        iteration=np.array([0, *(min(end, asked.iters) for end in ends)], np.int32),
        n_targets=done["n_targets"],
        about=np.array(json.dumps(about(asked, done))),
        **stacked,
    )
    beside.replace(path)


def settings_of(asked: argparse.Namespace) -> list[Setting]:
    """The settings asked for, those named and the grid."""
    if asked.settings:
        parts = [(text.split(":") + ["0"])[:3] for text in asked.settings]
        return [(float(rate), int(rank), int(seed)) for rate, rank, seed in parts]
    return list(product(asked.rates, asked.ranks, asked.seeds))


def main() -> None:
    """Record the settings that the file does not have."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--data", default="phrasebook")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--max-seq-length", type=int, default=256)
    parser.add_argument("--iters", type=int, default=140)
    parser.add_argument("--every", type=int, default=5, help="iterations between evaluations")
    parser.add_argument("--validation", type=int, default=40, help="validation examples")
    parser.add_argument("--settings", nargs="*", help="RATE:RANK or RATE:RANK:SEED, not a grid")
    grid = [1e-4 * 2**power for power in range(6)]
    parser.add_argument("--rates", type=float, nargs="*", default=grid)
    parser.add_argument("--ranks", type=int, nargs="*", default=[4, 8, 16, 32])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--processes", type=int, default=1, help="settings at a time")
    asked = parser.parse_args()
    curves = read_known(asked.out)
    wanted = [setting for setting in settings_of(asked) if setting not in curves]
    text = json.dumps({**vars(asked), "out": str(asked.out)})
    started = time.perf_counter()
    with ProcessPoolExecutor(asked.processes, get_context("spawn")) as pool:
        tasks = {pool.submit(record, text, setting): setting for setting in wanted}
        for number, task in enumerate(as_completed(tasks), 1):
            rate, rank, seed = tasks[task]
            if (fault := task.exception()) is not None:  # the others go on
                print(f"rate {rate:g}, rank {rank}, seed {seed} failed:", flush=True)
                traceback.print_exception(fault)
                continue
            done = task.result()
            curves[tasks[task]] = done
            write(asked.out, curves, done, asked)
            least = np.nanmin(done["val_loss"])
            print(
                f"{number} of {len(wanted)}, {time.perf_counter() - started:.0f} s: rate {rate:g}, "
                f"rank {rank}, seed {seed}: {least:.4f} at best, {done['val_loss'][-1]:.4f} at the "
                f"end, in {done['seconds']:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
