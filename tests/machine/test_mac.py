"""What is read from macOS's libraries, with libraries that answer as Apple's headers say.

No Mac has run this: the offsets are those of ``sys/proc_info.h`` and ``sys/resource.h``.
"""

import ctypes
import platform
import struct
import uuid
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from hawsweep.machine import backend, mac, processes
from hawsweep.machine.processes import identity, is_alive_here, is_dead_here, is_here

UUID = "8A3F0B6C-52D1-4E0B-9B63-3C1B2C1F9A77"
SYSCTL = {
    b"kern.bootsessionuuid": b"11111111-2222-3333-4444-555555555555\0",
    b"kern.memorystatus_vm_pressure_level": struct.pack("<i", 2),
    b"kern.memorystatus_level": struct.pack("<i", 61),
    b"machdep.cpu.brand_string": b"Apple M1 Ultra\0",
}


def sysctlbyname(name, value, size, _new, _n_new):
    found = SYSCTL.get(name)
    if found is None:
        return -1
    if value is not None:
        ctypes.memmove(value, found, len(found))
    size._obj.value = len(found)
    return 0


def getxattr(path, name, value, size, position, options):
    assert (value, size.value, position, options) == (None, 0, 0, 0)
    return 1 if (path, name) == (b"/Users/k/Documents", b"com.apple.icloud.desktop") else -1


class Processes:
    """``proc_pidinfo`` and ``proc_pid_rusage``; ``started`` has seconds and microseconds."""

    def __init__(self):
        self.started = {}

    def proc_pidinfo(self, pid, flavor, argument, info, size):
        assert (flavor, argument.value, size) == (3, 1, 136)
        if pid not in self.started:
            return 0
        filled = struct.pack("<120xQQ", *self.started[pid])
        ctypes.memmove(info, filled, len(filled))
        return size

    def proc_pid_rusage(self, _pid, flavor, usage):
        assert flavor == 0
        filled = struct.pack("<72xQ16x", 7_300_000_000)
        ctypes.memmove(usage, filled, len(filled))
        return 0


def gethostuuid(found, _wait):
    ctypes.memmove(found, uuid.UUID(UUID).bytes, 16)
    return 0


@pytest.fixture
def a_mac(monkeypatch):
    """This process on a Mac; gives its processes."""
    known = Processes()
    library = SimpleNamespace(
        sysctlbyname=sysctlbyname,
        gethostuuid=gethostuuid,
        getxattr=getxattr,
        proc_pidinfo=known.proc_pidinfo,
        proc_pid_rusage=known.proc_pid_rusage,
    )
    monkeypatch.setattr(mac, "_library", lambda: library)
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    known.started[identity_pid()] = (1_700_000_000, 250_000)
    cached = (processes.machine_id, processes.boot_id, processes._kernel_boot_id)
    for each in cached:
        each.cache_clear()
    yield known
    for each in cached:
        each.cache_clear()


def identity_pid():
    return psutil.Process().pid


def host_is(monkeypatch, name):
    uname = SimpleNamespace(nodename=name, sysname="Darwin")
    monkeypatch.setattr(processes.os, "uname", lambda: uname)


def test_names_of_sysctl_are_read_as_they_are_in_memory(a_mac):
    assert mac.boot_session() == "11111111-2222-3333-4444-555555555555"
    assert mac.machine_id() == UUID
    assert mac.memory_pressure() == "warning"
    assert mac.free_share() == pytest.approx(0.61)
    assert mac.chip() == "Apple M1 Ultra"
    assert mac.sysctl("hw.none") is None
    assert mac.sysctl_number("hw.none") is None


def test_footprint_and_start_are_at_their_places(a_mac):
    assert mac.footprint_bytes(1) == 7_300_000_000
    assert mac.started(identity_pid()) == 1_700_000_000.25
    assert backend.memory_now().footprint == 7_300_000_000


def test_extended_attribute_is_asked_for_by_its_size(a_mac):
    assert mac.has_attribute(Path("/Users/k/Documents"), "com.apple.icloud.desktop")
    assert not mac.has_attribute(Path("/Users/k/Documents"), "com.apple.quarantine")
    assert not mac.has_attribute(Path("/Users/k/Music"), "com.apple.icloud.desktop")


def test_elsewhere_nothing_is_known(tmp_path):
    assert mac.sysctl("kern.bootsessionuuid") is None
    assert mac.machine_id() is None
    assert mac.started(1) is None
    assert mac.footprint_bytes(1) is None
    assert mac.is_display_on() is None
    assert mac.memory_pressure() is None
    assert not mac.has_attribute(tmp_path, "com.apple.icloud.desktop")


@pytest.mark.parametrize(("main", "asleep", "is_on"), [(1, 0, True), (1, 1, False), (0, 0, None)])
def test_display_is_on_off_or_unknown(monkeypatch, main, asleep, is_on):
    graphics = SimpleNamespace(
        CGMainDisplayID=lambda: main, CGDisplayIsAsleep=lambda _display: asleep
    )
    monkeypatch.setattr(mac.ctypes, "CDLL", lambda _path: graphics)
    assert mac.is_display_on() is is_on


def test_worker_lives_although_the_clock_is_set_and_the_host_has_another_name(a_mac, monkeypatch):
    host_is(monkeypatch, "studio.local")
    worker = identity()
    assert len(worker["machine"]) == 16
    assert UUID not in str(worker)  # it goes into databases and reports
    host_is(monkeypatch, "studio-2.fritz.box")
    # What psutil does there: it adds the clock's step to the start of earlier processes.
    stepped = psutil.Process().create_time() + 1.0
    monkeypatch.setattr(psutil.Process, "create_time", lambda _self: stepped)
    assert is_alive_here(worker)
    assert not is_dead_here(worker)
    assert identity() == {**worker, "host": "studio-2.fritz.box"}


def test_number_that_is_free_or_another_processs_is_a_dead_worker(a_mac):
    worker = identity()
    a_mac.started[worker["pid"]] = (1_700_000_900, 0)
    assert is_dead_here(worker)
    assert is_dead_here({**worker, "pid": 2**22 + 1})


def test_record_of_an_earlier_version_is_understood(a_mac, monkeypatch):
    host_is(monkeypatch, "studio.local")
    old = {key: value for key, value in identity().items() if key != "machine"}
    assert is_alive_here(old)
    host_is(monkeypatch, "other")
    assert is_alive_here(old)  # by its boot
    assert not is_here({**old, "boot": "before"})
    host_is(monkeypatch, "studio.local")
    assert is_dead_here({**old, "boot": "before"})


def test_mac_that_was_started_again_has_none_of_its_workers(a_mac, monkeypatch):
    worker = identity()
    host_is(monkeypatch, "other")
    assert is_dead_here({**worker, "boot": "99999999-0000-0000-0000-000000000000"})
    assert not is_here({**worker, "boot": "before", "machine": "another"})
