"""A shared database that is restarted, or stays away, under a running sweep."""

import gc
import json
import time

import psutil
import pytest
from harness import Lab, count, wait_until
from optuna.trial import TrialState
from storage_servers import postgres

from hawsweep.errors import StudyError
from hawsweep.layout import METRICS_FILE
from hawsweep.study.attributes import INTERRUPTED
from hawsweep.study.optuna_door import storage_of, study_id
from hawsweep.study.place import Place
from hawsweep.study.storage import open_storage

SECRET = "s3cret-word"
# Enough that a trial does not end while the database is stopped.
ITERS = 160
# psycopg warns of connections that are collected while they are open.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def server():
    with postgres() as server:
        yield server
    gc.collect()


@pytest.fixture
def lab(tmp_path, tiny_model_dir, chat_data_dir, server, monkeypatch):
    monkeypatch.setenv("HAWSWEEP_STORAGE", server.url)
    search = {"learning_rate": {"low": 1e-4, "high": 1e-2}, "iters": {"choices": [ITERS]}}
    folder = tmp_path / "lab"
    folder.mkdir()
    return Lab(folder, tiny_model_dir, chat_data_dir, trials=3, search=search)


def test_restarted_database_costs_nothing(lab, server):
    metrics = lab.studies / "tiny" / "trials" / "0001" / METRICS_FILE
    with lab.start() as run:
        _, seen = run.next(("trial_end",))
        run.next(("eval",), seen)
        server.stop()
        count("database away")
        # The supervisor passes on no event meanwhile; the worker writes them itself.
        n_before = metrics.read_text().count('"eval"')
        wait_until(lambda: metrics.read_text().count('"eval"') >= n_before + 2)
        time.sleep(1)
        server.start()
        assert run.wait() == 0
    lab.check(3)
    trials = lab.trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 3
    evaluations = sorted(trials[0].intermediate_values)
    assert evaluations[-1] == ITERS
    assert [sorted(trial.intermediate_values) for trial in trials] == [evaluations] * 3


def test_database_that_stays_away_ends_the_sweep_which_goes_on_later(lab, server, monkeypatch):
    monkeypatch.setenv("HAWSWEEP_OUTAGE_S", "4")
    monkeypatch.setenv("HAWSWEEP_STORAGE", with_secret(server))
    with lab.start() as run:
        _, seen = run.next(("trial_end",))
        run.next(("eval",), seen)
        before = lab.finished()
        pids = [run.process.pid, *run.workers().values()]
        assert not any(SECRET in str(psutil.Process(pid).cmdline()) for pid in pids)
        server.stop()
        count("database away")
        assert run.wait() == 1
    assert "The database at 127.0.0.1 did not answer for 4 seconds" in run.error["message"]
    server.start()
    assert lab.finish().ended
    lab.check(3)
    assert before.items() <= lab.finished().items()
    assert len(lab.trials()) == 3
    (left,) = [trial for trial in lab.trials() if INTERRUPTED in trial.user_attrs]
    assert left.number not in before
    lines = (lab.studies / "tiny" / "trials" / f"{left.number:04d}" / METRICS_FILE).read_text()
    steps = [json.loads(line)["iteration"] for line in lines.splitlines() if '"eval"' in line]
    assert steps == sorted(left.intermediate_values)
    files = [path for path in lab.studies.rglob("*") if path.is_file()]
    assert {"worker-0.log", "progress.json"} & {path.name for path in files}
    assert not any(SECRET.encode() in path.read_bytes() for path in files)
    notes = storage_of(lab.study).get_study_system_attrs(study_id(lab.study))
    assert notes
    assert SECRET not in f"{run.events} {lab.study.user_attrs} {notes}"


def with_secret(server):
    return f"{server.url.replace('me@', f'me:{SECRET}@')}?sslmode=disable"


def test_connection_is_encrypted_as_the_url_says(server, tmp_path):
    url = with_secret(server).replace("disable", "require")
    with pytest.raises(StudyError, match="server does not support SSL") as caught:
        open_storage(Place(tmp_path, url))
    assert SECRET not in str(caught.value)
