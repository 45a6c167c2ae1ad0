import base64
import http.client
import json
import socket
import time
from contextlib import contextmanager
from urllib.parse import urlsplit

import noted_study
import optuna
import pytest
from click.testing import CliRunner
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial
from optuna_dashboard import get_note

from hawsweep.cli import main
from hawsweep.errors import BackendError, StudyError
from hawsweep.study.place import Place
from hawsweep.study.storage import confirm_name, open_storage
from hawsweep.views.dashboard import browser
from hawsweep.views.dashboard import serve as serve_module
from hawsweep.views.dashboard.refresh import Refresher
from hawsweep.views.dashboard.serve import make_server


@pytest.fixture
def place(tmp_path):
    place = Place(tmp_path / "studies")
    study = optuna.create_study(storage=open_storage(place, create=True), study_name="rates")
    space = {"learning_rate": FloatDistribution(0, 1)}
    study.add_trial(create_trial(value=1, params={"learning_rate": 0.5}, distributions=space))
    return place


class Served:
    """A server on loopback, asked without a browser's help."""

    def __init__(self, server):
        self.url = server.url
        self.port = server.server_address[1]

    def ask(self, path, method="GET", body=None, **headers):
        """Status, headers and text of the answer; a header's name has ``_`` for ``-``."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, named)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode()
        finally:
            connection.close()


@contextmanager
def serving(place):
    with noted_study.serving(place) as server:
        yield Served(server)


def names(place):
    return optuna.get_all_study_names(open_storage(place))


def test_studies_are_served(place):
    with serving(place) as served:
        assert served.url == f"http://127.0.0.1:{served.port}/"
        status, headers, text = served.ask("/api/studies")
        assert served.ask("/dashboard")[0] == 200
    assert status == 200
    assert [each["study_name"] for each in json.loads(text)["study_summaries"]] == ["rates"]
    assert headers["X-Frame-Options"] == "SAMEORIGIN"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "", "[::1", "10.0.0.1"])
def test_request_for_another_host_is_refused(place, host):
    with serving(place) as served:
        status, _, text = served.ask("/api/studies", Host=host)
    assert status == 403
    assert "This is served as 127.0.0.1, [::1] and localhost only" in text
    assert "rates" not in text


@pytest.mark.parametrize("host", ["localhost:8080", "LOCALHOST", "127.0.0.1:1", "[::1]:8080"])
def test_names_of_loopback_are_served(place, host):
    with serving(place) as served:
        assert served.ask("/api/studies", Host=host)[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", ""])
def test_another_page_may_not_write(place, origin):
    with serving(place) as served:
        status, _, text = served.ask("/api/studies/1", "DELETE", Origin=origin)
    assert (status, text) == (403, "Another page may neither read nor write here.\n")
    assert names(place) == ["rates"]


@pytest.mark.parametrize("own", [True, False])
def test_own_page_and_a_program_may_write(place, own):
    with serving(place) as served:
        headers = {"Origin": f"http://127.0.0.1:{served.port}"} if own else {}
        body = json.dumps({"remove_associated_artifacts": False})
        headers["Content_Type"] = "application/json"
        assert served.ask("/api/studies/1", "DELETE", body, **headers)[0] == 204
    assert names(place) == []


def test_nothing_is_logged(place, capfd):
    with serving(place) as served:
        served.ask("/nowhere")
        with socket.create_connection(("127.0.0.1", served.port), timeout=20) as raw:
            raw.sendall(b"GET / bad request line\r\n\r\n")
            assert b"400" in raw.recv(1000)
    assert capfd.readouterr() == ("", "")


def test_port_that_is_taken_is_refused_or_another_one_chosen(place):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BackendError, match=f"on port {port} of 127.0.0.1: Address already"):
            make_server(place, port)
    with (
        make_server(place, None) as first,
        make_server(place, None) as second,
    ):
        assert first.server_address != second.server_address


def test_no_studies_are_no_dashboard(tmp_path):
    with pytest.raises(StudyError, match="There are no studies"):
        make_server(Place(tmp_path), 0)


@pytest.mark.parametrize(("options", "opens"), [([], True), (["--no-browser"], False)])
def test_command_prints_the_address_and_opens_it_in_the_browser(monkeypatch, options, opens):
    def serve(place, port, ready, *, name):
        ready(f"http://127.0.0.1/{name}")

    opened = []
    monkeypatch.setattr(serve_module, "serve", serve)
    monkeypatch.setattr(browser, "open_address", opened.append)
    done = CliRunner().invoke(main, ["dashboard", "rates", *options])
    assert done.exit_code == 0, done.output
    assert done.stdout == "optuna-dashboard: http://127.0.0.1/rates  (Ctrl-C ends it)\n"
    assert opened == (["http://127.0.0.1/rates"] if opens else [])


def test_host_says_what_to_do_instead():
    done = CliRunner().invoke(main, ["dashboard", "rates", "--host", "0.0.0.0"])
    assert done.exit_code == 2
    assert "Instead of --host, use ssh -L 8080:127.0.0.1:8080 MACHINE" in done.output


def test_only_this_machine_reaches_it(place):
    with make_server(place, 0) as server:
        assert server.server_address[0] == "127.0.0.1"


def test_address_is_of_the_study_that_was_asked_for(place):
    with make_server(place, 0, name="rates") as server:
        parts = urlsplit(server.url)
    assert parts.path == "/dashboard/studies/1/note"
    assert parts.query == ""
    with pytest.raises(StudyError, match="There is no study 'absent'"):
        make_server(place, 0, name="absent")


@pytest.fixture
def noted(tmp_path):
    """A study with files, notes and plots; and one of another program."""
    place = Place(tmp_path / "noted")
    study = noted_study.make_study(place)
    noted_study.complete(study, place, 0.6)
    trial, _ = noted_study.begin(study, place)
    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    optuna.create_study(storage=study._storage, study_name="elsewhere").set_user_attr("a", {"b": 1})
    Refresher(open_storage(place), place).look()
    return place


def detail(served, study_id=1):
    return json.loads(served.ask(f"/api/studies/{study_id}")[2])


def test_page_is_told_notes_links_and_plots(noted):
    with serving(noted) as served:
        told = detail(served)
        other = detail(served, 2)
    assert "semantic similarity 0.6000" in told["trials"][0]["note"]["body"]
    assert told["objective_names"] == ["semantic similarity"]
    assert {each["id"] for each in told["plotly_graph_objects"]} == {
        "learning-curves",
        "score-against-loss",
        "memory-predicted-against-measured",
    }
    assert told["trials"][0]["values"] == [0.6]
    assert other["plotly_graph_objects"] == []


def test_study_of_new_seeds_is_not_in_the_list_and_is_there(noted):
    storage = open_storage(noted)
    optuna.create_study(storage=storage, study_name=confirm_name("rates"))
    with serving(noted) as served:
        status, headers, text = served.ask("/api/studies")
        other = detail(served, 3)
    names = [each["study_name"] for each in json.loads(text)["study_summaries"]]
    assert (status, names) == (200, ["rates", "elsewhere"])
    assert int(headers["Content-Length"]) == len(text.encode())
    assert other["name"] == "rates.confirm"


def file_paths(served):
    trial = detail(served)["trials"][0]
    return {
        each["filename"]: f"/artifacts/1/{trial['trial_id']}/{each['artifact_id']}"
        for each in trial["artifacts"]
    }


def test_file_is_served_to_the_dashboards_own_pages_alone(noted):
    with serving(noted) as served:
        paths = file_paths(served)
        status, headers, text = served.ask(paths["translations.jsonl"])
        evil = served.ask(paths["translations.jsonl"], Host="evil.example")[0]
    assert (status, evil) == (200, 403)
    assert json.loads(text.splitlines()[0])["output"] == "This is my milk."
    assert "Access-Control-Allow-Origin" not in headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"].startswith(
        "sandbox allow-scripts allow-downloads; default-src 'none'"
    )


def test_file_on_another_machine_is_not_found_and_says_where(noted, capfd):
    with serving(noted) as served:
        path = file_paths(served)["translations.jsonl"]
        (noted.trial_dir("rates", 0) / "samples.jsonl").unlink()
        status, _, text = served.ask(path)
    assert (status, text) == (
        404,
        "This file is not on this machine: look on the one that ran the trial.\n",
    )
    assert capfd.readouterr().err.count("Traceback") == 0


def test_upload_is_served_and_goes_with_its_study_while_the_folder_stays(noted):
    sent = "data:text/plain;base64," + base64.b64encode(b"a chart").decode()
    body = json.dumps({"file": sent, "filename": "chart.html"})
    with serving(noted) as served:
        status, _, text = served.ask(
            "/api/artifacts/1", "POST", body, Content_Type="application/json"
        )
        assert status == 201, text
        upload = json.loads(text)["artifact_id"]
        assert served.ask(f"/artifacts/1/{upload}")[2] == "a chart"
        body = json.dumps({"remove_associated_artifacts": True})
        done = served.ask("/api/studies/1", "DELETE", body, Content_Type="application/json")
    assert done[0] == 204, done
    assert list(noted.studies_dir.glob(".artifacts/*")) == []
    assert (noted.trial_dir("rates", 0) / "samples.jsonl").is_file()
    assert names(noted) == ["elsewhere"]


def test_study_is_not_renamed_as_its_folder_has_its_name(noted):
    with serving(noted) as served:
        body = json.dumps({"study_name": "other"})
        status, _, text = served.ask(
            "/api/studies/1/rename", "POST", body, Content_Type="application/json"
        )
    assert status == 400
    assert json.loads(text)["reason"] == "A study cannot be renamed: its folder has its name."
    assert sorted(names(noted)) == ["elsewhere", "rates"]


def test_serving_brings_notes_up_to_date_and_ends_with_ctrl_c(tmp_path):
    place = Place(tmp_path / "studies")
    study = noted_study.make_study(place)
    noted_study.complete(study, place, 0.6)

    def ready(address):
        deadline = time.monotonic() + 60
        while not get_note(study):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        raise KeyboardInterrupt

    serve_module.serve(place, 0, ready, name="rates")
    assert "Stopped after 1 of 3 trials" in get_note(study)
