"""The machine's memory, and the part of it that hawsweep may take."""

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import psutil

from hawsweep.machine import backend, mac
from hawsweep.units import parse_share, parse_size

# The default reserve for other programs.
_RESERVE = "10%"
_SMALL_MAC_BYTES = 36e9
# The files of the limit, the usage, and the page cache in the usage: cgroup v2, then v1.
_CGROUP_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


@dataclass(frozen=True)
class Machine:
    """The memory figures of a machine.

    Attributes:
        available_bytes: Free now, page cache included, under every limit of a cgroup.
        limit_bytes: The lowest limit of a cgroup; None without one below ``total_bytes``.
        gpu_bytes: Bytes that the GPU may take, see ``backend.gpu_bytes``; None without a GPU.
        device: The GPU's name, else the processor's.
    """

    total_bytes: int
    available_bytes: int
    limit_bytes: int | None = None
    gpu_bytes: int | None = None
    device: str = ""


@dataclass(frozen=True)
class Budget:
    """The memory that hawsweep may take.

    Attributes:
        total_bytes: Of all workers together; 0 if the reserve leaves nothing.
        how: How it was computed, in one line for a person.
    """

    total_bytes: int
    how: str


def find_budget(asked: str = "auto", reserve: str | None = None, *, machine: Machine) -> Budget:
    """How much memory hawsweep may take on a machine.

    Args:
        asked: ``auto``: the available memory; a share of the total memory of the machine or
            cgroup; or a size, which is used even if less is available.
        reserve: The part left to other programs, a size or a share; None: 10 % with ``auto``,
            else nothing.

    Raises:
        ValueError: One of them is not of that form.
    """
    total, free, gpu = machine.total_bytes, machine.available_bytes, machine.gpu_bytes
    whole, whole_is = total, _gb(total)
    if machine.limit_bytes is not None:
        whole = machine.limit_bytes
        whole_is = f"{_gb(whole)} that the cgroup allows"
    if asked == "auto":
        taken, how = free, f"{_gb(free)} available of {whole_is}"
        if gpu is not None:
            taken = min(free, gpu)
            how = f"the GPU may take {_gb(gpu)}, {_gb(free)} are free"
        reserve = reserve or _RESERVE
    elif asked.endswith("%"):
        taken, how = _part(asked, whole), f"{asked[:-1]} % of {whole_is}"
        if gpu is not None and taken > gpu:
            taken = gpu
            how += f", but the GPU may take only {_gb(gpu)}"
    else:
        taken = parse_size(asked)
        how = f"{_gb(taken)} asked"
    if reserve is not None:
        is_share = reserve.endswith("%")
        kept = _part(reserve, taken)
        how += f", less a reserve of {f'{reserve[:-1]} %' if is_share else _gb(kept)}"
        taken = max(0, taken - kept)
    if gpu is not None and gpu < min(taken, free):
        how += f", though the GPU may take only {_gb(gpu)}"
    elif taken > free:
        how += f", though only {_gb(free)} are available"
    return Budget(taken, how)


def this_machine(proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> Machine:
    """The machine this process is on, as it is now.

    Args:
        proc: The folder ``/proc`` of Linux, with its processes.
        sys: The folder ``/sys`` of Linux, with its cgroups.
    """
    memory = psutil.virtual_memory()
    if platform.system() == "Darwin":
        return Machine(
            memory.total,
            _available_to_a_mac(memory.total, memory.available),
            gpu_bytes=backend.gpu_bytes() or gpu_of_a_mac(memory.total),
            device=backend.device_name(),
        )
    has_cuda = backend.device_here() == "cuda"
    # In cgroup v1 a number near 2**63 means no limit.
    rooms = [room for room in _cgroup_rooms(proc, sys) if room[0] < memory.total]
    return Machine(
        memory.total,
        min([memory.available, *(free for _, free in rooms)]),
        limit_bytes=min((limit for limit, _ in rooms), default=None),
        gpu_bytes=backend.gpu_bytes() if has_cuda else None,
        device=backend.device_name() if has_cuda else _processor(proc),
    )


def gpu_of_a_mac(total: int) -> int:
    """What the GPU of a Mac may take, where MLX does not tell: two thirds of up to 36 GB, and three
    quarters of more, as users report of MLX and llama.cpp.
    """
    return round(total * (2 / 3 if total <= _SMALL_MAC_BYTES else 3 / 4))


def _available_to_a_mac(total: int, counted: int) -> int:
    """What can be had without pressure: compressed and purgeable memory is not free, but would be.

    Args:
        counted: As psutil counts it: free and inactive.
    """
    share, pressure = mac.free_share(), mac.memory_pressure()
    if share is None or pressure != "normal":
        return counted
    return max(counted, int(share * total))


def available_bytes() -> int:
    """Bytes that a trial may take by default; see ``find_budget``."""
    return find_budget(machine=this_machine()).total_bytes


def usable_cores() -> int:
    """Processor cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _part(text: str, whole: int) -> int:
    """Bytes of a size, or of a share of ``whole``."""
    return int(parse_share(text) * whole) if text.endswith("%") else parse_size(text)


def _gb(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB"


def _cgroup_rooms(proc: Path, sys: Path) -> Iterator[tuple[int, int]]:
    """The limit of each cgroup this process is in, and what is free under it, in bytes."""
    for folder in _cgroup_folders(proc, sys):
        for limit_file, usage_file, cache_key in _CGROUP_FILES:
            limit = _read(folder / limit_file).strip()
            if limit.isdecimal():  # no limit: "max", or no such file
                usage = int(_read(folder / usage_file) or 0)
                stat = dict(line.split() for line in _read(folder / "memory.stat").splitlines())
                used = usage - int(stat.get(cache_key, 0))
                yield int(limit), max(0, int(limit) - used)


def _cgroup_folders(proc: Path, sys: Path) -> Iterator[Path]:
    for line in _read(proc / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root = sys / "fs" / "cgroup"
        elif "memory" in controllers.split(","):
            root = sys / "fs" / "cgroup" / "memory"
        else:
            continue
        # In a container the path may be the host's, which is missing here; the root always exists.
        inside = PurePosixPath(path.lstrip("/"))
        yield from (root / level for level in (inside, *inside.parents))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _processor(proc: Path) -> str:
    for line in _read(proc / "cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
