"""A good guest on the machine: when a sweep pauses for others, and keeping the machine awake."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from datetime import time as time_of_day
from pathlib import Path

import psutil

from hawsweep.spec import MachineSpec, parse_window

# Pressure that lasts longer while the sweep pauses is not the sweep's, or cannot be helped.
LONGEST_PRESSURE_PAUSE_S = 600.0
_PSI_FILE = Path("/proc/pressure/memory")
_MOST_WAITED_PERCENT = 20.0
_LEAST_AVAILABLE = 0.03
_MACOS_CRITICAL = 4
_READY_TIMEOUT_S = 5.0
_END_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class Pressure:
    """How short memory is.

    Attributes:
        level: As a share of what is too much: pressure begins at 1 and is over below 0.5.
        text: What was seen, in words.
    """

    level: float
    text: str


@dataclass(frozen=True)
class Sources:
    """Where ``Pauses`` looks.

    Attributes:
        now: Local time of day.
        monotonic: Seconds of a clock that only goes forward.
        on_battery: Whether the machine runs on its battery.
        pressure: How short memory is.
        look_s: Seconds from one look to the next.
    """

    now: Callable[[], time_of_day]
    monotonic: Callable[[], float]
    on_battery: Callable[[], bool]
    pressure: Callable[[], Pressure]
    look_s: float = 5.0


def this_machine() -> Sources:
    """The real ones. On macOS memory pressure takes a process to read, so looks are rarer there."""
    is_mac = sys.platform == "darwin"
    return Sources(
        now=lambda: datetime.now().time(),
        monotonic=time.monotonic,
        on_battery=_on_battery,
        pressure=macos_pressure if is_mac else linux_pressure,
        look_s=10.0 if is_mac else 5.0,
    )


class Pauses:
    """When to pause, by ``machine``; cheap to ask, it looks only every few seconds."""

    def __init__(self, machine: MachineSpec, sources: Sources | None = None) -> None:
        self._machine = machine
        self._sources = sources or this_machine()
        self._window = None if machine.window is None else parse_window(machine.window)
        self._next_look = float("-inf")
        self._reason: str | None = None
        self._n_pressed = 0
        self._pressed_since: float | None = None

    def why(self) -> str | None:
        """Why to pause now, in words; None to run."""
        now = self._sources.monotonic()
        if now >= self._next_look:
            self._next_look = now + self._sources.look_s
            # Pressure is followed also while something else is a reason to pause.
            pressure = self._memory_pressure(now)
            self._reason = self._outside() or self._battery() or pressure
        return self._reason

    def _outside(self) -> str | None:
        if self._window is None:
            return None
        start, end = self._window
        now = self._sources.now()
        inside = start <= now < end if start < end else now >= start or now < end
        return None if inside else f"outside {self._machine.window}"

    def _battery(self) -> str | None:
        pauses = self._machine.on_battery == "pause" and self._sources.on_battery()
        return "on battery" if pauses else None

    def _memory_pressure(self, now: float) -> str | None:
        if self._machine.on_memory_pressure == "run":
            return None
        pressure = self._sources.pressure()
        self._n_pressed = self._n_pressed + 1 if pressure.level >= 1 else 0
        if pressure.level < 0.5:
            self._pressed_since = None
        elif self._pressed_since is None and self._n_pressed >= 2:
            self._pressed_since = now
        since = self._pressed_since
        if since is None or now - since > LONGEST_PRESSURE_PAUSE_S:
            return None
        return f"memory pressure: {pressure.text}"


def _on_battery() -> bool:
    battery = psutil.sensors_battery()
    return battery is not None and battery.power_plugged is False  # None: not known


def linux_pressure(psi_file: Path = _PSI_FILE) -> Pressure:
    """The worse of two: how long all programs waited for memory of late (pressure stall
    information, where the kernel has it: 20 % is too much), and the available memory (3 % is too
    little).
    """
    memory = psutil.virtual_memory()
    available = memory.available / memory.total
    found = Pressure(
        _LEAST_AVAILABLE / max(available, 1e-9), f"{available:.1%} of memory is available"
    )
    with suppress(OSError, ValueError, KeyError, StopIteration):
        lines = psi_file.read_text(encoding="ascii").splitlines()
        full = next(line for line in lines if line.startswith("full "))
        waited = float(dict(field.split("=") for field in full.split()[1:])["avg10"])
        text = f"all programs waited for it {waited:.0f}% of the last 10 s"
        found = max(found, Pressure(waited / _MOST_WAITED_PERCENT, text), key=lambda p: p.level)
    return found


def macos_pressure() -> Pressure:
    """The kernel's own level: 1 normal, 2 warning, 4 critical, which is too much; unknown is 0."""
    level = 0
    with suppress(OSError, subprocess.SubprocessError, ValueError):
        command = ["sysctl", "-n", "kern.memorystatus_vm_pressure_level"]
        level = int(subprocess.run(command, capture_output=True, text=True, timeout=5).stdout)
    return Pressure(level / _MACOS_CRITICAL, f"macOS's level is {level}, 4 is critical")


@contextmanager
def keep_awake(
    tell: Callable[[str], None] = lambda text: None, platform: str = sys.platform
) -> Iterator[None]:
    """Keep the machine from sleeping; it may again when the block or this process ends, however
    that comes. Where it cannot be done, ``tell`` gets the reason once, and the block runs anyway.

    Args:
        platform: As in ``sys.platform``: ``darwin`` uses caffeinate, others systemd-inhibit.
    """
    child = _caffeinate() if platform == "darwin" else _inhibit()
    if child is None:
        program = "caffeinate" if platform == "darwin" else "systemd-inhibit"
        tell(f"the machine may fall asleep: {program} is missing or does not work here")
    try:
        yield
    finally:
        if child is not None:
            _end(child)


def _caffeinate() -> "subprocess.Popen[bytes] | None":
    # It watches the process itself.
    return _start(["caffeinate", "-i", "-w", str(os.getpid())])


def _inhibit() -> "subprocess.Popen[bytes] | None":
    """systemd-inhibit around a program that ends with its input, which is a pipe from here: that is
    closed also by SIGKILL. Its first output says that the lock is held; without systemd there is
    none.
    """
    child = _start(
        [
            "systemd-inhibit",
            "--what=idle:sleep",
            "--who=hawsweep",
            "--why=a sweep runs",
            "--mode=block",
            *("sh", "-c", "echo; exec cat"),
        ]
    )
    if child is None:
        return None
    assert child.stdout is not None
    readable, _, _ = select.select([child.stdout], [], [], _READY_TIMEOUT_S)
    if readable and child.stdout.read(1):
        return child
    _end(child)
    return None


def _start(command: list[str]) -> "subprocess.Popen[bytes] | None":
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            # Ctrl-C is for the sweep, which takes a while to end; and no terminal to ask for a
            # password.
            start_new_session=True,
        )
    except OSError:
        return None


def _end(child: "subprocess.Popen[bytes]") -> None:
    with child:
        with suppress(OSError):
            os.killpg(child.pid, signal.SIGTERM)
        try:
            child.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            with suppress(OSError):
                os.killpg(child.pid, signal.SIGKILL)
