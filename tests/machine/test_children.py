"""Children end with the process that started them, wherever they are."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest
from harness import kill, wait_until

from hawsweep.machine import children
from hawsweep.machine.children import start_child

# What a child may be at when the process that started it is killed.
LOOP = "while True: pass"
JINJA = (
    "import jinja2; jinja2.Template("
    "'{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}').render()"
)
PLACES = {
    "waiting for a line": "import sys; sys.stdin.read(); import time; time.sleep(600)",
    "loop": LOOP,
    "template that loops": JINJA,
    "native code that holds the lock": "import re; re.match('(a+)+b', 'a' * 64)",
    "sum that holds the lock": "sum(range(10**15))",
    "loop that no signal ends": (
        "import signal; [signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]\n" + LOOP
    ),
    "child of its own": f"import subprocess, sys; subprocess.run([sys.executable, '-c', '{LOOP}'])",
}
PARENT = """
import sys, time
from pathlib import Path
from hawsweep.machine.children import start_child
process = start_child([sys.executable, "-c", sys.argv[1]], Path(sys.argv[2]), None)
print(process.pid, process.stdout.readline().strip(), flush=True)
time.sleep(600)
"""


def group(number):
    """The processes of a process group that have not ended."""
    found = []
    for each in psutil.process_iter():
        try:
            if os.getpgid(each.pid) == number and each.status() != psutil.STATUS_ZOMBIE:
                found.append(each)
        except (psutil.Error, ProcessLookupError):
            continue
    return found


def start_parent(folder, code):
    """A process with a child that has begun, and the child's id."""
    # The child is nice: several loop at once, beside other tests.
    code = f"print('begun', flush=True)\nimport os; os.nice(10)\n{code}"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, code, folder / "log"], stdout=subprocess.PIPE, text=True
    )
    pid, begun = parent.stdout.readline().split()
    assert begun == "begun"
    return parent, int(pid)


@pytest.fixture(scope="module")
def seconds_to_end(tmp_path_factory):
    """How long each child lived on when its parent was killed: all wait at once."""
    folder = tmp_path_factory.mktemp("children")
    started = {place: start_parent(folder, code) for place, code in PLACES.items()}
    time.sleep(0.5)
    assert all(psutil.Process(pid).is_running() for _, pid in started.values())
    killed, found = {}, {}
    for place, (parent, _) in started.items():
        with parent:
            kill(parent.pid, signal.SIGKILL)
            killed[place] = time.monotonic()

    def all_ended():
        for place, (_, pid) in started.items():
            if place not in found and not group(pid):
                found[place] = time.monotonic() - killed[place]
        return len(found) == len(PLACES)

    with suppress(AssertionError):  # the test of a child that lives says so
        wait_until(all_ended, timeout_s=60)
    return found


@pytest.mark.parametrize("place", PLACES)
def test_child_whose_parent_is_killed_ends_soon(seconds_to_end, place):
    # Six seconds on an idle machine: it sleeps six times, in processes of their own.
    assert seconds_to_end.get(place, math.inf) < 30


def test_child_lives_as_long_as_its_parent_does(tmp_path):
    process = start_child([sys.executable, "-c", "input()"], tmp_path / "log", None)
    time.sleep(10)
    assert process.poll() is None
    process.communicate("\n")
    assert process.returncode == 0


def test_nothing_is_left_of_a_child_that_ended_once_it_is_forgotten(tmp_path):
    process = start_child([sys.executable, "-c", "print(1)"], tmp_path / "log", None)
    assert process.communicate()[0] == "1\n"
    pid = process.pid
    assert group(pid)  # what waits for this process
    del process
    wait_until(lambda: not group(pid), timeout_s=5)


def test_output_of_a_child_ends_with_it(tmp_path):
    process = start_child([sys.executable, "-c", LOOP], tmp_path / "log", None)
    process.kill()
    assert process.communicate(timeout=5)[0] == ""
    assert process.returncode == -signal.SIGKILL


def test_child_gets_its_command_as_it_is(tmp_path):
    given = ["a b", "$HOME", "'", '"', "", "-x", "*", "\\n", "ʻokina"]
    code = "import json, sys; print(json.dumps(sys.argv[1:]))"
    process = start_child([sys.executable, "-c", code, *given], tmp_path / "log", None)
    assert json.loads(process.communicate()[0]) == given


def test_pipe_that_cannot_be_read_kills_nothing(tmp_path, monkeypatch):
    script = children._TIED.replace("/dev/fd/", "/nowhere/").replace("sleep 1", "sleep 0")
    monkeypatch.setattr(children, "_TIED", script)
    process = start_child([sys.executable, "-c", "input()"], tmp_path / "log", None)
    time.sleep(1)
    assert process.poll() is None
    process.communicate("\n")
    assert process.returncode == 0
