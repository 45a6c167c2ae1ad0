"""How short of memory the machine was when a worker died."""

import resource
from pathlib import Path

import psutil

from hawsweep.study.faults import SHORT_SHARE, Circumstances


class MemoryWatch:
    """Whether memory was short while a worker ran; looked at now and then, and when it died."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._killed_before = self._kernel_kills()
        self._was_short = False

    def look(self) -> None:
        """Note what is left."""
        memory = psutil.virtual_memory()
        self._was_short = memory.available < SHORT_SHARE * memory.total

    def circumstances(self, hung_s: float | None = None) -> Circumstances:
        """What is known by now; counts what the kernel ended anew from here."""
        killed = self._kernel_kills()
        by_kernel, self._killed_before = killed > self._killed_before, killed
        has_limit = resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
        return Circumstances(hung_s, by_kernel, self._was_short or has_limit)

    def _kernel_kills(self) -> int:
        """How many processes Linux ended for want of memory since it started, of any container."""
        try:
            lines = (self._proc / "vmstat").read_text(encoding="ascii").splitlines()
        except (OSError, UnicodeDecodeError):
            return 0  # not on a Mac
        return int(dict(line.split() for line in lines if line).get("oom_kill", 0))
