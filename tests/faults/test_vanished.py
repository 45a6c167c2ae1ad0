"""What a sweep needs vanishes while it runs: it stops and says so."""

import signal
import sqlite3
import time
from contextlib import closing

import psutil
import pytest
from harness import count, kill, wait_until
from vanishing import WAYS

MOMENTS = ("study", "eval", "scoring", "trial_end", "confirm_start", "test_start", "test_end")
# Each way at one moment, and some ways at all.
STRIKES = {(way, MOMENTS[n % len(MOMENTS)]) for n, way in enumerate(WAYS)}
STRIKES |= {(way, moment) for way in ("database removed", "study deleted") for moment in MOMENTS}


@pytest.mark.parametrize(("way", "moment"), sorted(STRIKES))
def test_sweep_of_which_something_vanishes_stops_and_says_so(lab, way, moment):
    changes = {"confirm": {"top": 1, "seeds": 1}, "search": {"iters": {"choices": [60]}}}
    here = lab(trials=2, **changes)
    with here.start(f"hold={moment}") as run:
        assert run.next((moment,))[0] is not None
        WAYS[way](here.studies)
        count("vanished")
        (here.folder / "go_on").touch()
        assert run.wait() == 1
    assert run.error["error"] == "StudyGoneError"
    assert "while the sweep ran" in run.error["message"]
    assert not run.ended


def test_backup_is_not_replaced_by_one_of_another_database(lab):
    here = lab(trials=3, search={"iters": {"choices": [200]}})
    here.finish("trials=1")
    with here.start() as run:
        run.next(("eval",))
        WAYS["database of others"](here.studies)
        count("vanished")
        assert run.wait() == 1
    with closing(sqlite3.connect(here.studies / "hawsweep.db.backup")) as backup:
        names = {name for (name,) in backup.execute("SELECT study_name FROM studies")}
    assert "tiny" in names


METRIC_THAT_LOOPS = """
import re

def metric(source, reference, output):
    print("looping", flush=True)
    re.match("(a+)+b", "a" * 64)
"""


def test_worker_in_native_code_ends_with_its_supervisor(lab):
    here = lab(trials=1)
    (here.folder / "judge.py").write_text(METRIC_THAT_LOOPS)
    with here.start("scoring.metric=judge:metric", warm=False) as run:
        log = here.studies / "tiny" / "worker-0.log"
        wait_until(lambda: log.exists() and "looping" in log.read_text())
        children = psutil.Process(run.process.pid).children(recursive=True)
        kill(run.process.pid, signal.SIGKILL)
        count("supervisor killed")
        killed = time.monotonic()
        run.wait()
    wait_until(lambda: not any(each.is_running() for each in children))
    assert time.monotonic() - killed < 30  # six seconds on an idle machine
