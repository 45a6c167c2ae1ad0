"""Watches whether the machine was short of memory when a worker died."""

import resource
from pathlib import Path

import psutil

from hawsweep.machine import mac
from hawsweep.study.faults import SHORT_SHARE, Circumstances


class MemoryWatch:
    """Whether memory was short while a worker ran; checked now and then, and at its death."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._killed_before = self._kernel_kills()
        self._was_short = False

    def look(self) -> None:
        """Note the free memory, or the pressure where the system tells it."""
        memory = psutil.virtual_memory()
        pressure = mac.memory_pressure()
        self._was_short = (
            memory.available < SHORT_SHARE * memory.total
            if pressure is None
            else pressure == "critical"
        )

    def circumstances(self, hung_s: float | None = None) -> Circumstances:
        """The observations since the last call."""
        killed = self._kernel_kills()
        by_kernel, self._killed_before = killed > self._killed_before, killed
        has_limit = resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
        return Circumstances(hung_s, by_kernel, self._was_short or has_limit)

    def _kernel_kills(self) -> int:
        """Processes that Linux has ended for lack of memory since its start, in any container."""
        try:
            lines = (self._proc / "vmstat").read_text(encoding="ascii").splitlines()
        except (OSError, UnicodeDecodeError):
            return 0  # not on a Mac
        return int(dict(line.split() for line in lines if line).get("oom_kill", 0))
