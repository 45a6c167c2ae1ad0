"""A shared database that is restarted, or stays away, under a running sweep."""

import gc
import json
import time

import pytest
from harness import Lab, count
from optuna.trial import TrialState
from storage_servers import postgres

from hawsweep.layout import METRICS_FILE
from hawsweep.study.attributes import INTERRUPTED

# psycopg warns of connections that are collected while they are open.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def server(tmp_path):
    with postgres(tmp_path) as server:
        yield server
    gc.collect()


@pytest.fixture
def lab(tmp_path, tiny_model_dir, chat_data_dir, server, monkeypatch):
    monkeypatch.setenv("HAWSWEEP_STORAGE", server.url)
    search = {"learning_rate": {"low": 1e-4, "high": 1e-2}, "iters": {"choices": [120]}}
    folder = tmp_path / "lab"
    folder.mkdir()
    return Lab(folder, tiny_model_dir, chat_data_dir, trials=4, search=search)


def test_restarted_database_costs_nothing(lab, server):
    with lab.start() as run:
        _, seen = run.next(("trial_end",))
        _, seen = run.next(("eval",), seen)
        server.stop()
        count("database away")
        for _ in range(2):  # the training goes on
            _, seen = run.next(("eval",), seen)
        time.sleep(2)
        server.start()
        assert run.wait() == 0
    lab.check(4)
    trials = lab.trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 4
    evaluations = sorted(trials[0].intermediate_values)
    assert evaluations[-1] == 120
    assert [sorted(trial.intermediate_values) for trial in trials] == [evaluations] * 4


def test_database_that_stays_away_ends_the_sweep_which_goes_on_later(lab, server, monkeypatch):
    monkeypatch.setenv("HAWSWEEP_OUTAGE_S", "4")
    with lab.start() as run:
        _, seen = run.next(("trial_end",))
        run.next(("eval",), seen)
        before = lab.finished()
        server.stop()
        count("database away")
        assert run.wait() == 1
    assert "The database at 127.0.0.1 did not answer for 4 seconds" in run.error["message"]
    server.start()
    assert lab.finish().ended
    lab.check(4)
    assert before.items() <= lab.finished().items()
    assert len(lab.trials()) == 4
    (left,) = [trial for trial in lab.trials() if INTERRUPTED in trial.user_attrs]
    assert left.number not in before
    lines = (lab.studies / "tiny" / "trials" / f"{left.number:04d}" / METRICS_FILE).read_text()
    steps = [json.loads(line)["iteration"] for line in lines.splitlines() if '"eval"' in line]
    assert steps == sorted(left.intermediate_values)
