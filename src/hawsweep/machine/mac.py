"""What only macOS tells, read from its C libraries: a program that is started may hang.

The names and structures are those of Apple's headers (``sys/sysctl.h``, ``sys/proc_info.h``,
``sys/resource.h``, ``sys/xattr.h``, ``CGDirectDisplay.h``). Where there is no such library, as on
Linux, or a call fails, the answer is None.
"""

import ctypes
import ctypes.util
import uuid
from functools import cache
from pathlib import Path
from typing import Any

import psutil

_TASK_INFO, _WITH_ZOMBIES = 3, 1  # PROC_PIDTBSDINFO, and its argument
_USAGE_V0 = 0  # RUSAGE_INFO_V0
_GRAPHICS = "/System/Library/Frameworks/CoreGraphics.framework/CoreGraphics"
# kern.memorystatus_vm_pressure_level
PRESSURES = {1: "normal", 2: "warning", 4: "critical"}


class _BsdInfo(ctypes.Structure):
    """``struct proc_bsdinfo``."""

    _fields_ = [
        ("numbers", ctypes.c_uint32 * 12),
        ("names", ctypes.c_char * 48),
        ("more", ctypes.c_uint32 * 6),
        ("start_s", ctypes.c_uint64),
        ("start_us", ctypes.c_uint64),
    ]


class _Usage(ctypes.Structure):
    """``struct rusage_info_v0``."""

    _fields_ = [
        ("uuid", ctypes.c_uint8 * 16),
        ("counts", ctypes.c_uint64 * 7),
        ("footprint", ctypes.c_uint64),
        ("started", ctypes.c_uint64),
        ("ended", ctypes.c_uint64),
    ]


class _Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


def sysctl(name: str) -> bytes | None:
    """The value of a name that ``sysctl`` knows, as it is in memory."""
    if (call := _function("sysctlbyname")) is None:
        return None
    size = ctypes.c_size_t(0)
    if call(name.encode(), None, ctypes.byref(size), None, ctypes.c_size_t(0)) != 0:
        return None
    value = ctypes.create_string_buffer(size.value)
    if call(name.encode(), value, ctypes.byref(size), None, ctypes.c_size_t(0)) != 0:
        return None
    return value.raw[: size.value]


def sysctl_number(name: str) -> int | None:
    """An integer of ``sysctl``."""
    value = sysctl(name)
    return int.from_bytes(value, "little", signed=True) if value else None


def boot_session() -> str | None:
    """An id that is new at each start of the machine."""
    value = sysctl("kern.bootsessionuuid")
    return value.rstrip(b"\0").decode("ascii", "replace") if value else None


def machine_id() -> str | None:
    """The machine's UUID, the ``IOPlatformUUID``: it stays for the life of the machine."""
    if (call := _function("gethostuuid")) is None:
        return None
    found, wait = (ctypes.c_uint8 * 16)(), _Timespec(1, 0)
    if call(found, ctypes.byref(wait)) != 0:
        return None
    return str(uuid.UUID(bytes=bytes(found))).upper()


def started(pid: int) -> float | None:
    """When a process started, in seconds, as the clock was then: later steps of the clock do not
    change it.

    Raises:
        psutil.NoSuchProcess: There is none.
    """
    if (call := _function("proc_pidinfo")) is None:
        return None
    info = _BsdInfo()
    size = ctypes.sizeof(info)
    with_zombies = ctypes.c_uint64(_WITH_ZOMBIES)
    if call(pid, _TASK_INFO, with_zombies, ctypes.byref(info), size) == size:
        return float(info.start_s + info.start_us / 1e6)
    if not psutil.pid_exists(pid):
        raise psutil.NoSuchProcess(pid)
    return None  # another user's


def footprint_bytes(pid: int) -> int | None:
    """The memory that the system counts for a process, the GPU's and compressed memory included."""
    if (call := _function("proc_pid_rusage")) is None:
        return None
    usage = _Usage()
    return int(usage.footprint) if call(pid, _USAGE_V0, ctypes.byref(usage)) == 0 else None


def memory_pressure() -> str | None:
    """``normal``, ``warning`` or ``critical``."""
    return PRESSURES.get(sysctl_number("kern.memorystatus_vm_pressure_level") or 0)


def free_share() -> float | None:
    """The share of the memory that the system calls free: it could be given without pressure."""
    percent = sysctl_number("kern.memorystatus_level")
    return None if percent is None else percent / 100


def chip() -> str | None:
    """The chip's name, such as ``Apple M1 Ultra``."""
    value = sysctl("machdep.cpu.brand_string")
    return value.rstrip(b"\0").decode("utf-8", "replace") if value else None


def is_display_on() -> bool | None:
    """Whether the main display shows a picture; None without one, or where nobody is logged in."""
    try:
        graphics = ctypes.CDLL(_GRAPHICS)
        main = int(graphics.CGMainDisplayID())
        return None if main == 0 else not graphics.CGDisplayIsAsleep(ctypes.c_uint32(main))
    except (OSError, AttributeError):
        return None


def has_attribute(path: Path, name: str) -> bool:
    """Whether a file or folder has an extended attribute; False where that cannot be told."""
    if (call := _function("getxattr")) is None:
        return False
    # Its size is asked for, not its value.
    return int(call(bytes(path), name.encode(), None, ctypes.c_size_t(0), 0, 0)) >= 0


@cache
def _library() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def _function(name: str) -> Any:
    return getattr(_library(), name, None)
