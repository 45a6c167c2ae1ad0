"""A sweep all of whose trials ran on a host, and the same one on other machines: the same trials.

`sampler: random` proposes by the trial's number alone, and without pruning and confirming runs no
trial depends on another. So the order of the trials, which differs, changes nothing.
"""

import os
import signal

import psutil
import pytest
from click.testing import CliRunner
from harness import Lab, children_of, workers_of
from optuna.trial import TrialState
from storage_servers import postgres

from hawsweep.cli import main

N_TRIALS = 4
ADAPTER = "adapters/adapters.safetensors"
FILES = (ADAPTER, "valid_losses.npy", "samples.jsonl")
# boto3's clients and psycopg's connections are left to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def pause(process):
    """Stop the worker of a process that supervises, before its first trial; give the worker."""
    (worker,) = workers_of(process)
    worker.send_signal(signal.SIGSTOP)
    return worker


@pytest.fixture(scope="module")
def swept(shared_room):
    """The starter's worker trains nothing, and the process that serves the study is killed while
    the host trains.
    """
    host = shared_room.machine("host-1")
    lab = shared_room.lab(trials=N_TRIALS)
    run = shared_room.start(lab, "host-1")
    run.wait_for("base_start")
    starter = psutil.Process(run.pid)
    worker = pause(starter)
    run.wait_for("trial_start", "host-1", number=2)
    (proxy,) = children_of(starter, "hawsweep.running.storage_proxy")
    os.kill(proxy.pid, signal.SIGKILL)
    run.wait_for("trial_end", "host-1", number=N_TRIALS)
    worker.send_signal(signal.SIGCONT)
    assert run.wait() == 0, run.events[-5:]
    return lab, host, run


def test_death_of_the_process_that_serves_the_study_costs_nothing(swept):
    lab, _, run = swept
    lab.check(N_TRIALS)
    assert [trial.state for trial in lab.trials()] == [TrialState.COMPLETE] * N_TRIALS
    for kind in ("trial_start", "trial_end"):
        told = [(each["number"], each["host"]) for each in run.of(kind)]
        assert sorted(told) == [(number, "host-1") for number in range(N_TRIALS)]
    assert "away" not in [each["state"] for each in run.of("host", "host-1")]


def test_starter_tests_exports_and_reports_the_winner_of_a_host(swept):
    lab, host, run = swept
    best = lab.study.best_trial.number
    assert lab.study.user_attrs["test"]["trial_number"] == best
    assert [each["host"] for each in run.of("test_end")] == [""]
    for command in ("export", "report"):
        done = CliRunner().invoke(main, [command, "tiny", f"--studies-dir={lab.studies}"])
        assert done.exit_code == 0, (done.output, done.exception)
    written = host.folder / "studies" / "tiny" / "trials" / f"{best:04d}" / ADAPTER
    exported = lab.studies / "tiny" / "export" / ADAPTER
    assert exported.read_bytes() == written.read_bytes()
    assert (lab.studies / "tiny" / "report.html").is_file()


def results(lab, *others):
    """All of a sweep's trials, and their files, which may be on several machines."""
    folders = [each.studies / "tiny" / "trials" for each in (lab, *others)]
    files = {
        str(path.relative_to(folder)): path.read_bytes()
        for folder in folders
        for name in FILES
        for path in folder.glob(f"*/{name}")
    }
    assert len(files) == N_TRIALS * len(FILES)
    return lab.finished(), files


@pytest.fixture(scope="module")
def alone(tmp_path_factory, tiny_model_dir, chat_data_dir):
    """What the sweep gives on one machine."""
    folder = tmp_path_factory.mktemp("alone")
    lab = Lab(folder, tiny_model_dir, chat_data_dir, trials=N_TRIALS, keep="all")
    with lab.start() as run:
        assert run.wait() == 0, run.error
    return results(lab)


def test_trials_by_grpc_and_sqlite_are_those_of_one_machine(swept, alone):
    lab, _, _ = swept
    assert results(lab) == alone


def test_trials_by_postgresql_and_s3_are_those_of_one_machine(
    alone, tmp_path, tiny_model_dir, chat_data_dir, bucket, monkeypatch
):
    labs = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        about = {"trials": N_TRIALS, "keep": "all", "artifacts": bucket}
        labs.append(Lab(tmp_path / name, tiny_model_dir, chat_data_dir, **about))
    here, there = labs
    with postgres() as server:
        monkeypatch.setenv("HAWSWEEP_STORAGE", server.url)
        with here.start() as run:
            run.next(("base_start",))
            worker = pause(psutil.Process(run.process.pid))
            with there.start("join") as second:
                second.next(("trial_start",))
                worker.send_signal(signal.SIGCONT)
                assert run.wait() == 0, run.error
                assert second.wait() == 0, second.error
        numbers = [
            {each["values"]["number"] for each in each.events if each["kind"] == "trial_end"}
            for each in (run, second)
        ]
        assert all(numbers)
        assert results(here) == alone
