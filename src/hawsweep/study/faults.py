"""Faults of workers and trials, and their consequences, as docs/reliability.md lists them."""

import errno
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hawsweep.errors import OUT_OF_MEMORY, is_out_of_memory
from hawsweep.machine.children import how_it_ended, last_words

Kind = Literal[
    "out_of_memory",
    "watchdog",
    "gpu",
    "resource_limit",
    "compiled_code",
    "hung",
    "killed",
    "silent",
    "crashed",
    "disk",
    "interrupted",
    "bug",
]
Remedy = Literal["smaller", "later", "go on", "none"]
DISPLAY_HELP = (
    "Let the display sleep (pmset displaysleepnow): while it is on, macOS may end training that "
    "keeps it waiting, also in small batches. AGX_RELAX_CDM_CTXSTORE_TIMEOUT=1 in the environment "
    "helps some."
)
# The consequence for the trial's settings, and the kind in words.
_KINDS: dict[Kind, tuple[Remedy, str]] = {
    "out_of_memory": ("smaller", "out of memory"),
    "watchdog": ("go on", "Metal's watchdog ended a step, as it does while the display is on"),
    "gpu": ("later", "a fault of the GPU"),
    "resource_limit": ("later", "Metal ran out of buffers"),
    "compiled_code": ("later", "another process was just compiling what this one needed"),
    "hung": ("later", "no sign of life"),
    "killed": ("later", "it was ended from outside"),
    "silent": ("go on", "its machine was not heard of"),
    "crashed": ("later", "a crash"),
    "disk": ("go on", "the disk is full or cannot be written"),
    "interrupted": ("go on", "interrupted"),
    "bug": ("none", "a fault"),
}
# Words of a dying process or of an exception, in small letters. The names of Metal's errors are
# those of IOGPU, in texts that users of MLX report (mlx#3267, mlx#479, omlx#3706); those of CUDA
# were seen on an H200. The first line that is found counts: a fault of the GPU is followed by
# errors of all that waited for it.
_WORDS: tuple[tuple[Kind, tuple[str, ...]], ...] = (
    (
        "watchdog",
        (
            "impactinginteractivity",
            "impacting interactivity",
            "callbackerrortimeout",
            "gpu timeout error",
            "callbackerrorhang",
            "gpu hang error",
        ),
    ),
    ("resource_limit", ("resource limit (", "callbackerroroutofresources")),
    ("compiled_code", ("could not load c++ shared library",)),
    ("out_of_memory", ("greater than the maximum allowed buffer size",)),
    (
        "gpu",
        (
            "submissionsignored",
            "innocentvictim",
            "callbackerrorpagefault",
            "gpu address fault error",
            "callbackerrorinternal",
            "internal error (0000000e",
            "illegal memory access",
            "launch timed out",
            "unspecified launch failure",
            "cudaerrorlaunchfailure",
        ),
    ),
)
# Signals that come from outside only.
_SENT = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
_DISK_WORDS = (
    "no space left",
    "disk is full",
    "disk quota exceeded",
    "read-only file system",
    "readonly database",
)
# Memory is short if less than this share of the machine's memory is free.
SHORT_SHARE = 0.04
_LAST_BYTES = 20_000
# The exit code of a worker that was asked to end.
ENDED_BY_SIGTERM = 128 + signal.SIGTERM
# The exit code of a worker that must be replaced, and the faults after which it must: its remaining
# memory is not reliable.
WANTS_SUCCESSOR = 75
TAINTING = ("out_of_memory", "watchdog", "gpu", "resource_limit")


@dataclass(frozen=True)
class Fault:
    """A named fault of a worker or trial.

    Attributes:
        text: For a person, in one line.
    """

    kind: Kind
    text: str

    @property
    def remedy(self) -> Remedy:
        """The consequence for the trial's settings."""
        return _KINDS[self.kind][0]


INTERRUPTED = Fault("interrupted", "interrupted")
GONE = Fault("interrupted", "its worker is gone")
FROM_OUTSIDE = "marked as failed from outside"


@dataclass(frozen=True)
class Circumstances:
    """The circumstances of a worker's death.

    Attributes:
        hung_s: Seconds without a sign of life, if it was ended for that; else None.
        kernel_killed: Whether the kernel ended processes for lack of memory meanwhile.
        memory_was_short: Whether memory was short at the last check, or an address limit is set.
    """

    hung_s: float | None = None
    kernel_killed: bool = False
    memory_was_short: bool = False


def of_worker(code: int, log: Path, circumstances: Circumstances, log_start: int = 0) -> Fault:
    """The fault of a worker by its exit code, which is negative for a signal.

    Args:
        log: The file with its last words, from ``log_start`` bytes on.
    """
    text = f"the worker died {how_it_ended(code)}"
    words = last_words(log, log_start, _LAST_BYTES)
    if circumstances.hung_s is not None:
        return Fault(
            "hung",
            f"the worker hung: no sign of life for {circumstances.hung_s:.0f} s; it was ended, "
            f"its stack is in {log.name}",
        )
    kind = _kind(code, words, circumstances)
    if kind != "bug":
        text += f": {_KINDS[kind][1]}"
    if last := _last_line(words):
        text += f" (last words: {last})"
    return Fault(kind, text)


def of_exception(fault: BaseException) -> Fault:
    """The fault of an exception that ended a trial."""
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
    """Whether an exception or its cause says that the disk cannot be written."""
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
    # mlx-cpu's allocator ends with SIGSEGV without free memory.
    return "out_of_memory" if circumstances.memory_was_short else "crashed"


def _by_words(text: str) -> Kind | None:
    found = [
        (text.index(words), kind) for kind, known in _WORDS for words in known if words in text
    ]
    if is_out_of_memory(text):
        at = min(text.index(words) for words in OUT_OF_MEMORY if words in text)
        found.append((at, "out_of_memory"))
    if found:
        return min(found)[1]
    if any(words in text for words in _DISK_WORDS):
        return "disk"
    return None


def _last_line(words: str) -> str:
    lines = words.strip().splitlines()
    # The first line of a stack dump names the fault; its last line is the least useful.
    fatal = [line for line in lines if line.startswith("Fatal Python error")]
    return (fatal or lines)[-1].strip()[:200] if lines else ""
