import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from hawsweep.errors import SpecError
from hawsweep.running import keep_awake as keep_awake_module
from hawsweep.running.keep_awake import keep_awake
from hawsweep.spec.read import read_sweep
from hawsweep.spec.sweep import MachineSpec

SWEEP = """
model: some/model
data: phrasebook
search:
  learning_rate: {low: 1e-5, high: 1e-3, log: true}
"""
PATIENCE_S = 30


def machine_of(tmp_path, text):
    path = tmp_path / "sweep.yaml"
    path.write_text(f"{SWEEP}\n{text}\n", encoding="utf-8")
    return read_sweep(path).machine


def test_keys_of_machine_have_their_defaults_and_limits(tmp_path):
    plain = MachineSpec()
    assert (plain.nice, plain.keep_awake, plain.hang_timeout) == (5, True, 20 * 60)
    asked = machine_of(tmp_path, "machine: {nice: 0, keep_awake: false, hang_timeout: 1h}")
    assert (asked.nice, asked.keep_awake, asked.hang_timeout) == (0, False, 3600)
    with pytest.raises(SpecError, match=r"machine\.nice is 20, must be 19 or less"):
        machine_of(tmp_path, "machine: {nice: 20}")


def executable(tmp_path, monkeypatch, name, script):
    """Puts a program first on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return path


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
    monkeypatch.setattr(keep_awake_module, "_READY_TIMEOUT_S", 60)
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
from hawsweep.running.keep_awake import keep_awake
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
    monkeypatch.setattr(keep_awake_module, "_END_TIMEOUT_S", 0.1)
    script = f"trap '' TERM\necho $$ > {tmp_path}/pid\necho\nwhile :; do sleep 0.1; done"
    executable(tmp_path, monkeypatch, "systemd-inhibit", script)
    with keep_awake(platform="linux"):
        pid = int((tmp_path / "pid").read_text())
        assert not is_gone(pid)
    assert is_gone(pid)


@pytest.mark.parametrize("script", ["echo no bus >&2; exit 1", "sleep 100"])
def test_block_runs_where_systemd_does_not_and_that_is_said_once(tmp_path, monkeypatch, script):
    monkeypatch.setattr(keep_awake_module, "_READY_TIMEOUT_S", 0.2)
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
