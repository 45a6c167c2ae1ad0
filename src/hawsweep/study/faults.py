"""Why a worker died, or a trial failed, and what follows from it.

| kind | known by | consequence |
| --- | --- | --- |
| out_of_memory | its words; the kernel's count; a signal while memory was short | a smaller plan |
| watchdog | Metal's words: the display could not be drawn | a smaller plan |
| resource_limit | Metal's words: too many buffers | once more, later |
| hung | no sign of life | once more, later |
| killed | a signal that somebody sent | once more, later |
| crashed | a signal that its own fault raised | once more, later |
| disk | the system's words: full, or not writable | the sweep stops; later it goes on |
| interrupted | asked for | it goes on at the next start |
| bug | anything else | none: the next trial |
"""

import errno
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hawsweep.errors import is_out_of_memory
from hawsweep.machine.children import how_it_ended, last_words

Kind = Literal[
    "out_of_memory",
    "watchdog",
    "resource_limit",
    "hung",
    "killed",
    "crashed",
    "disk",
    "interrupted",
    "bug",
]
Remedy = Literal["smaller", "later", "go on", "none"]
# What becomes of the trial's settings, and the kind in words.
_KINDS: dict[Kind, tuple[Remedy, str]] = {
    "out_of_memory": ("smaller", "out of memory"),
    "watchdog": ("smaller", "Metal's watchdog ended a step that kept the display waiting"),
    "resource_limit": ("later", "Metal ran out of buffers"),
    "hung": ("later", "no sign of life"),
    "killed": ("later", "somebody ended it"),
    "crashed": ("later", "a crash"),
    "disk": ("go on", "the disk is full or cannot be written"),
    "interrupted": ("go on", "interrupted"),
    "bug": ("none", "a fault"),
}
_WATCHDOG = "impactinginteractivity"
_RESOURCE_LIMIT = ("resource limit (", "kiogpucommandbuffercallbackerroroutofresources")
# What no fault of a process's own raises.
_SENT = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
_DISK_WORDS = (
    "no space left",
    "disk is full",
    "disk quota exceeded",
    "read-only file system",
    "readonly database",
)
# Less than this share of the machine's memory left is short.
SHORT_SHARE = 0.04
_LAST_BYTES = 20_000
# The exit code of a worker that somebody asked to end.
ENDED_BY_SIGTERM = 128 + signal.SIGTERM
# The exit code of a worker that wants another to take its place, and the faults after which it
# does: what is left of its memory is not to be relied on.
WANTS_SUCCESSOR = 75
TAINTING = ("out_of_memory", "watchdog", "resource_limit")


@dataclass(frozen=True)
class Fault:
    """A death or a failure, named.

    Attributes:
        text: For a person, in one line.
    """

    kind: Kind
    text: str

    @property
    def remedy(self) -> Remedy:
        """What becomes of the trial's settings."""
        return _KINDS[self.kind][0]


INTERRUPTED = Fault("interrupted", "interrupted")
GONE = Fault("interrupted", "its worker is gone")
FROM_OUTSIDE = "marked as failed from outside"


@dataclass(frozen=True)
class Circumstances:
    """What was known of a worker's surroundings when it died.

    Attributes:
        hung_s: For how long there had been no sign of life, where it was ended for that.
        kernel_killed: Whether the kernel ended processes for want of memory meanwhile.
        memory_was_short: Whether little was left when last looked at, or an address limit is set.
    """

    hung_s: float | None = None
    kernel_killed: bool = False
    memory_was_short: bool = False


def of_worker(code: int, log: Path, circumstances: Circumstances, log_start: int = 0) -> Fault:
    """Why a worker ended with an exit code, negative for a signal.

    Args:
        log: Has its last words, from ``log_start`` bytes on.
    """
    text = f"the worker died {how_it_ended(code)}"
    words = last_words(log, log_start, _LAST_BYTES)
    if circumstances.hung_s is not None:
        return Fault(
            "hung",
            f"the worker hung: no sign of life for {circumstances.hung_s:.0f} s; it was ended, "
            f"where it stood is in {log.name}",
        )
    kind = _kind(code, words, circumstances)
    if kind != "bug":
        text += f": {_KINDS[kind][1]}"
    if last := _last_line(words):
        text += f" (last words: {last})"
    return Fault(kind, text)


def of_exception(fault: BaseException) -> Fault:
    """What an exception that ended a trial means."""
    name, text = type(fault).__name__, " ".join(str(fault).split())[:500]
    if is_disk_fault(fault):
        return Fault("disk", f"{_KINDS['disk'][1]} ({text})")
    kind = _by_words(text.lower())
    if isinstance(fault, MemoryError) or isinstance(fault.__cause__, MemoryError):
        kind = "out_of_memory"
    if kind is None:
        return Fault("bug", f"{name}: {text}")
    return Fault(kind, f"{_KINDS[kind][1]} ({text})")


def is_disk_fault(fault: BaseException | None) -> bool:
    """Whether an exception, or what caused it, says that nothing can be written."""
    while fault is not None:
        if isinstance(fault, OSError) and fault.errno in _DISK_ERRORS:
            return True
        if any(words in str(fault).lower() for words in _DISK_WORDS):
            return True
        fault = fault.__cause__ or fault.__context__
    return False


def _kind(code: int, words: str, circumstances: Circumstances) -> Kind:
    if known := _by_words(words.lower()):
        return known
    if code == ENDED_BY_SIGTERM:
        return "killed"
    if code >= 0:
        return "bug"
    number = -code
    if number == signal.SIGKILL and (circumstances.kernel_killed or circumstances.memory_was_short):
        return "out_of_memory"
    if number in _SENT:
        return "killed"
    # mlx-cpu's allocator ends with SIGSEGV where there is no memory.
    return "out_of_memory" if circumstances.memory_was_short else "crashed"


def _by_words(text: str) -> Kind | None:
    if _WATCHDOG in text:
        return "watchdog"
    if any(words in text for words in _RESOURCE_LIMIT):
        return "resource_limit"
    if is_out_of_memory(text):
        return "out_of_memory"
    if any(words in text for words in _DISK_WORDS):
        return "disk"
    return None


def _last_line(words: str) -> str:
    lines = words.strip().splitlines()
    # A dump of where each thread stood ends in the least telling line; its first says what it is.
    fatal = [line for line in lines if line.startswith("Fatal Python error")]
    return (fatal or lines)[-1].strip()[:200] if lines else ""
