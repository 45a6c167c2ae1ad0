"""What a model's steps really take on this machine: a few are measured, each in a child process,
and the coefficients of the memory model are fitted to them.

The result is kept in the cache, by the model, MLX's version and the device; every trial's measured
peak is added to it. Started as ``python -m hawsweep.calibration`` this is the child: one line of
JSON on its standard input says what to measure, each line on its output is a measurement.
"""

import gc
import hashlib
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hawsweep import backend
from hawsweep.errors import BackendError, UnknownArchitectureError
from hawsweep.peak import (
    COEFFICIENTS,
    Coefficients,
    Device,
    Execution,
    Step,
    process_bytes,
    slice_tokens,
    training_peak,
)
from hawsweep.planning import MemoryModel, Speed, step_flops
from hawsweep.shapes import ModelShape, read_config, shape_of
from hawsweep.trainspec import TrainSpec

# Bumped when what is measured or how it is read changes.
_VERSION = 2
_MOST_OBSERVED = 200
_FITTED = (
    "kept",
    "kept_scores",
    "kept_rank",
    "backward",
    "backward_scores",
    "again",
    "again_scores",
    "inputs",
    "inputs_scores",
    "forward",
    "head",
    "head_slice",
    "n_slices",
    "gradients",
    "fixed_bytes",
)
# How far a coefficient is expected from the device's own, as a logarithm, in units of the error
# of a measurement, a hundredth.
_PRIOR = 1 / 0.3
# A prediction that is too low costs a trial, one too high some speed.
_UNDER_WEIGHT = 3.0
_LEAST_ERROR = 0.05
_CHILD_TIMEOUT_S = 600
# Effective rates to start from, where nothing was measured. Metal: 350 tokens a second of
# gemma-3-4b-it-4bit, 16 checkpointed layers, on an M1 Ultra.
_ASSUMED_SPEED = {
    "cpu": Speed(60e9, 0.2, "assumed: one core at 60 GFLOP/s"),
    "metal": Speed(5.3e12, 0.05, "assumed: as an M1 Ultra trains gemma-3-4b-it-4bit"),
    "cuda": Speed(20e12, 0.02, "assumed: 20 TFLOP/s"),
}


@dataclass(frozen=True)
class Point:
    """A training step to measure."""

    step: Step
    num_layers: int
    rank: int
    execution: Execution
    optimizer: str = "adam"

    def train(self) -> TrainSpec:
        """The settings it stands for."""
        return TrainSpec.model_validate(
            {
                "batch_size": self.step.rows,
                "num_layers": self.num_layers,
                "iters": 2,
                "optimizer": self.optimizer,
                "grad_checkpoint": self.execution.grad_checkpoint,
                "lora_parameters": {"rank": self.rank},
            }
        )

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Point":
        """One out of plain values, as ``dataclasses.asdict`` gives them."""
        step, execution = Step(**values["step"]), Execution(**values["execution"])
        return cls(**{**values, "step": step, "execution": execution})


@dataclass(frozen=True)
class Observation:
    """A step and the most memory it took.

    Attributes:
        peak_bytes: Of MLX's arrays.
        seconds: The step's time, compiled before; None where unknown.
    """

    train: TrainSpec
    step: Step
    execution: Execution
    peak_bytes: int
    seconds: float | None = None

    def to_plain(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "train": self.train.model_dump(mode="json", exclude_unset=True),
            "step": asdict(self.step),
            "execution": asdict(self.execution),
            "peak_bytes": self.peak_bytes,
            "seconds": self.seconds,
        }

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Observation":
        """One out of plain values."""
        return cls(
            TrainSpec.model_validate(values["train"]),
            Step(**values["step"]),
            Execution(**values["execution"]),
            values["peak_bytes"],
            values["seconds"],
        )


@dataclass(frozen=True)
class Residual:
    """A measured peak beside what the fitted model says of it, in bytes."""

    observation: Observation
    predicted_bytes: int

    @property
    def error(self) -> float:
        """Relative; below 0 where the prediction is too low."""
        return self.predicted_bytes / self.observation.peak_bytes - 1


def device_here() -> Device:
    """What MLX computes on, without importing it."""
    if platform.system() == "Darwin":
        return "metal"
    return "cuda" if importlib.util.find_spec("mlx_cuda") else "cpu"


def points(n_layers: int, slice_tokens: int) -> list[Point]:
    """The steps to measure: each shows one of the coefficients, at sizes that take seconds."""

    def point(
        layers: int, rows: int, width: int, targets: int, checkpoint: bool, **others: Any
    ) -> Point:
        execution = Execution(rows, checkpoint, others.get("at_once"))
        step = Step(rows, width, rows * targets)
        return Point(step, min(layers, n_layers), others.get("rank", 8), execution)

    n_sliced = -(-6 * slice_tokens // 256) * 256
    rows = -(-n_sliced // 512)
    return [
        point(2, 1, 128, 32, False),
        point(6, 1, 256, 32, False),
        point(3, 2, 384, 24, False),
        point(4, 1, 256, 32, False, rank=64),
        point(2, 1, 128, 128, False),
        point(2, 1, 128, 32, True),
        point(6, 2, 256, 16, True),
        point(n_layers, 1, 512, 32, True),
        point(4, 1, 256, 128, True, rank=64),
        point(2, rows, n_sliced // rows, n_sliced // rows, True, at_once=slice_tokens),
    ]


def fit(
    shape: ModelShape, device: Device, observed: Sequence[Observation]
) -> tuple[Coefficients, list[Residual]]:
    """Coefficients that say what was observed, near the device's own where that says nothing."""
    from scipy.optimize import least_squares

    start = COEFFICIENTS[device]

    def with_factors(factors: Any) -> Coefficients:
        grown = {
            name: getattr(start, name) * math.exp(each)
            for name, each in zip(_FITTED, factors, strict=True)
        }
        return start.replaced(grown)

    def misfit(factors: Any) -> Any:
        now = with_factors(factors)
        errors = np.array(
            [100 * math.log(_predict(shape, each, now) / each.peak_bytes) for each in observed]
        )
        weighted = np.where(errors < 0, _UNDER_WEIGHT * errors, errors)
        return np.concatenate([weighted, _PRIOR * np.asarray(factors)])

    found = least_squares(misfit, np.zeros(len(_FITTED)), bounds=(-2.0, 2.0))
    fitted = with_factors(found.x)
    residuals = [Residual(each, round(_predict(shape, each, fitted))) for each in observed]
    error = max((abs(each.error) for each in residuals), default=start.error)
    return replace(fitted, error=max(_LEAST_ERROR, 1.5 * error)), residuals


def _predict(shape: ModelShape, observed: Observation, k: Coefficients) -> float:
    peak = training_peak(shape, observed.train, observed.step, observed.execution, k)
    return peak.total


def fit_speed(shape: ModelShape, device: Device, observed: Sequence[Observation]) -> Speed:
    """A rate and a time per step that say the measured times best, relatively."""
    timed = [each for each in observed if each.seconds]
    if len(timed) < 2:
        return _ASSUMED_SPEED[device]
    flops = np.array([step_flops(shape, o.train, o.step, o.execution) for o in timed])
    seconds = np.array([o.seconds for o in timed])
    matrix = np.stack([flops / seconds, 1 / seconds], axis=1)
    (per_flop, step_s), *_ = np.linalg.lstsq(matrix, np.ones(len(timed)), rcond=None)
    if per_flop <= 0 or step_s < 0:
        per_flop, step_s = float(np.median(seconds / flops)), 0.0
    return Speed(1 / float(per_flop), float(step_s), f"measured here in {len(timed)} steps")


def calibrated(model_path: Path) -> MemoryModel | None:
    """What the cache knows of a model here; None where it was never calibrated, or by an older
    version.
    """
    content = _read(cache_file(model_path))
    if content is None:
        return None
    try:
        observed = [Observation.of(each) for each in content["observed"]]
    except (KeyError, TypeError, ValueError):
        return None
    return _memory_model(_shape_here(model_path), device_here(), observed)


def uncalibrated(shape: ModelShape, device: Device) -> MemoryModel:
    """What is known of a model that was never measured."""
    how = {
        "cpu": "coefficients of SmolLM2, gemma3, qwen3 and llama on a CPU",
        "metal": "fitted to three peaks on an M1 Ultra, not calibrated here",
        "cuda": "as for Metal, not measured",
    }[device]
    return MemoryModel(shape, device, COEFFICIENTS[device], _ASSUMED_SPEED[device], how)


def memory_model(model_path: Path) -> MemoryModel | None:
    """What is known of a model here: by calibration, else by its shape; None where by neither."""
    try:
        return calibrated(model_path) or uncalibrated(_shape_here(model_path), device_here())
    except UnknownArchitectureError:
        return None


def _memory_model(
    shape: ModelShape, device: Device, observed: Sequence[Observation]
) -> MemoryModel:
    fitted, _ = fit(shape, device, observed)
    speed = fit_speed(shape, device, observed)
    return MemoryModel(shape, device, fitted, speed, f"calibrated here by {len(observed)} steps")


def ensure_calibrated(
    model_path: Path, known: MemoryModel, budget_bytes: float, progress: Callable[[str], None]
) -> MemoryModel:
    """What is known of a model here, measured now where it never was.

    Args:
        known: What ``memory_model`` gave; it stays where there is no memory for measuring.
    """
    if calibrated(model_path) is not None:
        return known
    progress("measuring what this model's training steps take (once on this machine)")
    try:
        return calibrate(model_path, progress, budget_bytes=budget_bytes)[0]
    except BackendError as fault:
        progress(f"{fault} Going by its shape alone.")
        return known


def calibrate(
    model_path: Path,
    progress: Callable[[str], None] = lambda _: None,
    *,
    budget_bytes: float = math.inf,
) -> tuple[MemoryModel, list[Residual]]:
    """Measure a model here, keep what was found, and give it with how well it fits.

    A child that dies costs its current point only.

    Args:
        budget_bytes: What the children may take together; points that need more are left out.

    Raises:
        BackendError: No point could be measured.
        UnknownArchitectureError: Nothing is known of such models.
    """
    shape, device = _shape_here(model_path), device_here()
    k = COEFFICIENTS[device]
    wanted = points(shape.n_layers, slice_tokens(shape.vocabulary, device))
    needed = [
        process_bytes(training_peak(shape, p.train(), p.step, p.execution, k).total, k)
        for p in wanted
    ]
    todo = [point for point, size in zip(wanted, needed, strict=True) if size <= budget_bytes]
    n_children = 2 if device == "cpu" and 2 * max(needed) <= budget_bytes else 1
    observed = measure(model_path, todo, progress, n_children=n_children)
    if not observed:
        raise BackendError(
            f"No step of {model_path} could be measured: there is no memory for one within "
            f"{budget_bytes / 1e9:.1f} GB, or the child processes died."
        )
    _write(cache_file(model_path), observed)
    _, residuals = fit(shape, device, observed)
    return _memory_model(shape, device, observed), residuals


def measure(
    model_path: Path,
    todo: Sequence[Point],
    progress: Callable[[str], None],
    *,
    n_children: int = 1,
) -> list[Observation]:
    """Measure points in child processes, ``n_children`` at a time; those that died are left out."""
    waiting = [list(todo[start::n_children]) for start in range(n_children)]
    observed: list[Observation] = []
    n_done = 0
    running = [(_start_child(model_path, part), part) for part in waiting if part]
    while running:
        child, part = running.pop(0)
        try:
            out, _ = child.communicate(timeout=_CHILD_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            out, _ = child.communicate()
        *whole, _ = out.split("\n")  # after the last end of a line: nothing, or a half one
        lines = [json.loads(line) for line in whole]
        observed += [_observation(point, line) for point, line in zip(part, lines, strict=False)]
        n_done += len(lines)
        progress(f"measured {n_done} of {len(todo)} training steps")
        rest = part[len(lines) + 1 :]  # without the one it died of
        if rest and (child.returncode or len(lines) < len(part)):
            running.append((_start_child(model_path, rest), rest))
    return observed


def note_trial(model_path: Path, observation: Observation) -> None:
    """Add what a trial took to what is known of its model; a full disk does not matter."""
    path = cache_file(model_path)
    content = _read(path)
    if content is None:
        return
    kept = content["observed"]
    first, later = kept[: content["n_calibration"]], kept[content["n_calibration"] :]
    later = [*later, observation.to_plain()][-_MOST_OBSERVED:]
    try:
        _replace(path, {**content, "observed": [*first, *later]})
    except OSError:
        return


def cache_file(model_path: Path) -> Path:
    """Where a model's calibration is kept: by its files, MLX's version and the device."""
    parts = [_VERSION, importlib.metadata.version("mlx"), device_here(), platform.machine()]
    parts += [os.cpu_count(), (model_path / "config.json").read_text(encoding="utf-8")]
    parts += [(p.name, p.stat().st_size) for p in sorted(model_path.glob("*.safetensors"))]
    digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
    return backend.cache_dir() / "calibration" / f"{digest}.json"


def _shape_here(model_path: Path) -> ModelShape:
    shape = shape_of(read_config(model_path))
    return shape.dequantized() if device_here() == "cpu" else shape


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # never written, or half: measured again
    if not isinstance(content, dict) or content.get("version") != _VERSION:
        return None
    observed, n_calibration = content.get("observed"), content.get("n_calibration")
    whole = isinstance(observed, list) and observed and isinstance(n_calibration, int)
    return content if whole else None


def _write(path: Path, observed: Sequence[Observation]) -> None:
    plain = [each.to_plain() for each in observed]
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, {"version": _VERSION, "n_calibration": len(plain), "observed": plain})


def _replace(path: Path, content: dict[str, Any]) -> None:
    beside = path.with_name(f"~{os.getpid()}-{path.name}")
    beside.write_text(json.dumps(content), encoding="utf-8")
    os.replace(beside, path)


def _start_child(model_path: Path, part: Sequence[Point]) -> "subprocess.Popen[str]":
    child = subprocess.Popen(
        [sys.executable, "-m", "hawsweep.calibration"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", **os.environ},
    )
    assert child.stdin is not None
    asked = {"model_path": str(model_path), "points": [asdict(each) for each in part]}
    child.stdin.write(json.dumps(asked) + "\n")
    child.stdin.flush()
    return child


def _observation(point: Point, line: dict[str, Any]) -> Observation:
    return Observation(
        point.train(),
        point.step,
        point.execution,
        line["peak_bytes"],
        line["seconds"],
    )


def measure_step(model: Any, point: Point) -> dict[str, float]:
    """Train two steps on random tokens, the second for its time; give peak and time.

    The arrays of steps measured before are freed first, so that a point's peak is its own.
    """
    from hawsweep.backend import mx

    from hawsweep.encoding import Example
    from hawsweep.evaluation import Evaluation
    from hawsweep.forward import FrozenBlocks
    from hawsweep.training import train_adapter, trainable

    gc.collect()
    mx.clear_cache()
    generator = np.random.default_rng(0)
    step, train = point.step, point.train()
    n_targets = step.n_targets // step.rows
    tokens = generator.integers(0, 256, (step.rows, step.width + 1), dtype=np.int32)
    examples = [Example(row, step.width + 1 - n_targets) for row in tokens]
    clock = _Clock()

    def order() -> Any:
        while True:
            yield tuple(range(step.rows))

    def no_evaluation(iteration: int) -> Evaluation:
        return Evaluation(iteration, 1.0, np.zeros(1, np.float32), 0.0)

    frozen = FrozenBlocks(model, budget_bytes=0)
    with trainable(model, train), frozen.in_use(), tempfile.TemporaryDirectory() as folder:
        train_adapter(
            model,
            train,
            examples,
            order(),
            no_evaluation,
            Path(folder),
            clock,
            frozen=frozen,
            tokens_at_once=point.execution.tokens_at_once,
        )
    return {"peak_bytes": clock.peak_bytes, "seconds": clock.seconds}


class _Clock:
    """Notes the peak and the last step's time while a run goes on."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.seconds, self.peak_bytes = 0.0, 0

    def on_iteration(self, iteration: int) -> None:
        now = time.perf_counter()
        self.seconds, self._last = now - self._last, now
        self.peak_bytes = backend.peak_memory_bytes()

    def on_report(self, report: Any) -> None:
        pass

    def on_evaluation(self, evaluation: Any, is_best: bool) -> None:
        pass


def main() -> None:
    """The child: measure what the line on standard input asks for."""
    asked = json.loads(sys.stdin.readline())
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    from hawsweep.models import load_model

    model = load_model(Path(asked["model_path"])).model
    for values in asked["points"]:
        out.write(json.dumps(measure_step(model, Point.of(values))) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
