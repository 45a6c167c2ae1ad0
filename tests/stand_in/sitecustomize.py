"""Makes a process think that it runs on a Mac with Metal, and the processes that it starts: a
folder for PYTHONPATH.

What hawsweep asks macOS and MLX's device for is answered from ``facts.json`` in the folder
``HAWSWEEP_STAND_IN``, as it is at that moment; what it sets there goes to ``calls.jsonl``. Each
line of ``faults.txt`` is raised once, at a report of training, as MLX raises what the GPU says. All
computing is the CPU's; weights keep their format, as on Metal.
"""

import ctypes
import json
import os
import platform
import resource
import struct
import sys
import uuid
from pathlib import Path

import psutil

FOLDER = Path(os.environ["HAWSWEEP_STAND_IN"])


def facts():
    return json.loads((FOLDER / "facts.json").read_text(encoding="utf-8"))


def note(name, value=None):
    with (FOLDER / "calls.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"call": name, "value": value, "pid": os.getpid()}) + "\n")


def raise_next_fault():
    path = FOLDER / "faults.txt"
    try:
        if "hawsweep.running.worker" not in sys.orig_argv:
            return
        text, *rest = path.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, ValueError):
        return
    path.write_text("".join(f"{line}\n" for line in rest), encoding="utf-8")
    note("fault", text)
    raise RuntimeError(text)


class Core:
    """MLX, but for its device and its allocator's limits."""

    def __init__(self, core):
        self._core = core
        self._cached = 0

    def __getattr__(self, name):
        return getattr(self._core, name)

    def device_info(self):
        return facts()["device_info"]

    def set_wired_limit(self, n_bytes):
        note("wired", n_bytes)
        return 0

    def set_cache_limit(self, n_bytes):
        note("cache", n_bytes)
        return 0

    def clear_cache(self):
        note("clear")

    def get_active_memory(self):
        raise_next_fault()
        return self._core.get_active_memory()


class Library:
    """The C library of macOS."""

    def sysctlbyname(self, name, value, size, _new, _n_new):
        known = facts()["sysctl"].get(name.decode())
        if known is None:
            return -1
        raw = known.encode() + b"\0" if isinstance(known, str) else struct.pack("<i", known)
        if value is not None:
            ctypes.memmove(value, raw, len(raw))
        size._obj.value = len(raw)
        return 0

    def gethostuuid(self, found, _wait):
        ctypes.memmove(found, uuid.UUID(facts()["machine"]).bytes, 16)
        return 0

    def proc_pidinfo(self, pid, _flavor, _argument, info, size):
        try:
            ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        except OSError:
            return 0
        filled = struct.pack("<120xQQ", int(ticks), 0)
        ctypes.memmove(info, filled, len(filled))
        return size

    def proc_pid_rusage(self, pid, _flavor, usage):
        filled = struct.pack("<72xQ16x", psutil.Process(pid).memory_info().rss)
        ctypes.memmove(usage, filled, len(filled))
        return 0


def set_limit(which, limits, set_limit=resource.setrlimit):
    if which == resource.RLIMIT_AS:  # any limit is below what a process there has mapped
        raise ValueError("current limit exceeds maximum limit")
    set_limit(which, limits)


def _asks_hawsweep():
    return sys._getframe(2).f_globals.get("__name__", "").startswith("hawsweep")


def install():
    uname, created = os.uname, psutil.Process.create_time
    memory, system, machine = psutil.virtual_memory, platform.system, platform.machine
    # Other libraries look for what a Mac has beside this.
    platform.system = lambda: "Darwin" if _asks_hawsweep() else system()
    platform.machine = lambda: "arm64" if _asks_hawsweep() else machine()
    platform.mac_ver = lambda: ("15.6", ("", "", ""), "arm64")
    psutil.virtual_memory = lambda: memory()._replace(
        total=facts()["total"], available=facts()["total"] // 4
    )
    resource.setrlimit = set_limit
    os.uname = lambda: os.uname_result((uname()[0], facts()["host"], *uname()[2:]))
    psutil.Process.create_time = lambda self: created(self) + facts()["clock_step"]

    from hawsweep.machine import backend, mac

    core = backend._core
    backend._core = lambda: Core(core())
    backend.is_cpu = lambda: False
    mac._library = Library
    mac.is_display_on = lambda: facts()["display"]


install()
