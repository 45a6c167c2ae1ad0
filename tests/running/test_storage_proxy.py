"""The proxy of a study's storage: who reaches it, and how long it lives."""

import socket
import subprocess
import sys
import time

import optuna
import psutil
import pytest
from harness import children_of

from hawsweep.errors import StudyError
from hawsweep.running.storage_proxy import serving
from hawsweep.study.place import Place
from hawsweep.study.storage import open_storage

pytest.importorskip("grpc")


@pytest.fixture
def known(place):
    """A place with a study of one trial."""
    storage = open_storage(place, create=True)
    study = optuna.create_study(storage=storage, study_name="rates")
    study.add_trial(optuna.trial.create_trial(value=1.0))
    return place


def test_the_same_study_is_served_on_loopback_alone(known, tmp_path):
    with serving(known, tmp_path / "proxy.log") as port:
        storage = open_storage(Place(known.studies_dir, f"grpc://127.0.0.1:{port}"))
        study = optuna.load_study(storage=storage, study_name="rates")
        study.set_user_attr("by", "another machine")
        listening = [each for each in psutil.net_connections("tcp") if each.status == "LISTEN"]
        where = {each.laddr.ip for each in listening if each.laddr.port == port}
        assert {each.removeprefix("::ffff:") for each in where} == {"127.0.0.1"}
    here = optuna.load_study(storage=open_storage(known), study_name="rates")
    assert here.user_attrs["by"] == "another machine"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_a_process_that_dies_is_followed_by_another_on_the_same_port(known, tmp_path):
    with serving(known, tmp_path / "proxy.log") as port:
        for number in range(2):
            (process,) = children_of(psutil.Process(), "hawsweep.running.storage_proxy")
            process.kill()
            process.wait()
            storage = open_storage(
                Place(known.studies_dir, f"grpc://127.0.0.1:{port}"), patient=True
            )
            study = optuna.load_study(storage=storage, study_name="rates")
            study.set_user_attr("number", number)
            assert study.user_attrs["number"] == number
    assert not children_of(psutil.Process(), "hawsweep.running.storage_proxy")


def test_a_storage_that_cannot_be_opened_is_told_by_its_words(place, tmp_path):
    with (
        pytest.raises(StudyError, match=r"^The study cannot be served.*hawsweep.db is missing"),
        serving(place, tmp_path / "proxy.log"),
    ):
        pass


def test_it_ends_with_the_process_that_serves(known, tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from hawsweep.study.place import Place\n"
        "from hawsweep.running.storage_proxy import serving\n"
        "with serving(Place(Path(sys.argv[1])), Path(sys.argv[2])) as port:\n"
        "    print(port, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(known.studies_dir), str(tmp_path / "proxy.log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        port = int(process.stdout.readline())
        process.kill()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with socket.socket() as asking:
            if asking.connect_ex(("127.0.0.1", port)) != 0:
                return
        time.sleep(0.1)
    pytest.fail("it still serves")
