"""Who is who, and the lock that only one holds."""

import errno
import fcntl
import os
import signal
import subprocess
import sys

import psutil
import pytest

from hawsweep.errors import StudyBusyError, StudyError
from hawsweep.machine.processes import (
    identity,
    is_alive_here,
    is_dead_here,
    is_here,
    machine_id,
    supervising,
    supervisor_of,
)

HOLD = """
import sys
from pathlib import Path
from hawsweep.machine.processes import supervising
with supervising(Path(sys.argv[1]), {"trials": 3}):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    return process


def end(process, number):
    process.send_signal(number)
    process.communicate()


def test_identity_tells_this_process_from_one_that_ended(tmp_path):
    assert is_alive_here(identity())
    with holder(tmp_path) as process:
        other = identity(process.pid)
        assert is_alive_here(other)
        assert {**other, "pid": os.getpid()} != identity()
        end(process, signal.SIGKILL)
    assert is_dead_here(other)


def test_identity_of_no_process_is_refused(tmp_path):
    with holder(tmp_path) as process:
        end(process, signal.SIGKILL)
    with pytest.raises(psutil.NoSuchProcess):
        identity(process.pid)


def test_process_of_another_host_is_neither_dead_nor_alive_here():
    other = {**identity(), "machine": "elsewhere", "boot": "its own", "pid": 1}
    assert not is_dead_here(other)
    assert not is_alive_here(other)
    assert not is_dead_here(None)
    assert not is_alive_here(None)


def test_number_that_another_process_has_now_is_a_dead_one():
    assert is_dead_here({**identity(), "started": 1.0})
    assert is_dead_here({**identity(), "boot": "before"})


def test_container_beside_this_one_has_other_numbers_of_processes():
    boot, _, _ = identity()["boot"].partition(" ")
    assert not is_here({**identity(), "boot": f"{boot} pid:[1]"})


@pytest.mark.parametrize("content", [None, "", "uninitialized\n"])
def test_machine_without_an_id_is_not_told_by_its_name(tmp_path, content):
    if content is not None:
        (tmp_path / "machine-id").write_text(content)
    assert machine_id(tmp_path) == ""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "machine-id").write_text("0123\n")
    assert machine_id(tmp_path / "other").endswith(f"@{os.uname().nodename}")
    assert not is_here({**identity(), "machine": "", "boot": "another"})


def test_copy_of_this_machine_is_another_one():
    here = identity()
    copy = here["machine"].partition("@")[0] + "@copy"
    assert not is_here({**here, "boot": "its own", "machine": copy})
    assert is_dead_here({**here, "boot": "before"})


def test_record_of_an_earlier_version_has_no_machine_and_its_boot_alone():
    old = identity()
    del old["machine"]
    old["boot"], _, _ = old["boot"].partition(" ")
    assert is_alive_here(old)
    assert is_dead_here({**old, "boot": "before"})
    assert not is_here({**old, "host": "elsewhere"})


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_lock_is_free_again_however_its_holder_ended(tmp_path, number):
    with holder(tmp_path) as process:
        held = supervisor_of(tmp_path)
        assert (held["pid"], held["trials"]) == (process.pid, 3)
        with (
            pytest.raises(StudyBusyError, match=f"run by process {process.pid}"),
            supervising(tmp_path, {}),
        ):
            pass
        end(process, number)
    assert supervisor_of(tmp_path) is None
    with supervising(tmp_path, {}):
        pass


def test_nobody_supervises_a_study_that_is_not_there(tmp_path):
    assert supervisor_of(tmp_path / "none") is None


def test_file_system_without_locks_is_said(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(StudyError, match="has no locks"), supervising(tmp_path, {}):
        pass
