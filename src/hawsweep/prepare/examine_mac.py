"""Examines what is peculiar to a Mac: the system, the memory that the GPU may take, display, lid,
panics, and whether low bits compute there as they should.
"""

import platform
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hawsweep.errors import BackendError
from hawsweep.files import existing_folder
from hawsweep.machine import backend, mac
from hawsweep.prepare.finding import Finding
from hawsweep.study.faults import DISPLAY_HELP
from hawsweep.study.place import Place, synced_by

_OLDEST, _WIRES = 14, 15  # versions of macOS: MLX's wheels, and its wired limit
_PANICS, _RECENT_DAYS = Path("/Library/Logs/DiagnosticReports"), 30
_STEPS, _WIDTHS = 20, range(32, 32 + 20 * 24, 24)
_LEAST_COSINE = 0.99


def mac_findings(place: Place, panics: Path = _PANICS) -> Iterator[Finding]:
    """What a Mac tells without computing."""
    yield _system()
    yield _gpu_memory()
    yield _pressure()
    yield _display()
    yield Finding(
        "lid", "ok", "keep it open: caffeinate does not stop the sleep that closing starts"
    )
    yield _folder(place)
    yield _panics(panics)
    yield _openmp()
    text = "the code for Metal was written from MLX's sources and was never run"
    yield Finding("Metal", "warning", text, "Send hawsweep doctor --json with what goes wrong.")


def _system() -> Finding:
    version = platform.mac_ver()[0]
    text = f"macOS {version or 'of an unknown version'} on {mac.chip() or 'an unknown chip'}"
    major = int(version.partition(".")[0] or 0)
    if 0 < major < _OLDEST:
        return Finding("macOS", "fault", text, f"MLX needs macOS {_OLDEST}: update the system.")
    if major < _WIRES:
        remedy = f"Before macOS {_WIRES} MLX cannot keep a model in memory: large ones are slower."
        return Finding("macOS", "warning", text, remedy)
    return Finding("macOS", "ok", text)


def _gpu_memory() -> Finding:
    try:
        recommended = backend.recommended_bytes()
    except BackendError as fault:
        return Finding("GPU memory", "fault", str(fault))
    if recommended is None:
        text = "MLX does not tell what the GPU may take"
        remedy = "Two thirds to three quarters are assumed; else set memory.budget in the sweep."
        return Finding("GPU memory", "warning", text, remedy)
    text = f"the GPU may take {recommended / 1e9:.1f} GB"
    if limit := mac.sysctl_number("iogpu.wired_limit_mb"):
        text += f", by iogpu.wired_limit_mb={limit}"
    return Finding("GPU memory", "ok", text)


def _pressure() -> Finding:
    pressure, share = mac.memory_pressure(), mac.free_share()
    if pressure is None or share is None:
        text = "the system does not tell its memory pressure"
        return Finding("pressure", "warning", text, "Free memory is taken as psutil counts it.")
    text = f"memory pressure is {pressure}, {share:.0%} could be given"
    if pressure != "normal":
        return Finding("pressure", "warning", text, "Close other programs.")
    return Finding("pressure", "ok", text)


def _display() -> Finding:
    is_on = mac.is_display_on()
    if is_on is False:
        return Finding("display", "ok", "it sleeps")
    text = "it is on" if is_on else "whether it is on is not known"
    return Finding("display", "warning", text, DISPLAY_HELP)


def _folder(place: Place) -> Finding:
    folder = existing_folder(place.studies_dir)
    if (cloud := synced_by(folder)) is not None:
        text = f"{folder} is synced by {cloud}, which may take files away while they are used"
        return Finding("folder", "warning", text, "Choose another --studies-dir.")
    other = Path(str(folder).swapcase())
    text = f"{folder}, on this machine alone"
    if other != folder and other.exists():
        text += "; its file system takes large letters for small ones"
    return Finding("folder", "ok", text)


def _panics(folder: Path) -> Finding:
    since = time.time() - _RECENT_DAYS * 86400
    try:
        recent = [each for each in folder.glob("*.panic") if each.stat().st_mtime > since]
    except OSError:
        recent = []
    if not recent:
        return Finding("panics", "ok", f"no report of the last {_RECENT_DAYS} days")
    newest = max(recent, key=lambda each: each.stat().st_mtime)
    text = f"{len(recent)} reports of the last {_RECENT_DAYS} days, the newest {newest}"
    remedy = (
        "If they came while training: lower memory.budget, since wired memory may be the cause."
    )
    return Finding("panics", "warning", text, remedy)


def _openmp() -> Finding:
    bring = []
    for name in ("torch", "sklearn"):
        found = find_spec(name)
        places = found.submodule_search_locations if found else None
        folders = [Path(place) / inside for place in places or () for inside in ("lib", ".dylibs")]
        if any(any(folder.glob("libomp*.dylib")) for folder in folders):
            bring.append(name)
    if len(bring) < 2:
        return Finding("OpenMP", "ok", "one library at most")
    text = f"{' and '.join(bring)} bring one each; the embedder's process loads both"
    remedy = "If it ends with OMP: Error #15, set KMP_DUPLICATE_LIB_OK=TRUE."
    return Finding("OpenMP", "ok", text, remedy)


def low_bits_finding() -> Finding:
    """Whether a layer of 4 bits in bf16 has the gradient that it has in float32."""
    cosine = low_bits_cosine()
    text = f"the gradient through 4 bits in bf16 has cosine {cosine:.4f} to that in float32"
    if cosine < _LEAST_COSINE:
        return Finding("4 bits", "fault", text, "Train a model in 16 bits, and report this line.")
    return Finding("4 bits", "ok", text)


def low_bits_cosine() -> float:
    """The cosine of a loss's gradient by a layer's input, in 4 bits and bf16, to float32's."""
    from hawsweep.machine.backend import mx, nn

    mx.random.seed(0)
    layer = nn.Linear(256, 512, bias=False)
    low = layer.to_quantized(group_size=64, bits=4)
    low.set_dtype(mx.bfloat16)
    weights = mx.dequantize(low.weight, low.scales, low.biases, group_size=64, bits=4)
    inputs = mx.random.normal((32, 256))

    def loss(x: mx.array) -> Any:
        return (low(x).astype(mx.float32) ** 2).mean()

    def whole(x: mx.array) -> Any:
        return ((x @ weights.astype(mx.float32).T) ** 2).mean()

    one = mx.grad(loss)(inputs.astype(mx.bfloat16)).astype(mx.float32).flatten()
    other = mx.grad(whole)(inputs).flatten()
    return float((one @ other / mx.sqrt((one @ one) * (other @ other))).item())


def cache_finding() -> Finding:
    """What MLX keeps in freed buffers after twenty steps of varying width."""
    from hawsweep.machine.backend import mx

    backend.free_memory()
    backend.limit_cache(0)
    for width in _WIDTHS:
        one = mx.random.normal((8 * width, 2048))
        mx.eval(one @ one.T)
    kept = backend.memory_now().cached
    backend.free_memory()
    text = f"{kept / 1e9:.2f} GB kept in freed buffers after {_STEPS} steps of varying width"
    return Finding("GPU cache", "ok", text)
