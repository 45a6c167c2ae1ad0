import base64
import http.client
import io
import json
import socket
import threading
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
from hawsweep.dashboard import browser
from hawsweep.dashboard import serving as dashboard
from hawsweep.dashboard.gate import Gate
from hawsweep.dashboard.refreshing import Refresher
from hawsweep.dashboard.serving import choose_token, is_loopback, make_server
from hawsweep.errors import BackendError, StudyError
from hawsweep.study import Place, open_storage

TOKEN = "a token; of 'people'"


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
        self.cookie = f"hawsweep-{self.port}"

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
def serving(place, host="127.0.0.1", token=None):
    with make_server(place, host, 0, token) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield Served(server)
        finally:
            server.shutdown()
            thread.join()


def names(place):
    return optuna.get_all_study_names(open_storage(place))


def test_loopback_serves_the_studies_without_a_token(place):
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
    assert "This is served as 127.0.0.1, ::1, localhost alone" in text
    assert "rates" not in text


@pytest.mark.parametrize("host", ["localhost:8080", "LOCALHOST", "127.0.0.1:1", "[::1]:8080"])
def test_names_of_loopback_are_served(place, host):
    with serving(place) as served:
        assert served.ask("/api/studies", Host=host)[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", ""])
def test_another_page_may_not_write(place, origin):
    with serving(place) as served:
        status, _, text = served.ask("/api/studies/1", "DELETE", Origin=origin)
    assert (status, text) == (403, "Another page may not write here.\n")
    assert names(place) == ["rates"]


@pytest.mark.parametrize("own", [True, False])
def test_own_page_and_a_program_may_write(place, own):
    with serving(place) as served:
        headers = {"Origin": f"http://127.0.0.1:{served.port}"} if own else {}
        body = json.dumps({"remove_associated_artifacts": False})
        headers["Content_Type"] = "application/json"
        assert served.ask("/api/studies/1", "DELETE", body, **headers)[0] == 204
    assert names(place) == []


def test_token_in_the_address_becomes_a_cookie(place):
    with serving(place, token=TOKEN) as served:
        parts = urlsplit(served.url)
        status, headers, _ = served.ask(f"{parts.path}?{parts.query}&after=1%202")
        assert status == 303
        assert headers["Location"] == "/?after=1+2"
        cookie, *attributes = headers["Set-Cookie"].split("; ")
        assert attributes == ["Path=/", "HttpOnly", "SameSite=Strict"]
        assert cookie.startswith(f"{served.cookie}=")
        assert "token" not in cookie
        assert served.ask("/api/studies", Cookie=f"other=1; {cookie}; more")[0] == 200
        assert served.ask("/api/studies")[0] == 401


def test_token_leads_to_no_other_host(place):
    with serving(place, token=TOKEN) as served:
        query = urlsplit(served.url).query
        for path in ("//evil.example/x", "/%0d%0aX-Evil:%201", "/\\evil.example"):
            status, headers, _ = served.ask(f"{path}?{query}")
            assert status == 303
            assert headers["Location"].startswith("/")
            assert urlsplit(headers["Location"]).netloc == ""
            assert "X-Evil" not in headers


def test_program_brings_the_token_as_bearer(place):
    with serving(place, token=TOKEN) as served:
        assert served.ask("/api/studies", Authorization=f"Bearer {TOKEN}")[0] == 200


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/", {}),
        ("/static/bundle.js", {}),
        ("/api/studies?token=", {}),
        ("/api/studies?token=wrong", {}),
        ("/api/studies", {"Authorization": "Bearer wrong"}),
        ("/api/studies", {"Authorization": "Bearer"}),
        ("/api/studies", {"Authorization": f"Basic {TOKEN}"}),
        ("/api/studies", {"Authorization": "Bearer \xf6"}),
        ("/api/studies", {"Cookie": "{cookie}="}),
        ("/api/studies", {"Cookie": "{cookie}=\xf6; ; ="}),
        ("/api/studies", {"Cookie": f"{{cookie}}={TOKEN}"}),
    ],
)
def test_without_the_token_nothing_is_shown(place, path, headers):
    with serving(place, token=TOKEN) as served:
        asked = {name: value.replace("{cookie}", served.cookie) for name, value in headers.items()}
        status, answered, text = served.ask(path, **asked)
        deleted = served.ask("/api/studies/1", "DELETE")[0]
    assert (status, deleted) == (401, 401)
    assert text == "Open the address that `hawsweep dashboard` printed, with its token.\n"
    assert "Set-Cookie" not in answered
    assert names(place) == ["rates"]


def test_nothing_is_logged(place, capfd):
    with serving(place, token=TOKEN) as served:
        served.ask(f"/?{urlsplit(served.url).query}")
        served.ask("/nowhere?token=wrong")
        with socket.create_connection(("127.0.0.1", served.port), timeout=20) as raw:
            raw.sendall(f"GET /?token={TOKEN} bad request line\r\n\r\n".encode())
            assert b"400" in raw.recv(1000)
    assert capfd.readouterr() == ("", "")


def answer_of(gate, host):
    environ = {"REQUEST_METHOD": "GET", "HTTP_HOST": host}
    said = []
    gate(environ, lambda status, headers: said.append(status))
    return said


def test_every_address_of_the_machine_is_served_as_such(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "Workstation")
    monkeypatch.setattr(socket, "getfqdn", lambda: "workstation.lan")
    shown, hosts, everywhere = dashboard._known_as("0.0.0.0", "0.0.0.0")
    assert shown == "Workstation"
    gate = Gate(lambda environ, start: start("200 OK", []), hosts=hosts, any_address=everywhere)
    for host in ("workstation", "workstation.local", "workstation.lan:80", "192.0.2.1:80"):
        assert answer_of(gate, host) == ["200 OK"]
    assert answer_of(gate, "evil.example") == ["403 Forbidden"]


def test_one_address_of_the_machine_is_served_as_it_was_given_and_as_it_is():
    shown, hosts, everywhere = dashboard._known_as("Workstation", "192.0.2.1")
    assert (shown, everywhere) == ("Workstation", False)
    assert hosts == {"localhost", "127.0.0.1", "::1", "workstation", "192.0.2.1"}


def test_gate_is_closed_before_the_application_is_called():
    def app(environ, start_response):
        raise AssertionError("let through")

    environ = {"REQUEST_METHOD": "POST", "HTTP_HOST": "localhost", "wsgi.input": io.BytesIO()}
    said = []
    gate = Gate(app, hosts={"localhost"}, token=TOKEN)
    gate(environ, lambda status, headers: said.append(status))
    assert said == ["401 Unauthorized"]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("192.168.1.2", False),
        ("workstation", False),
    ],
)
def test_token_is_made_where_others_reach_the_address(monkeypatch, host, expected):
    monkeypatch.delenv("HAWSWEEP_DASHBOARD_TOKEN", raising=False)
    assert is_loopback(host) is expected
    tokens = {choose_token(host), choose_token(host)}
    assert tokens == {None} if expected else len(tokens) == 2
    monkeypatch.setenv("HAWSWEEP_DASHBOARD_TOKEN", TOKEN)
    assert choose_token(host) == TOKEN


def test_token_that_can_be_guessed_is_refused_and_not_shown(monkeypatch):
    monkeypatch.setenv("HAWSWEEP_DASHBOARD_TOKEN", "s3cret")
    with pytest.raises(BackendError, match="has 6 characters, must have 16 or more") as caught:
        choose_token("0.0.0.0")
    assert "s3cret" not in str(caught.value)


def test_port_that_is_taken_is_refused_or_another_one_chosen(place):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BackendError, match=f"on port {port} of 127.0.0.1: Address already"):
            make_server(place, "127.0.0.1", port, None)
    with (
        make_server(place, "127.0.0.1", None, None) as first,
        make_server(place, "127.0.0.1", None, None) as second,
    ):
        assert first.server_address != second.server_address


@pytest.mark.parametrize("host", ["192.0.2.1", "x" * 70])
def test_address_of_another_machine_is_refused(place, host):
    with pytest.raises(BackendError, match="an address of this machine with --host"):
        make_server(place, host, 0, None)


def test_no_studies_are_no_dashboard(tmp_path):
    with pytest.raises(StudyError, match="There are no studies"):
        make_server(Place(tmp_path), "127.0.0.1", 0, None)


@pytest.mark.parametrize(
    ("options", "has_token", "warns"),
    [
        ([], False, False),
        (["--no-token"], False, False),
        (["--host", "0.0.0.0"], True, False),
        (["--host", "0.0.0.0", "--no-token"], False, True),
    ],
)
def test_command_asks_for_a_token_where_others_reach_it(monkeypatch, options, has_token, warns):
    def serve(place, host, port, token, ready, *, name):
        ready(f"http://{host}/?{token}")

    opened = []
    monkeypatch.setattr(dashboard, "serve", serve)
    monkeypatch.setattr(browser, "open_address", opened.append)
    monkeypatch.delenv("HAWSWEEP_DASHBOARD_TOKEN", raising=False)
    done = CliRunner().invoke(main, ["dashboard", *options])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("optuna-dashboard: http://")
    assert done.stdout.endswith("/?None  (Ctrl-C ends it)\n") is not has_token
    assert ("anybody on the network who reaches 0.0.0.0" in done.stderr) is warns
    assert opened == ([] if "0.0.0.0" in options else ["http://127.0.0.1/?None"])


@pytest.mark.parametrize(
    ("options", "token", "opens"),
    [([], None, True), (["--no-browser"], None, False), ([], TOKEN, False)],
)
def test_command_opens_the_study_in_the_browser_but_shows_no_token_there(
    monkeypatch, options, token, opens
):
    def serve(place, host, port, token, ready, *, name):
        ready(f"http://{host}/{name}")

    opened = []
    monkeypatch.setattr(dashboard, "serve", serve)
    monkeypatch.setattr(browser, "open_address", opened.append)
    monkeypatch.delenv("HAWSWEEP_DASHBOARD_TOKEN", raising=False)
    if token:
        monkeypatch.setenv("HAWSWEEP_DASHBOARD_TOKEN", token)
    done = CliRunner().invoke(main, ["dashboard", "rates", *options])
    assert done.exit_code == 0, done.output
    assert opened == (["http://127.0.0.1/rates"] if opens else [])


def test_address_is_of_the_study_that_was_asked_for(place):
    with make_server(place, "127.0.0.1", 0, TOKEN, name="rates") as server:
        parts = urlsplit(server.url)
    assert parts.path == "/dashboard/studies/1"
    assert parts.query.startswith("token=")
    with pytest.raises(StudyError, match="There is no study 'absent'"):
        make_server(place, "127.0.0.1", 0, None, name="absent")


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
        "sandbox allow-scripts; default-src 'none'"
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

    dashboard.serve(place, "127.0.0.1", 0, None, ready, name="rates")
    assert "Stopped after 1 of 3 trials" in get_note(study)
