import http.client
import io
import json
import socket
import threading
from contextlib import contextmanager
from urllib.parse import urlsplit

import optuna
import pytest
from click.testing import CliRunner
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial

from hawsweep import dashboard
from hawsweep.cli import main
from hawsweep.dashboard import Gate, choose_token, is_loopback, make_server
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
    def serve(place, host, port, token, ready):
        ready(f"http://{host}/?{token}")

    monkeypatch.setattr(dashboard, "serve", serve)
    monkeypatch.delenv("HAWSWEEP_DASHBOARD_TOKEN", raising=False)
    done = CliRunner().invoke(main, ["dashboard", *options])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("optuna-dashboard: http://")
    assert done.stdout.endswith("/?None  (Ctrl-C ends it)\n") is not has_token
    assert ("anybody on the network who reaches 0.0.0.0" in done.stderr) is warns
