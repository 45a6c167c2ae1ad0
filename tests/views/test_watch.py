import io
import json
import os
import pty
import re
import select
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest
from click.testing import CliRunner
from optuna.trial import create_trial
from rich.console import Console

from hawsweep.cli import main
from hawsweep.errors import StudyError
from hawsweep.prepare.examine_database import check_readable
from hawsweep.search.distributions import distributions
from hawsweep.spec.read import check_sweep
from hawsweep.study.place import Place
from hawsweep.study.storage import open_storage
from hawsweep.study.study import create_study
from hawsweep.views.terminal.watch import watch_status

SPEC = check_sweep(
    {
        "model": "some/model",
        "data": "phrasebook",
        "search": {"learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}},
        "description": "Rates [of] learning.",
    },
    "a sweep",
)
PATIENCE_S = 60


class Watched:
    """A study to watch, written to as a sweep would."""

    def __init__(self, place):
        self.place = place
        storage = open_storage(place, create=True)
        self.study, _ = create_study(storage, place, "rates", SPEC, {})
        self._close(storage)

    def add_trial(self, score):
        params = {"learning_rate": 1e-4}
        space = distributions(SPEC.search)
        self.study.add_trial(create_trial(value=score, params=params, distributions=space))
        self._close(self.study._storage._backend)

    @staticmethod
    def _close(storage):
        storage.remove_session()
        storage.engine.dispose()


@pytest.fixture
def watched(tmp_path):
    made = Watched(Place(tmp_path / "studies"))
    made.add_trial(0.5125)
    return made


def command(place, *options):
    return [
        *(sys.executable, "-m", "hawsweep.cli", "status", "--watch", "--interval", "0.5"),
        *("--studies-dir", str(place.studies_dir), *options),
    ]


class Output:
    """What a process writes to a file descriptor."""

    def __init__(self, descriptor):
        self._descriptor = descriptor
        self.text = ""
        self._seen = 0

    def until(self, text):
        """Read on until there is something new with this text."""
        assert self.comes(text, PATIENCE_S), self.text[-3000:]

    def comes(self, text, patience_s):
        """Read on for so long; whether there is something new with this text."""
        deadline = time.monotonic() + patience_s
        while (found := self.text.find(text, self._seen)) < 0:
            if time.monotonic() > deadline or not self.read(0.1):
                return False
        self._seen = found + len(text)
        return True

    def read(self, timeout_s=PATIENCE_S):
        """Read some; False at the end."""
        if not select.select([self._descriptor], [], [], timeout_s)[0]:
            return True
        try:
            got = os.read(self._descriptor, 65536)
        except OSError:  # what Linux gives where the other end of a terminal is closed
            got = b""
        self.text += got.decode("utf-8", "replace")
        return bool(got)


def said_to_be_locked(watched, output):
    with closing(sqlite3.connect(watched.place.database_path, timeout=PATIENCE_S)) as lock:
        lock.execute("PRAGMA locking_mode=EXCLUSIVE")
        lock.execute("BEGIN EXCLUSIVE")
        return output.comes("cannot be read: database is locked", 3.0)


def test_terminal_shows_changes_survives_a_lock_and_is_left_as_it_was(watched):
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "240", "LINES": "40"}
    with subprocess.Popen(
        command(watched.place, "rates"), stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        output = Output(ours)
        try:
            output.until("\x1b[?1049h")  # the alternate screen begins
            output.until("0.5125")
            watched.add_trial(0.6250)
            output.until("0.6250")
            # Locked in the middle of a look, that look waits: then once more.
            assert any(said_to_be_locked(watched, output) for _ in range(20))
            output.until("0.6250")
            watched.add_trial(0.7375)
            output.until("0.7375")
            process.send_signal(signal.SIGINT)
            while output.read():
                pass
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()
            os.close(ours)
    assert re.search(r"As it was at \d\d:\d\d:\d\d\. ", output.text)
    assert output.text.rindex("\x1b[?1049l") > output.text.rindex("0.7375")  # it ends
    assert "Traceback" not in output.text


def test_without_a_terminal_each_change_is_printed_once(watched):
    with subprocess.Popen(
        command(watched.place), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        output = Output(process.stdout.fileno())
        try:
            output.until("0.5125")
            for score in ("0.6250", "0.7375"):
                watched.add_trial(float(score))
                output.until(score)
            process.send_signal(signal.SIGINT)
            while output.read():
                pass
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()
    assert "\x1b" not in output.text
    assert [len(re.findall(score, output.text)) for score in ("0.5125", "0.6250", "0.7375")] == [
        *(3, 2, 1)
    ]


def watch_lines(draws):
    """What is printed where each draw gives or raises the next of ``draws``."""
    left = iter(draws)

    def draw():
        found = next(left, None)
        if found is None:
            raise KeyboardInterrupt
        if isinstance(found, BaseException):
            raise found
        return found

    slept = []
    console = Console(file=io.StringIO(), width=100)
    watch_status(console, draw, 2.5, sleep=slept.append)
    return console.file.getvalue().splitlines(), slept


def test_what_has_not_changed_is_not_printed_again():
    lines, slept = watch_lines(["one", "one", "two", "two", "one"])
    assert lines == ["one", "two", "one"]
    assert slept == [2.5] * 5


@pytest.mark.parametrize(
    "fault",
    [
        StudyError("it is locked"),
        sqlite3.OperationalError("it is locked"),
        FileNotFoundError("it is locked"),
        json.JSONDecodeError("it is locked", "", 0),
    ],
)
def test_fault_that_passes_is_said_once(fault):
    lines, _ = watch_lines(["one", fault, fault, "one", fault, "two"])
    said = f"Not read now: {fault}"
    assert lines == ["one", said, said, "two"]


def test_fault_at_the_first_picture_and_a_bug_come_out():
    with pytest.raises(StudyError):
        watch_lines([StudyError("There are no studies")])
    with pytest.raises(TypeError):
        watch_lines(["one", TypeError("a bug")])


def test_interrupt_while_drawing_ends_it_without_a_fault():
    assert watch_lines(["one", KeyboardInterrupt()])[0] == ["one"]
    assert watch_lines([])[0] == []


def test_database_is_readable_while_a_sweep_writes_but_not_while_it_is_locked(watched):
    path = watched.place.database_path
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        check_readable(watched.place)
        writer.execute("ROLLBACK")
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("PRAGMA locking_mode=EXCLUSIVE")
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StudyError, match=r"hawsweep\.db cannot be read: database is locked"):
            check_readable(watched.place)
    check_readable(watched.place)
    check_readable(Place(watched.place.studies_dir, "postgresql://nobody@nowhere/none"))


def status(place, *options):
    found = ["status", "--studies-dir", str(place.studies_dir), *options]
    return CliRunner().invoke(main, found)


def test_status_without_watching_prints_the_picture_once(watched):
    done = status(watched.place, "rates")
    assert done.exit_code == 0
    head, titles, row = done.output.splitlines()[:3]
    assert head.rstrip() == "rates  Rates [of] learning."
    assert titles.split()[:3] == ["trial", "state", "lr"]
    assert row.split()[:3] == ["0", "complete", "1.00e-04"]
    assert "0.5125" in row


def test_status_without_watching_gives_json(watched):
    found = json.loads(status(watched.place, "--json").output)
    assert found["study"] == "rates"
    assert [row["score"] for row in found["trials"]] == [0.5125]
    assert "groups" not in found
    assert "why" not in found
    assert json.loads(status(watched.place, "--json", "--groups").output)["groups"] == []


def test_watching_gives_no_json_and_looks_not_too_often(watched):
    refused = status(watched.place, "--watch", "--json")
    assert (refused.exit_code, "leave out --json" in refused.output) == (2, True)
    assert status(watched.place, "--watch", "--interval", "0").exit_code == 2


def test_watching_what_is_not_there_is_refused(watched, tmp_path):
    refused = status(watched.place, "nothing", "--watch")
    assert (refused.exit_code, "There is no study 'nothing'" in refused.output) == (1, True)
    refused = status(Place(tmp_path / "elsewhere"), "--watch")
    assert refused.exit_code == 1
