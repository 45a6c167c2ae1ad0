"""The spare worker: started ahead, used once, and left behind by no one."""

import signal
import subprocess
import sys

import psutil
import pytest
from harness import kill, wait_until

from hawsweep.running import worker_process

# As a worker does: it ends when its standard input does.
WAITS = (sys.executable, "-c", "import sys; print(sys.stdin.readline())")
SUPERVISOR = """
import sys, time
from pathlib import Path
from hawsweep.running import worker_process
worker_process._COMMAND = tuple(sys.argv[2:])
starter = worker_process.WorkerStarter(1)
starter.keep_spare(Path(sys.argv[1]))
print(starter._spare.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def starter(monkeypatch):
    monkeypatch.setattr(worker_process, "_COMMAND", WAITS)
    made = worker_process.WorkerStarter(1)
    yield made
    made.close()


def told(process, line):
    """What a started process says to a line; then it has ended."""
    return process.communicate(f"{line}\n", timeout=60)[0].strip()


def test_spare_one_is_used_once(starter, tmp_path):
    log = tmp_path / "log.txt"
    first = starter.start(log)
    starter.keep_spare(log)
    starter.keep_spare(log)
    spare = starter._spare
    assert spare.args[-1] == "ahead"
    assert starter.start(log) is spare is not first
    other = starter.start(log)
    assert "ahead" not in other.args
    assert [told(each, n) for n, each in enumerate((first, spare, other))] == ["0", "1", "2"]


def test_spare_one_that_died_is_not_used(starter, tmp_path):
    log = tmp_path / "log.txt"
    starter.keep_spare(log)
    dead = starter._spare
    dead.kill()
    dead.communicate()
    assert told(starter.start(log), "0") == "0"
    starter.keep_spare(log)
    assert starter._spare is not dead


def test_spare_one_ends_when_the_starter_is_closed(starter, tmp_path):
    starter.keep_spare(tmp_path / "log.txt")
    pid = starter._spare.pid
    starter.close()
    assert not psutil.pid_exists(pid)


def test_spare_one_ends_with_a_supervisor_that_is_killed(tmp_path):
    command = [sys.executable, "-c", SUPERVISOR, str(tmp_path / "log.txt"), *WAITS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as supervisor:
        pid = int(supervisor.stdout.readline())
        assert psutil.pid_exists(pid)
        kill(supervisor.pid, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(pid))
