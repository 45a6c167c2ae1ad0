import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import time as time_of_day

import psutil
import pytest
import yaml

from hawsweep import courtesy
from hawsweep.courtesy import LONGEST_PRESSURE_PAUSE_S, Pauses, Pressure, Sources, keep_awake
from hawsweep.errors import SpecError
from hawsweep.spec import MachineSpec, SweepSpec
from hawsweep.sweepfile import parse_override, read_sweep

SWEEP = """
model: some/model
data: phrasebook
search:
  learning_rate: {low: 1e-5, high: 1e-3, log: true}
"""
PATIENCE_S = 30


def machine_of(tmp_path, text, overrides=None):
    path = tmp_path / "sweep.yaml"
    path.write_text(f"{SWEEP}\n{text}\n", encoding="utf-8")
    return read_sweep(path, overrides).machine


@pytest.mark.parametrize(
    "written", ["22:00-07:00", "'22:00-07:00'", "22:00 - 07:00", "22:00-7:00", "  22:00  -7:00"]
)
def test_window_is_read_with_and_without_quotes_and_spaces(tmp_path, written):
    assert machine_of(tmp_path, f"machine: {{window: {written}}}").window == "22:00-07:00"
    assert machine_of(tmp_path, f"machine:\n  window: {written}").window == "22:00-07:00"
    override = dict([parse_override(f"machine.window={written}")])
    assert machine_of(tmp_path, "", override).window == "22:00-07:00"


def test_window_is_written_as_it_is_read():
    content = {**yaml.safe_load(SWEEP), "machine": {"window": "22:00-07:00"}}
    content["search"]["learning_rate"] = {"choices": [0.1]}
    again = yaml.safe_load(SweepSpec.model_validate(content).dump_yaml())
    assert SweepSpec.model_validate(again).machine.window == "22:00-07:00"


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ("22:00", "machine.window is 1320, must be two times of day from 00:00 to 23:59, such as"),
        ("at night", "machine.window is 'at night', must be two times of day"),
        ("22:00-24:00", "machine.window is '22:00-24:00', must be two times of day"),
        ("22:60-07:00", "machine.window is '22:60-07:00', must be two times of day"),
        ("[22:00, 07:00]", "must be two times of day"),
        ("07:00-7:00", "machine.window is '07:00-7:00', must be two different times of day"),
    ],
)
def test_window_of_another_form_is_refused(tmp_path, written, fault):
    with pytest.raises(SpecError) as caught:
        machine_of(tmp_path, f"machine: {{window: {written}}}")
    assert fault in str(caught.value)


def test_keys_of_machine_have_their_defaults_and_limits(tmp_path):
    plain = MachineSpec()
    assert (plain.window, plain.nice, plain.keep_awake) == (None, 5, True)
    assert (plain.on_battery, plain.on_memory_pressure) == ("pause", "pause")
    assert plain.hang_timeout == 20 * 60
    asked = machine_of(tmp_path, "machine: {nice: 0, on_battery: run, hang_timeout: 1h}")
    assert (asked.nice, asked.on_battery, asked.hang_timeout) == (0, "run", 3600)
    with pytest.raises(SpecError, match=r"machine\.nice is 20, must be 19 or less"):
        machine_of(tmp_path, "machine: {nice: 20}")
    with pytest.raises(SpecError, match=r"machine\.on_battery is 'stop', must be 'pause' or 'run'"):
        machine_of(tmp_path, "machine: {on_battery: stop}")


class Machine:
    """What a test sets instead of a real machine; counts how often it is looked at."""

    def __init__(self):
        self.clock = 0.0
        self.time = time_of_day(12)
        self.is_on_battery = False
        self.pressure = 0.0
        self.n_looks = 0

    def pauses(self, look_s=5.0, **machine):
        def pressure():
            self.n_looks += 1
            return Pressure(self.pressure, f"level {self.pressure}")

        sources = Sources(
            now=lambda: self.time,
            monotonic=lambda: self.clock,
            on_battery=lambda: self.is_on_battery,
            pressure=pressure,
            look_s=look_s,
        )
        return Pauses(MachineSpec.model_validate(machine), sources)

    def after(self, pauses, seconds=5.0):
        self.clock += seconds
        return pauses.why()


@pytest.fixture
def machine():
    return Machine()


@pytest.mark.parametrize(
    ("window", "now", "runs"),
    [
        ("22:00-07:00", "21:59:59", False),
        ("22:00-07:00", "22:00:00", True),
        ("22:00-07:00", "00:00:00", True),
        ("22:00-07:00", "06:59:59", True),
        ("22:00-07:00", "07:00:00", False),
        ("09:00-17:30", "08:59:59", False),
        ("09:00-17:30", "09:00:00", True),
        ("09:00-17:30", "17:29:59", True),
        ("09:00-17:30", "17:30:00", False),
        ("09:00-17:30", "00:00:00", False),
        ("00:00-07:00", "23:59:59", False),
        ("22:00-00:00", "23:59:59", True),
        ("22:00-00:00", "00:00:00", False),
    ],
)
def test_sweep_pauses_outside_its_window(machine, window, now, runs):
    machine.time = time_of_day.fromisoformat(now)
    assert machine.pauses(window=window).why() == (None if runs else f"outside {window}")


def test_sweep_goes_on_when_its_window_begins(machine):
    pauses = machine.pauses(window="22:00-07:00")
    assert pauses.why() == "outside 22:00-07:00"
    machine.time = time_of_day(22)
    assert machine.after(pauses) is None


def test_sweep_without_a_window_runs_at_any_time(machine):
    assert machine.pauses().why() is None


def test_sweep_pauses_on_battery_unless_told_to_run(machine):
    machine.is_on_battery = True
    assert machine.pauses().why() == "on battery"
    assert machine.pauses(on_battery="run").why() is None
    pauses = machine.pauses()
    pauses.why()
    machine.is_on_battery = False
    assert machine.after(pauses) is None


def test_looks_are_as_rare_as_said_however_often_it_is_asked(machine):
    pauses = machine.pauses(look_s=5)
    for _ in range(4 * 60):  # a minute
        pauses.why()
        machine.clock += 0.25
    assert machine.n_looks == 60 / 5
    machine.is_on_battery = True
    machine.clock = 60.0
    assert pauses.why() == "on battery"
    machine.is_on_battery = False
    machine.clock = 64.75
    assert pauses.why() == "on battery"
    machine.clock = 65.0
    assert pauses.why() is None


def test_memory_pressure_counts_when_it_was_seen_twice_in_a_row(machine):
    pauses = machine.pauses()
    seen = []
    for level in (1.0, 0.9, 1.5, 0.0, 1.0, 1.2):
        machine.pressure = level
        seen.append(machine.after(pauses))
    assert seen == [None] * 5 + ["memory pressure: level 1.2"]


def test_memory_pressure_ends_below_half_of_what_begins_it(machine):
    pauses = machine.pauses()
    machine.pressure = 1.0
    machine.after(pauses)
    assert machine.after(pauses) is not None
    machine.pressure = 0.5
    assert machine.after(pauses) is not None
    machine.pressure = 0.49
    assert machine.after(pauses) is None
    machine.pressure = 0.9
    assert machine.after(pauses) is None


def test_memory_pressure_that_pausing_does_not_help_is_ignored_until_it_was_away(machine):
    pauses = machine.pauses()
    machine.pressure = 2.0
    machine.after(pauses)
    assert machine.after(pauses) is not None
    assert machine.after(pauses, LONGEST_PRESSURE_PAUSE_S) is not None
    assert machine.after(pauses) is None
    machine.pressure = 0.6  # less, but not away
    assert machine.after(pauses) is None
    machine.pressure = 2.0
    machine.after(pauses)
    assert machine.after(pauses) is None
    machine.pressure = 0.1
    machine.after(pauses)
    machine.pressure = 2.0
    machine.after(pauses)
    assert machine.after(pauses) is not None


def test_memory_pressure_is_not_read_where_the_sweep_runs_anyway(machine):
    pauses = machine.pauses(on_memory_pressure="run")
    machine.pressure = 9.0
    machine.after(pauses)
    assert machine.after(pauses) is None
    assert machine.n_looks == 0


def test_window_is_said_before_battery_and_pressure(machine):
    machine.is_on_battery, machine.pressure = True, 2.0
    pauses = machine.pauses(window="22:00-07:00")
    machine.after(pauses)
    assert machine.after(pauses) == "outside 22:00-07:00"
    machine.time = time_of_day(23)
    assert machine.after(pauses) == "on battery"
    machine.is_on_battery = False
    assert machine.after(pauses) == "memory pressure: level 2.0"


def test_battery_that_is_missing_or_does_not_say_is_no_battery(monkeypatch):
    on_battery = courtesy.this_machine().on_battery

    class Battery:
        power_plugged = None

    for battery, expected in ((None, False), (Battery, False)):
        monkeypatch.setattr(psutil, "sensors_battery", lambda found=battery: found, raising=False)
        assert on_battery() is expected
    Battery.power_plugged = False
    assert on_battery() is True
    Battery.power_plugged = True
    assert on_battery() is False


@pytest.fixture
def free_memory(monkeypatch):
    """Sets the available share of memory."""
    real = psutil.virtual_memory()

    def set_share(share):
        monkeypatch.setattr(
            psutil,
            "virtual_memory",
            lambda: real._replace(total=10**10, available=int(share * 10**10)),
        )

    set_share(0.5)
    return set_share


def psi(tmp_path, full):
    path = tmp_path / "memory"
    path.write_text(
        "some avg10=90.00 avg60=1.00 avg300=0.00 total=5\n"
        f"full avg10={full} avg60=80.00 avg300=70.00 total=4\n"
    )
    return path


@pytest.mark.parametrize(("full", "level"), [("0.00", 0.06), ("20.00", 1.0), ("30.00", 1.5)])
def test_linux_counts_the_time_all_programs_waited(tmp_path, free_memory, full, level):
    found = courtesy.linux_pressure(psi(tmp_path, full))
    assert found.level == pytest.approx(level)  # 0.06: 3 % of the 50 % available
    if level >= 1:
        assert found.text == f"all programs waited for it {float(full):.0f}% of the last 10 s"


@pytest.mark.parametrize(("available", "level"), [(0.06, 0.5), (0.03, 1.0), (0.01, 3.0)])
def test_linux_counts_available_memory_also_without_stall_information(
    tmp_path, free_memory, available, level
):
    free_memory(available)
    for path in (tmp_path / "missing", psi(tmp_path, "1.00")):
        found = courtesy.linux_pressure(path)
        assert found.level == pytest.approx(level)
        assert found.text == f"{available:.1%} of memory is available"


@pytest.mark.parametrize("content", ["", "full avg10=many\n", "full\n", "full =\n"])
def test_linux_stall_information_of_another_form_is_ignored(tmp_path, free_memory, content):
    (tmp_path / "memory").write_text(content)
    assert courtesy.linux_pressure(tmp_path / "memory").level == pytest.approx(0.06)


def executable(tmp_path, monkeypatch, name, script):
    """Puts a program first on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return path


@pytest.mark.parametrize(
    ("script", "level"),
    [("echo 4", 1.0), ("echo 2", 0.5), ("echo 1", 0.25), ("exit 1", 0.0), ("echo what", 0.0)],
)
def test_macos_pressure_is_the_kernels_level(tmp_path, monkeypatch, script, level):
    asked = tmp_path / "asked"
    executable(tmp_path, monkeypatch, "sysctl", f'printf "%s " "$@" > {asked}\n{script}')
    assert courtesy.macos_pressure().level == level
    assert asked.read_text().split() == ["-n", "kern.memorystatus_vm_pressure_level"]


def is_gone(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def fake_inhibit(tmp_path, monkeypatch):
    """systemd-inhibit that notes its arguments and its command's process id."""
    script = f"""printf '%s\\n' "$@" > {tmp_path}/arguments
while [ "${{1#--}}" != "$1" ]; do shift; done
echo $$ > {tmp_path}/pid
exec "$@" """
    executable(tmp_path, monkeypatch, "systemd-inhibit", script)


def fake_caffeinate(tmp_path, monkeypatch):
    """caffeinate that notes its arguments and ends with the process it is told to watch."""
    script = f"""printf '%s\\n' "$@" > {tmp_path}/arguments
echo $$ > {tmp_path}/pid.new && mv {tmp_path}/pid.new {tmp_path}/pid
while kill -0 "$3"; do sleep 0.05; done"""
    executable(tmp_path, monkeypatch, "caffeinate", script)


FAKES = {"linux": fake_inhibit, "darwin": fake_caffeinate}


@pytest.mark.parametrize("platform", FAKES)
def test_machine_is_kept_awake_while_the_block_runs(tmp_path, monkeypatch, platform):
    FAKES[platform](tmp_path, monkeypatch)
    told = []
    with keep_awake(told.append, platform):
        wait_until((tmp_path / "pid").exists)
        pid = int((tmp_path / "pid").read_text())
        assert not is_gone(pid)
    wait_until(lambda: is_gone(pid))
    assert told == []
    expected = {
        "linux": "--what=idle:sleep\n--who=hawsweep\n--why=a sweep runs\n--mode=block\n",
        "darwin": f"-i\n-w\n{os.getpid()}\n",
    }
    assert (tmp_path / "arguments").read_text().startswith(expected[platform])


@pytest.mark.parametrize("platform", FAKES)
def test_machine_may_sleep_again_after_a_sigkill(tmp_path, monkeypatch, platform):
    FAKES[platform](tmp_path, monkeypatch)
    code = f"""
import time
from hawsweep.courtesy import keep_awake
with keep_awake(platform={platform!r}):
    print("in", flush=True)
    time.sleep({PATIENCE_S})
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout.readline() == b"in\n"
        wait_until((tmp_path / "pid").exists)
        pid = int((tmp_path / "pid").read_text())
        assert not is_gone(pid)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    wait_until(lambda: is_gone(pid))


def test_child_that_does_not_end_when_asked_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(courtesy, "_END_TIMEOUT_S", 0.1)
    script = f"trap '' TERM\necho $$ > {tmp_path}/pid\necho\nwhile :; do sleep 0.1; done"
    executable(tmp_path, monkeypatch, "systemd-inhibit", script)
    with keep_awake(platform="linux"):
        pid = int((tmp_path / "pid").read_text())
        assert not is_gone(pid)
    assert is_gone(pid)


@pytest.mark.parametrize("script", ["echo no bus >&2; exit 1", "sleep 100"])
def test_block_runs_where_systemd_does_not_and_that_is_said_once(tmp_path, monkeypatch, script):
    monkeypatch.setattr(courtesy, "_READY_TIMEOUT_S", 0.2)
    executable(tmp_path, monkeypatch, "systemd-inhibit", script)
    told = []
    with keep_awake(told.append, "linux"):
        told.append("ran")
    reason = "the machine may fall asleep: systemd-inhibit is missing or does not work here"
    assert told == [reason, "ran"]


@pytest.mark.parametrize(
    ("platform", "program"), [("linux", "systemd-inhibit"), ("darwin", "caffeinate")]
)
def test_block_runs_without_the_program(tmp_path, monkeypatch, platform, program):
    monkeypatch.setenv("PATH", str(tmp_path))
    told = []
    with keep_awake(told.append, platform):
        told.append("ran")
    assert told == [
        f"the machine may fall asleep: {program} is missing or does not work here",
        "ran",
    ]


def test_fault_inside_the_block_comes_out(tmp_path, monkeypatch):
    fake_inhibit(tmp_path, monkeypatch)
    with pytest.raises(KeyError), keep_awake(platform="linux"):
        raise KeyError
    wait_until(lambda: is_gone(int((tmp_path / "pid").read_text())))


def test_looks_at_this_machine_raise_nothing():
    sources = replace(courtesy.this_machine(), monotonic=lambda: 0.0)
    why = Pauses(MachineSpec(on_battery="run"), sources).why()
    assert why is None  # pressure counts from the second look
