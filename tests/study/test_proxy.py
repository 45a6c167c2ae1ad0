"""A study by Optuna's gRPC proxy of its storage: as at the storage itself."""

import http.server
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
from storage_servers import free_port, serving_storage

from hawsweep.errors import StudyError
from hawsweep.study import storage as storage_module
from hawsweep.study.optuna_door import storage_of, study_id, suggest, trial_id, trial_to_run
from hawsweep.study.place import Place
from hawsweep.study.storage import is_storage_fault, open_storage

grpc = pytest.importorskip("grpc")


@pytest.fixture
def opened(place):
    place.studies_dir.mkdir()
    with serving_storage(place.url) as url:
        yield open_storage(Place(place.studies_dir, url))


def test_what_a_worker_does_is_the_same_by_a_proxy(opened, place):
    study = optuna.create_study(storage=opened, study_name="rates", direction="maximize")
    study.enqueue_trial({"rate": 0.25}, user_attrs={"by": "you"})
    held = storage_of(study)
    (waiting,) = study.get_trials(deepcopy=False)
    assert held.set_trial_state_values(trial_id(waiting), TrialState.RUNNING)
    assert not held.set_trial_state_values(trial_id(waiting), TrialState.RUNNING)
    running = trial_to_run(study, 0)
    suggest(running, {"rate": FloatDistribution(0.0, 1.0)})
    running.report(float("inf"), 4)
    running.set_constraint("memory", 0.0)
    held.set_study_system_attr(study_id(study), "note", [1, None])
    assert held.get_study_system_attrs(study_id(study))["note"] == [1, None]
    assert held.set_trial_state_values(trial_id(waiting), TrialState.WAITING)
    assert held.set_trial_state_values(trial_id(waiting), TrialState.RUNNING)
    study.tell(running, 0.5)
    here = optuna.load_study(storage=open_storage(place), study_name="rates")
    assert study.get_trials() == here.get_trials()
    assert study.get_trials()[0].user_attrs == {"by": "you"}


def test_trials_are_the_same_objects_until_they_change(opened):
    study = optuna.create_study(storage=opened)
    study.add_trial(optuna.trial.create_trial(value=1.0))
    study.ask()
    ended, running = study.get_trials(deepcopy=False)
    again, changed = study.get_trials(deepcopy=False)
    assert again is ended
    assert changed is not running


def test_faults_are_those_of_the_storage(opened):
    study = optuna.create_study(storage=opened, study_name="rates")
    trial = study.ask()
    study.tell(trial, 1.0)
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        trial.set_user_attr("late", 1)
    with pytest.raises(KeyError) as gone:
        optuna.load_study(storage=opened, study_name="others")
    assert is_storage_fault(gone.value)


@contextmanager
def web_server():
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@contextmanager
def other_grpc_server():
    port = free_port()
    with ThreadPoolExecutor(1) as threads:
        server = grpc.server(threads)
        server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        yield port
        server.stop(None).wait()


@contextmanager
def closed_port():
    yield free_port()


@pytest.mark.parametrize(
    ("server", "said"),
    [
        (closed_port, "no storage proxy answers at grpc://127.0.0.1:{}. Check host and port"),
        (web_server, "no storage proxy answers at grpc://127.0.0.1:{}. Check host and port"),
        (other_grpc_server, "another server answers at grpc://127.0.0.1:{}. Check host and port"),
    ],
)
def test_what_is_no_proxy_is_said(tmp_path, monkeypatch, server, said):
    if server is not other_grpc_server:
        monkeypatch.setattr(storage_module, "_ANSWERS_WITHIN_S", 0.5)
    with server() as port, pytest.raises(StudyError) as caught:
        open_storage(Place(tmp_path, f"grpc://127.0.0.1:{port}"))
    assert str(caught.value).startswith(said.format(port))


@pytest.mark.parametrize("url", ["grpc://host", "grpc://me@host:1", "grpc://host:1/x", "grpc://:1"])
def test_address_of_another_form_is_refused(tmp_path, url):
    with pytest.raises(StudyError, match="must read grpc://HOST:PORT"):
        open_storage(Place(tmp_path, url))


def test_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "grpc", None)
    with pytest.raises(StudyError, match=r"needs the package grpcio.*\[grpc\]'"):
        open_storage(Place(tmp_path, "grpc://127.0.0.1:1"))
