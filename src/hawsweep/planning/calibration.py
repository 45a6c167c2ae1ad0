"""Calibration: fits the coefficients of the memory model to a few measured steps of a model on this
machine.

The result is kept in the cache, by the model, MLX's version and the device; every trial's measured
peak is added to it.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hawsweep.machine.backend import Device

import numpy as np

from hawsweep.errors import BackendError, UnknownArchitectureError
from hawsweep.files import replace_text
from hawsweep.machine import backend, memory
from hawsweep.machine.processes import n_competing
from hawsweep.models.config_file import read_config, read_config_text
from hawsweep.models.shape import ModelShape, is_known, shape_of
from hawsweep.planning import measured_steps
from hawsweep.planning.chips import assumed_speed
from hawsweep.planning.measured_steps import (
    PACE,
    Observation,
    Point,
    measure,
    points,
    profitable_workers,
)
from hawsweep.planning.peak import (
    ACTIVATIONS,
    Coefficients,
    Peak,
    process_bytes,
    slice_tokens,
    training_peak,
)
from hawsweep.planning.trial_plan import CostModel, Speed, step_flops
from hawsweep.text import SayProgress

# Increased when the measured values, or their reading, change.
_VERSION = 5
_MOST_OBSERVED = 200
_FITTED = (*ACTIVATIONS, "head", "head_slice", "n_slices", "gradients", "fixed_bytes")
# The expected logarithm of a coefficient over the device's own, in units of a measurement's error,
# a hundredth.
_PRIOR = 1 / 0.3
# A prediction that is too low costs a trial; one that is too high costs some speed.
_UNDER_WEIGHT = 3.0
_LEAST_ERROR = 0.05
# How other libraries quantize weights that mlx-lm 0.32 keeps packed, such as gpt-oss's.
_PACKED = ("mxfp4", "mxfp8", "bitnet", "compressed-tensors", "modelopt", "awq", "gptq")
# For a shape that was guessed in part: calibrated, and not.
_UNKNOWN_ERROR, _GUESSED_ERROR = 0.15, 0.5


@dataclass(frozen=True)
class Residual:
    """A measured peak beside the fitted model's prediction, in bytes."""

    observation: Observation
    predicted_bytes: int

    @property
    def error(self) -> float:
        """Relative; below 0 where the prediction is too low."""
        return self.predicted_bytes / self.observation.peak_bytes - 1


def fit(
    shape: ModelShape, device: Device, observed: Sequence[Observation]
) -> tuple[Coefficients, list[Residual]]:
    """Coefficients fitted to the observed steps; those not observed stay near the device's own.

    Of steps that are equal in the memory model, the one with the highest peak counts.
    """
    from scipy.optimize import least_squares

    start = Coefficients.of(shape, device)
    highest: dict[Peak, Observation] = {}
    for each in observed:
        kind = training_peak(shape, each.train, each.step, each.execution, start)
        if kind not in highest or each.peak_bytes > highest[kind].peak_bytes:
            highest[kind] = each
    observed = list(highest.values())

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
    """Not rounded: the fit's finite differences are below a byte where a peak is small."""
    peak = training_peak(shape, observed.train, observed.step, observed.execution, k)
    return float(sum(vars(peak).values()))


def fit_speed(shape: ModelShape, device: Device, observed: Sequence[Observation]) -> Speed:
    """A rate and a time per step with the smallest relative errors for the measured times."""
    timed = [each for each in observed if each.seconds]
    if len(timed) < 2:
        return assumed_speed(device)
    flops = np.array([step_flops(shape, o.train, o.step, o.execution) for o in timed])
    seconds = np.array([o.seconds for o in timed])
    matrix = np.stack([flops / seconds, 1 / seconds], axis=1)
    (per_flop, step_s), *_ = np.linalg.lstsq(matrix, np.ones(len(timed)), rcond=None)
    if per_flop <= 0 or step_s < 0:
        per_flop, step_s = float(np.median(seconds / flops)), 0.0
    return Speed(
        1 / float(per_flop),
        float(step_s),
        f"measured here in {len(timed)} steps",
        bandwidth=assumed_speed(device).bandwidth,
    )


def calibrated(model_path: Path) -> CostModel | None:
    """A model's calibration in the cache; None if there is none, or an older version made it."""
    content = _read(cache_file(model_path))
    return None if content is None else _of_content(json.dumps(content), model_path)


@functools.lru_cache(maxsize=4)  # fitting takes a second, and a plan is made in several steps
def _of_content(text: str, model_path: Path) -> CostModel | None:
    content = json.loads(text)
    try:
        observed = [Observation.of(each) for each in content["observed"]]
        kept = ModelShape.of(content["shape"])
        shape = kept if not is_known(kept.architecture) else _shape_here(model_path) or kept
        n_workers, under_load = int(content["n_workers"]), content.get("under_load", False)
    except (KeyError, TypeError, ValueError):
        return None
    return _memory_model(shape, observed, n_workers, under_load=under_load)[0]


def uncalibrated(shape: ModelShape, device: Device, chip: str | None = None) -> CostModel:
    """The memory model of a shape without measurements.

    Args:
        chip: Of a Mac; see ``chips.assumed_speed``.
    """
    how = {
        "cpu": "coefficients of SmolLM2, gemma3, qwen3 and llama on a CPU",
        "metal": "fitted to three peaks on an M1 Ultra, not calibrated here",
        "cuda": "as for Metal, not measured",
    }[device]
    coefficients = Coefficients.of(shape, device)
    if not is_known(shape.architecture):
        coefficients = replace(coefficients, error=_GUESSED_ERROR)
        how = f"guessed from the layers of {shape.architecture}, not calibrated here"
    return CostModel(shape, device, coefficients, assumed_speed(device, chip), how)


def cost_model(model_path: Path) -> CostModel | None:
    """A model's memory model here: by calibration, else by its shape; None without both."""
    found = calibrated(model_path)
    if found is not None:
        return found
    shape = _shape_here(model_path)
    return None if shape is None else uncalibrated(shape, backend.device_here())


def _memory_model(
    shape: ModelShape, observed: Sequence[Observation], n_workers: int, *, under_load: bool = False
) -> tuple[CostModel, list[Residual]]:
    device = backend.device_here()
    fitted, residuals = fit(shape, device, observed)
    speed = replace(fit_speed(shape, device, observed), n_workers=n_workers)
    how = f"calibrated here by {len(observed)} steps"
    if not is_known(shape.architecture):
        fitted = replace(fitted, error=max(_UNKNOWN_ERROR, fitted.error))
        how += f" alone: the architecture {shape.architecture} is not known"
    if under_load:
        speed = replace(speed, how=f"{speed.how} under load; the next start measures again")
    return (
        CostModel(shape, device, fitted, speed, how, is_calibrated=True, under_load=under_load),
        residuals,
    )


def ensure_calibrated(
    model_path: Path,
    known: CostModel | None,
    budget_bytes: float,
    progress: SayProgress,
) -> CostModel | None:
    """A model's memory model here; without a calibration the model is measured now. One measured
    under load is measured again if the machine is idle now.

    Args:
        known: The result of ``cost_model``; it is kept if measuring fails, or memory for it is
            short.
    """
    if known is not None and known.is_calibrated:
        if not known.under_load or n_competing() is not None:
            return known
        progress("this model was measured while other programs used the cores: measuring it again")
    else:
        progress("measuring this model's training steps (once on this machine)")
    try:
        return calibrate(model_path, progress, budget_bytes=budget_bytes)[0]
    except BackendError as fault:
        by = "nothing" if known is None else "its shape alone"
        by = "what was measured before" if known is not None and known.is_calibrated else by
        progress(f"{fault} Going by {by}.")
        return known


def calibrate(
    model_path: Path,
    progress: SayProgress = lambda _: None,
    *,
    budget_bytes: float = math.inf,
) -> tuple[CostModel, list[Residual]]:
    """Measure a model here, keep the result, and give it with its fit to each measurement.

    If a child process dies, only its current point is lost.

    Args:
        budget_bytes: Of all children together; points that need more are left out.

    Raises:
        BackendError: No point could be measured.
    """
    device, load = backend.device_here(), n_competing()
    backend.check_folders()
    if load is not None:
        progress(f"measured under load: {load:.1f} processes compete for the cores")
    shape = _shape_here(model_path)
    if shape is None:
        raise BackendError(f"mlx-lm cannot build {model_path} to see its shape.")
    k = Coefficients.of(shape, device)

    def needed(point: Point) -> int:
        peak = training_peak(shape, point.train(), point.step, point.execution, k)
        return process_bytes(peak.total, k)

    wanted = points(shape.n_layers, slice_tokens(shape.vocabulary, device))
    todo = [point for point in wanted if needed(point) <= budget_bytes]
    n_children = 2 if device == "cpu" and 2 * max(map(needed, wanted)) <= budget_bytes else 1
    observed = measure(model_path, todo, progress, n_children=n_children, budget_bytes=budget_bytes)
    if not observed:
        raise BackendError(
            f"No step of {model_path} could be measured: the smallest does not fit into "
            f"{budget_bytes / 1e9:.1f} GB, or the child processes died. Close other programs, "
            "raise memory.budget or use a smaller model; `hawsweep doctor` says whether training "
            "works here."
        )
    cores = memory.usable_cores()
    # Two on a GPU wait for each other, and together they may fill it: one, unless asked for more.
    most = int(min(cores if device == "cpu" else 1, budget_bytes // needed(PACE)))
    n_workers = profitable_workers(model_path, most, cores, progress)
    under_load = load is not None
    _write(cache_file(model_path), observed, n_workers, shape, under_load=under_load)
    return _memory_model(shape, observed, n_workers, under_load=under_load)


def note_trial(model_path: Path, observation: Observation) -> None:
    """Add a trial's measured peak to its model's calibration; a full disk is ignored."""
    path = cache_file(model_path)
    content = _read(path)
    if content is None:
        return
    kept = content["observed"]
    first, later = kept[: content["n_calibration"]], kept[content["n_calibration"] :]
    later = [*later, observation.to_plain()][-_MOST_OBSERVED:]
    try:
        replace_text(path, json.dumps({**content, "observed": [*first, *later]}))
    except OSError:
        return


def cache_file(model_path: Path) -> Path:
    """The file of a model's calibration, named by its files, MLX's version and the device."""
    parts = [_VERSION, importlib.metadata.version("mlx"), backend.device_here(), platform.machine()]
    parts += [os.cpu_count(), read_config_text(model_path)]
    parts += [(p.name, p.stat().st_size) for p in sorted(model_path.glob("*.safetensors"))]
    digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
    return backend.cache_dir() / "calibration" / f"{digest}.json"


def kept_calibrations() -> list[dict[str, Any]]:
    """The calibrations in the cache, as they were written: a user's machine in a report."""
    folder = backend.cache_dir() / "calibration"
    return [content for path in sorted(folder.glob("*.json")) if (content := _read(path))]


def find_shape(config: Mapping[str, Any], device: Device) -> ModelShape:
    """A model's shape as a device holds it, by its ``config.json``.

    Raises:
        ModelError: The config makes no sense, or nobody knows its architecture.
    """
    if is_known(config.get("model_type")):
        shape = shape_of(config)
        return shape.dequantized() if device == "cpu" else shape
    return _built_shape(json.dumps(config), device)


@functools.lru_cache(maxsize=16)  # a process that imports MLX
def _built_shape(text: str, device: Device) -> ModelShape:
    config = json.loads(text)
    built = measured_steps.built_shape(config, in_float32=device == "cpu")
    return built or shape_of(config)  # which says what is known


def _shape_here(model_path: Path) -> ModelShape | None:
    """A model's shape as it is in memory here; None where nobody knows its architecture."""
    device, config = backend.device_here(), read_config(model_path)
    with contextlib.suppress(UnknownArchitectureError):
        shape = find_shape(config, device)
        foreign = config.get("quantization_config") or {}
        if (
            device == "cpu"
            or "quantization" in config
            or foreign.get("quant_method") not in _PACKED
        ):
            return shape
        n_bytes = sum(each.stat().st_size for each in model_path.glob("model*.safetensors"))
        more = n_bytes - shape.weight_bytes() if n_bytes else 0
        return replace(shape, uncounted_bytes=shape.uncounted_bytes + more)
    return None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # missing or half-written: measured again
    if not isinstance(content, dict) or content.get("version") != _VERSION:
        return None
    observed, n_calibration = content.get("observed"), content.get("n_calibration")
    whole = isinstance(observed, list) and observed and isinstance(n_calibration, int)
    return content if whole else None


def _write(
    path: Path,
    observed: Sequence[Observation],
    n_workers: int,
    shape: ModelShape,
    *,
    under_load: bool = False,
) -> None:
    content = {
        "version": _VERSION,
        "n_calibration": len(observed),
        "n_workers": n_workers,
        "under_load": under_load,
        "device": backend.device_here(),
        "shape": shape.to_plain(),
        "observed": [each.to_plain() for each in observed],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps(content))
