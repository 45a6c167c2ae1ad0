"""Full and read-only disks, locked and broken databases, under a real sweep."""

import errno
import os
import shutil
import sqlite3
import subprocess
import threading
import time
from contextlib import closing, contextmanager

import pytest
from harness import Lab, count
from optuna.trial import TrialState

from hawsweep.errors import StudyError
from hawsweep.prepare.examine_database import examine
from hawsweep.study.place import Place
from hawsweep.study.storage import open_storage


def mount(folder, options):
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own; skipped where nobody may make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None or not mount(folder, "size=300m"):
        pytest.skip("no right to mount a small file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path):
    """Leave not a page of a disk."""
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError as fault:
            assert fault.errno == errno.ENOSPC  # noqa: PT017 - the end of the disk ends the loop


def remount(folder, options):
    command = ["mount", "-o", f"remount,{options}", str(folder)]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def lab_on(calibrated, chat_data_dir):
    def make(folder, **changes):
        return Lab(folder, calibrated, chat_data_dir, **changes)

    return make


@pytest.mark.parametrize("after", ["trial_start", "eval", "scoring", "base_start"])
def test_full_disk_is_said_and_the_sweep_goes_on_when_there_is_room(small_disk, lab_on, after):
    here = lab_on(small_disk, trials=3, search={"iters": {"choices": [120]}})
    filler = small_disk / "filler"
    with here.start() as run:
        run.next((after,))
        fill(filler)
        count("disk full")
        assert run.wait() == 1
    assert run.error["error"] == "StudyError"
    assert "is full or cannot be written" in run.error["message"]
    filler.unlink()
    before = here.finished()
    here.finish()
    here.check(3)
    known = here.finished()
    assert {number: known[number] for number in before} == before


def test_sweep_that_the_disk_has_no_room_for_is_refused_before_it_trains(small_disk, lab_on):
    here = lab_on(small_disk, trials=3)
    (small_disk / "filler").write_bytes(b"x" * 250_000_000)
    with here.start() as run:
        count("disk full")
        assert run.wait() == 1
    assert "GB are free" in run.error["message"]
    assert "keep" in run.error["message"]


@pytest.mark.parametrize("n_before", [0, 1])
def test_read_only_disk_is_said_and_loses_nothing(small_disk, lab_on, n_before):
    here = lab_on(small_disk)
    if n_before:
        here.finish(f"trials={n_before}")
    remount(small_disk, "ro")
    with here.start("trials=2") as run:
        count("read-only disk")
        assert run.wait() == 1
    assert "cannot be written" in run.error["message"]
    remount(small_disk, "rw")
    here.finish("trials=2")
    here.check(2)


@contextmanager
def locked(path, seconds):
    """Hold a database's lock for writing meanwhile, from another process's view."""

    def hold():
        with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            time.sleep(seconds)
            connection.execute("ROLLBACK")

    holder = threading.Thread(target=hold)
    holder.start()
    yield
    holder.join()


@pytest.mark.parametrize("seconds", [1, 4, 20])
def test_database_that_is_locked_for_a_while_ends_no_trial(lab, seconds):
    here = lab(trials=4, workers=2, search={"iters": {"choices": [80]}})
    with here.start() as run:
        run.next(("eval",))
        with locked(here.studies / "hawsweep.db", seconds):
            pass
        count("locked database")
        assert run.wait() == 0
    here.check(4)
    assert all(t.state == TrialState.COMPLETE for t in here.trials())


@pytest.mark.parametrize(
    "damage", ["header", "truncated", "page", "empty", "text"], ids=lambda name: name
)
def test_damaged_database_is_named_and_left_as_it_is(lab, damage):
    here = lab(trials=1)
    here.finish()
    path = here.studies / "hawsweep.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = path.read_bytes()
    damaged = {
        "header": b"x" * 100 + content[100:],
        "truncated": content[: len(content) // 2],
        "page": content[:4096] + os.urandom(8192) + content[12288:],
        "empty": content[:512],
        "text": b"not a database\n" * 400,
    }[damage]
    path.write_bytes(damaged)
    count("damaged database")
    with here.start() as run:
        assert run.wait() == 1
    assert str(path) in run.error["message"]
    assert path.read_bytes() == damaged
    with pytest.raises(StudyError, match=r"hawsweep\.db"):
        open_storage(Place(here.studies))
    assert (here.studies / "tiny" / "trials" / "0000" / "adapters").is_dir()
    subprocess.run(examine(Place(here.studies)).restore, shell=True, check=True)
    here.finish("trials=2")
    here.check(2)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_truncated_spec_in_the_studys_folder_is_no_hindrance(lab, share):
    here = lab(trials=1)
    here.finish()
    path = here.studies / "tiny" / "spec.yaml"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    count("truncated file")
    here.finish("trials=2")
    here.check(2)
