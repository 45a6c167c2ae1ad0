"""Access to MLX: device facts, process-wide settings, and the fast BLAS on Linux.

Everything that needs MLX takes it from here (``from hawsweep.machine.backend import mx``), so that
on Linux an optimized BLAS is in the process before MLX is. MLX's Linux wheel links the reference
BLAS, and calls the first ``cblas_sgemm`` in the global symbol scope
(tests/benchmarks/bench_blas.py shows the difference).

``HAWSWEEP_BLAS`` chooses: ``auto`` (the default), ``off``, or the path of a shared library with
``cblas_*`` symbols.
"""

import ctypes
import ctypes.util
import functools
import gc
import hashlib
import importlib
import importlib.util
import os
import platform
import re
import subprocess
import sys
import tempfile
import warnings
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import platformdirs
import psutil

from hawsweep.errors import BackendError
from hawsweep.machine import compiled_code, mac

if TYPE_CHECKING:
    import mlx.core as mx
    import mlx.nn as nn
    import mlx.optimizers as optim
    import mlx.utils as utils


__all__ = ["mx", "nn", "optim", "utils"]  # the others are public by their names

Device = Literal["cpu", "metal", "cuda"]

# PyPI's scipy-openblas32 prefixes its symbols. MLX calls these three.
_SHIM_SOURCE = """
#define GEMM(name, type, scalar)                                                              \\
  void scipy_cblas_##name(int, int, int, int, int, int, scalar, const type *, int,            \\
                          const type *, int, scalar, type *, int);                            \\
  void cblas_##name(int order, int ta, int tb, int m, int n, int k, scalar alpha,             \\
                    const type *a, int lda, const type *b, int ldb, scalar beta, type *c,     \\
                    int ldc) {                                                                \\
    scipy_cblas_##name(order, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);          \\
  }
GEMM(sgemm, float, float)
GEMM(dgemm, double, double)
GEMM(cgemm, void, const void *)
"""

_LIBRARY = "libmlx.so"
_CACHE_SHARE, _LEAST_CACHE_BYTES = 0.25, 10**9

_REMEDY = (
    "Matrix products will be about 20 times slower. Install a C compiler and scipy-openblas32 "
    "(pip), or Debian's libopenblas0, or set HAWSWEEP_BLAS to the path of a BLAS; "
    "HAWSWEEP_BLAS=off hides this."
)


@dataclass(frozen=True)
class Blas:
    """The BLAS that MLX's CPU backend uses in this process.

    Attributes:
        name: ``scipy-openblas32``, ``openblas``, ``custom``, or ``built-in`` for MLX's own.
        path: The library loaded ahead of MLX, or None.
    """

    name: str
    path: Path | None = None


def cache_dir() -> Path:
    """The folder for files that can be made again: converted models, measured steps.

    ``HAWSWEEP_CACHE`` overrides the user's cache directory.
    """
    override = os.environ.get("HAWSWEEP_CACHE")
    return Path(override) if override else platformdirs.user_cache_path("hawsweep")


def code_dir() -> Path:
    """The folder for this user's compiled code, the BLAS shim and MLX's kernels, in ``cache_dir``.

    Raises:
        BackendError: It cannot be made, or another user could write there.
    """
    return compiled_code.own_folder(cache_dir())


def check_folders() -> None:
    """Check that what runs MLX can compile its kernels and write temporary files, and remove
    kernels that were written in part.

    Raises:
        BackendError: The message has the folder and the remedy.
    """
    if device_here() == "cpu":
        compiled_code.check_room(folder := code_dir())
        compiled_code.remove_partial(folder)


def load_fast_blas() -> Blas:
    """Load an optimized BLAS ahead of MLX's own on Linux.

    On other systems (a Mac has Accelerate) and with CUDA it does nothing. If none can be loaded,
    it warns once and names the remedy.

    Raises:
        BackendError: ``HAWSWEEP_BLAS`` names a file that cannot be loaded.
    """
    choice = os.environ.get("HAWSWEEP_BLAS", "auto")
    if choice in ("off", "0") or device_here() != "cpu":
        return Blas("built-in")
    if "mlx.core" in sys.modules:
        warnings.warn(
            f"MLX was imported before hawsweep, too late for a fast BLAS. {_REMEDY}", stacklevel=2
        )
        return Blas("built-in")
    if choice != "auto":
        return _load_custom(Path(choice))
    reasons = []
    for load in (_load_scipy_openblas, _load_system_openblas):
        try:
            return load()
        except (OSError, ImportError, subprocess.SubprocessError) as fault:
            reasons.append(str(fault))
    warnings.warn(f"No fast BLAS: {'; '.join(reasons)}. {_REMEDY}", stacklevel=2)
    return Blas("built-in")


def _load_custom(path: Path) -> Blas:
    try:
        # Checked before it is loaded into the process for good.
        if not hasattr(ctypes.CDLL(str(path), mode=ctypes.RTLD_LOCAL), "cblas_sgemm"):
            raise OSError("it has no cblas_sgemm")
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    except OSError as fault:
        raise BackendError(
            f"HAWSWEEP_BLAS={path} cannot be loaded: {fault}. "
            "Set it to a shared library with cblas symbols, to 'auto' or to 'off'."
        ) from fault
    return Blas("custom", path)


def _load_scipy_openblas() -> Blas:
    library = _scipy_openblas()
    ctypes.CDLL(str(_compile_shim(library)), mode=ctypes.RTLD_GLOBAL)
    return Blas("scipy-openblas32", library)


def _scipy_openblas() -> Path:
    found = importlib.util.find_spec("scipy_openblas32")
    if found is None or found.origin is None:
        raise ImportError("scipy-openblas32 is not installed")
    return Path(found.origin).parent / "lib" / "libscipy_openblas.so"


def _compile_shim(library: Path) -> Path:
    key = hashlib.sha256(f"{_SHIM_SOURCE}{library}".encode()).hexdigest()[:16]
    shim = code_dir() / "blas" / f"{key}.so"
    if shim.exists():
        return shim
    shim.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=shim.parent) as folder:
        source, built = Path(folder, "shim.c"), Path(folder, "shim.so")
        source.write_text(_SHIM_SOURCE)
        subprocess.run(  # nosec B607 # the compiler that the person has chosen by PATH
            [
                "cc",
                "-O2",
                "-shared",
                "-fPIC",
                source,
                "-o",
                built,
                library,
                f"-Wl,-rpath,{library.parent}",
            ],
            check=True,
            capture_output=True,
        )
        built.replace(shim)
    return shim


def _load_system_openblas() -> Blas:
    name = ctypes.util.find_library("openblas")
    if name is None:
        raise OSError("no OpenBLAS among the system's libraries")
    ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
    return Blas("openblas", Path(name))


@functools.cache
def blas() -> Blas:
    """The BLAS of this process, loaded on first use; see ``load_fast_blas``."""
    return load_fast_blas()


def __getattr__(name: str) -> ModuleType:
    """Give ``mx``, ``nn``, ``optim`` and ``utils``, importing MLX only now, after the fast BLAS.

    So commands that do not compute can use this module without MLX's import time.

    Raises:
        BackendError: MLX is installed, but cannot be loaded here.
    """
    modules = {
        "mx": "mlx.core",
        "nn": "mlx.nn",
        "optim": "mlx.optimizers",
        "utils": "mlx.utils",
    }
    if name not in modules:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    blas()
    _keep_kernels_private()
    try:
        module = globals()[name] = importlib.import_module(modules[name])
    except ImportError as fault:  # also where a GPU has no memory left
        remedy = (
            "An MLX for CUDA needs NVIDIA's driver and free memory on the GPU; for the CPU install "
            "mlx[cpu] instead (pip)."
            if device_here() == "cuda"
            else "On Linux install mlx[cpu], or mlx[cuda13] for a GPU of NVIDIA (pip)."
            if platform.system() == "Linux" and not builds_here()
            else "Install mlx again (pip)."
        )
        raise BackendError(f"MLX cannot be loaded: {fault}. {remedy}") from fault
    return module


@functools.cache
def _keep_kernels_private() -> None:
    """Have MLX keep its CPU kernels in ``code_dir``.

    It compiles them below the temporary folder, whose name it reads at each compilation
    (mlx/backend/cpu/compiled.cpp), and loads what has the right name there: in a shared folder
    another user's library. Python's temporary files stay where they were.
    """
    if device_here() == "cpu":
        folder = code_dir()
        with suppress(FileNotFoundError):  # where none can be written, the first use reports it
            tempfile.gettempdir()  # which is remembered
        os.environ["TMPDIR"] = str(folder)


def _core() -> Any:
    # __getattr__ is not called for names in the module itself.
    return globals().get("mx") or __getattr__("mx")


def device_here() -> Device:
    """MLX's default device; MLX is asked where it is imported, and not imported for it."""
    if platform.system() == "Darwin":
        return "metal"
    if (core := sys.modules.get("mlx.core")) is not None:
        return "cpu" if core.default_device() == core.cpu else "cuda"
    return "cuda" if next(iter(builds_here()), "").startswith("mlx-cuda") else "cpu"


def builds_here() -> list[str]:
    """The packages with MLX's library for Linux that are installed, the one in use first.

    Those for the CPU and for each version of CUDA bring the same file: the one that was installed
    last has written over the other's.
    """
    found = {}
    for requirement in metadata.requires("mlx") or ():
        if package := re.match(r"mlx-(cpu|cuda[\w-]*)", requirement):
            with suppress(metadata.PackageNotFoundError):
                found[package[0]] = metadata.distribution(package[0])
    return sorted(found, key=lambda name: not _is_in_use(found[name]))


def _is_in_use(package: metadata.Distribution) -> bool:
    libraries = [each for each in package.files or () if each.name == _LIBRARY]
    try:
        return all(Path(each.locate()).stat().st_size == each.size for each in libraries)
    except OSError:
        return False


def is_cpu() -> bool:
    """Whether MLX computes on the CPU here."""
    return bool(_core().default_device() == _core().cpu)


def seed(value: int) -> None:
    """Seed MLX's process-wide random generator (LoRA's initial values)."""
    _core().random.seed(value)


def random_seed() -> int:
    """A seed that puts MLX's process-wide generator into its present state.

    The generator's key is the 64 bits of its seed (mlx/random.cpp), so each state is the first
    state of some seed.
    """
    high, low = (int(half) for half in _core().random.state[0].tolist())
    return high << 32 | low


def recommended_bytes() -> int | None:
    """Bytes that Metal may keep resident, by MLX; None without Metal."""
    size = _core().device_info().get("max_recommended_working_set_size")
    return int(size) if size else None


def gpu_bytes() -> int | None:
    """Bytes that the GPU may take: on Metal those it may wire, None where MLX does not tell; with
    CUDA those free now, 0 where MLX does not tell; None on a CPU.
    """
    if device_here() != "cuda":
        return recommended_bytes()
    return int(_core().device_info().get("free_memory") or 0)


def device_name() -> str:
    """MLX's name for its device; empty without one."""
    return str(_core().device_info().get("device_name", ""))


def wire_memory(n_bytes: float) -> None:
    """On Metal, let MLX keep this much resident, at most the recommended working set; elsewhere do
    nothing.

    Wired memory is lost to the system, the cache of freed buffers included: Macs have stopped
    with three quarters of their memory wired (ml-explore/mlx#3186).
    """
    recommended = recommended_bytes()
    if recommended is not None:
        _core().set_wired_limit(int(min(recommended, n_bytes)))


def limit_memory(n_bytes: float) -> int:
    """Set MLX's memory limit: above it MLX finishes running operations before it starts new ones.

    MLX queues operations ahead of their computation, which takes memory: on a CPU up to twice the
    memory of the arrays in use. Above the limit it waits. Results do not change, nothing fails.

    Returns:
        The earlier limit.
    """
    return int(_core().set_memory_limit(int(n_bytes)))


def limit_cache(peak_bytes: float) -> None:
    """Keep at most a quarter of a trial's peak, and 1 GB, in freed buffers for what comes next.

    Without a limit MLX keeps all of them up to its memory limit: of steps of varying width several
    times what a step needs (ml-explore/mlx-lm#986). Its CPU backend keeps none.
    """
    _core().set_cache_limit(most_cached(peak_bytes))


def most_cached(peak_bytes: float) -> int:
    """The most bytes in freed buffers of a trial with this peak; see ``limit_cache``."""
    return int(max(_CACHE_SHARE * peak_bytes, _LEAST_CACHE_BYTES))


def clear_cache() -> None:
    """Give freed buffers back to the system: the next ones have other sizes."""
    _core().clear_cache()


def free_memory() -> None:
    """Free the memory of unreferenced arrays, also of arrays in reference cycles."""
    gc.collect()
    clear_cache()


@dataclass(frozen=True)
class MemoryNow:
    """The memory of this process now, in bytes.

    Attributes:
        active: In MLX's arrays.
        cached: In freed buffers that MLX keeps.
        footprint: What the system counts for the process: on a Mac with the GPU's memory, elsewhere
            the resident part in main memory.
    """

    active: int
    cached: int
    footprint: int


def memory_now() -> MemoryNow:
    """The memory of this process now."""
    footprint = mac.footprint_bytes(os.getpid()) if platform.system() == "Darwin" else None
    if footprint is None:
        footprint = psutil.Process().memory_info().rss
    core = _core()
    return MemoryNow(core.get_active_memory(), core.get_cache_memory(), int(footprint))


def reset_peak_memory() -> None:
    """Start a new measurement of peak memory; frees the allocator's cache first."""
    clear_cache()
    _core().reset_peak_memory()


def peak_memory_bytes() -> int:
    """Peak bytes of MLX's arrays since the last reset, without the allocator's cache."""
    return int(_core().get_peak_memory())
