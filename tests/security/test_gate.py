"""The dashboard's gate: the server's own routes, each path in twenty forms, asked by strangers."""

import http.client
import json
import re
import socket
from contextlib import suppress

import noted_study
import optuna
import pytest
from harness import wait_until
from noted_study import serving
from optuna_dashboard import wsgi

from hawsweep.study.place import Place
from hawsweep.study.storage import open_storage
from hawsweep.views.dashboard import serve as serve_module
from hawsweep.views.dashboard.gate import ALLOWED
from hawsweep.views.dashboard.refresh import Refresher

SECRET = "This is my milk."  # of a translation
# Routes of optuna-dashboard that hawsweep does not offer.
REFUSED = {
    ("POST", "/api/studies/<study_id:int>/rename"),
    ("GET", "/incompatible-rdb-schema"),
    ("POST", "/incompatible-rdb-schema"),
    ("POST", "/api/llm/generate_plotly_graph_query"),
    ("POST", "/api/llm/re_generate_plotly_graph_query"),
    ("POST", "/api/llm/trial_filter_query"),
}
CLOSED = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A study with files, notes and plots."""
    made = Place(tmp_path_factory.mktemp("security") / "studies")
    study = noted_study.make_study(made)
    noted_study.complete(study, made, 0.6)
    Refresher(open_storage(made), made).look()
    return made


@pytest.fixture(scope="module")
def served(place):
    with serving(place) as server:
        yield server


def is_answered(server):
    with suppress(http.client.HTTPException, ConnectionError):
        return ask(server, "/api/meta")[0] == 200
    return False


def ask(server, path, method="GET", body=None, headers=None):
    """Status, headers and body; the path goes out as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    try:
        connection.putrequest(method, path, skip_host="Host" in (headers or {}))
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(body or b"")))
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode(errors="replace")
    finally:
        connection.close()


def routes(place):
    """The server's own table: method and rule of each route."""
    app = wsgi(open_storage(place))
    return sorted({(route.method, route.rule) for route in app.routes})


def example(rule):
    """A path of a rule."""
    filled = re.sub(r"<[a-z_]*:re:\(/\.\*\)\?>", "/studies/1", rule)
    filled = re.sub(r"<[a-z_]+:int>", "1", filled)
    filled = re.sub(r"<[a-z_]+:re:[^>]*>", "abc-1", filled)
    filled = re.sub(r"<filename:path>", "bundle.js", filled)
    return re.sub(r"<[a-z_]+>", "slice", filled)


def is_allowed(method, path):
    return any(method in methods and pattern.fullmatch(path) for methods, pattern in ALLOWED)


def test_each_route_of_the_server_is_allowed_or_refused_by_name(place):
    known = routes(place)
    assert len(known) > 20
    decided = {route for route in known if is_allowed(route[0], example(route[1]))}
    assert set(known) - decided == REFUSED


def test_nothing_is_allowed_that_the_server_does_not_have(place):
    patterns = {pattern for _, pattern in ALLOWED}
    examples = [example(rule) for _, rule in routes(place)]
    unused = [p.pattern for p in patterns if not any(p.fullmatch(each) for each in examples)]
    assert unused == []


def forms(path):
    """A path otherwise written: as a parser that decodes or matches otherwise would take it."""
    first, _, rest = path[1:].partition("/")
    last = path[-1]
    yield from (f"{path}%0a", f"{path}%0d", f"{path}%0d%0a", f"{path}%00", f"{path}%20")
    yield from (f"{path}%2f%0a", f"{path}%e2%80%a8", f"{path}%c2%a0", f"{path}%09", f"{path}%85")
    yield from (f"/{first}%2f..%2f{first}/{rest}%0a", f"/{first}//{rest}", f"//{path[1:]}")
    yield from (f"/./{path[1:]}", f"/x/..{path}", f"\\{path[1:]}", f"{path};a=b", f"{path}%3fa")
    yield f"{path[:-1]}%d9%a1" if last.isdigit() else f"{path[:-1]}%ef%bd%81"
    yield "/" + "".join(f"%{ord(letter):02x}" for letter in path[1:]) + "%0a"


def file_paths(server):
    told = json.loads(ask(server, "/api/studies/1")[2])
    trial = told["trials"][0]
    return [
        *(f"/artifacts/1/{each['artifact_id']}" for each in told["artifacts"]),
        *(f"/artifacts/1/{trial['trial_id']}/{a['artifact_id']}" for a in trial["artifacts"]),
    ]


def test_paths_in_other_forms_are_refused_or_answered_closed(place, served):
    n_asked = 0
    paths = [example(rule) for method, rule in routes(place) if method == "GET"]
    files = file_paths(served)
    assert files
    for path in [*paths, *files]:
        for form in forms(path):
            status, headers, text = ask(served, form)
            n_asked += 1
            assert not [name for name in headers if name.lower().startswith("access-control")], form
            assert headers["Content-Security-Policy"], form
            assert {name: headers[name] for name in CLOSED} == CLOSED, form
            if path in files and status == 200:
                assert headers["Content-Security-Policy"].startswith("sandbox"), form
            if path in files and "%" in form:
                assert status in (400, 404), form
                assert SECRET not in text, form
    assert n_asked >= 300


@pytest.mark.parametrize(
    "path",
    [
        "/api/studies/1/rename",
        "/api/studies/1/rename/",
        "/api/studies/1/rename%0a",
        "/api/studies/%d9%a1/rename",
        "/api/studies/1/%72ename",
        "/api/studies/1/rename%2f",
        "/api//studies/1/rename",
        "/api/studies/01/rename",
        "/api/studies/+1/rename",
        "/api/studies/-1/rename",
        "/api/studies/1_0/rename",
        "/api/studies/1/./rename",
        "/api/studies/1/rename?x=1",
        "/api/studies/1/rename;x",
    ],
)
def test_study_cannot_be_renamed_by_any_path(place, served, path):
    body = json.dumps({"study_name": "other"}).encode()
    status, _, _ = ask(served, path, "POST", body, {"Content-Type": "application/json"})
    assert status in (400, 404, 405)
    assert optuna.get_all_study_names(open_storage(place)) == ["rates"]


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "PATCH", "CONNECT", "PUT", "get", "DEBUG"])
def test_method_that_is_not_on_the_list_is_refused(served, method):
    assert ask(served, "/api/studies", method)[0] in (400, 405, 501)


HOSTS = [
    *("evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "evil.example:8080"),
    *("localhost@evil.example", "127.0.0.1@evil.example", "evil.example#localhost", "localhost."),
    *("127.1", "0.0.0.0", "0177.0.0.1", "2130706433", "[::]", "[::ffff:127.0.0.1]", "localhost:x"),
    *("localhost:123456", "localhost:80:80", "localhost evil", "127.0.0.1%00", ""),
]


@pytest.mark.parametrize("host", HOSTS)
def test_request_for_another_name_is_refused(served, host):
    status, _, text = ask(served, "/api/studies", headers={"Host": host})
    assert status in (400, 403)
    assert "rates" not in text


ORIGINS = [
    *("http://evil.example", "null", "", "http://127.0.0.1", "http://127.0.0.1:1", "http://[::1]"),
    *("https://127.0.0.1:{port}", "http://127.0.0.1:{port}/", "http://localhost:{port}"),
    *("http://127.0.0.1:{port}.evil.example", "http://evil.example#127.0.0.1:{port}"),
    "http://u@127.0.0.1:{port}",
    *("file://", "chrome-extension://abc", "HTTP://EVIL.EXAMPLE", "http://127.0.0.1:{port}0"),
]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("origin", ORIGINS)
def test_another_origin_may_neither_read_nor_write(place, served, origin, method):
    given = origin.format(port=served.server_port)
    status, _, text = ask(served, "/api/studies/1", method, headers={"Origin": given})
    assert status == 403
    assert "rates" not in text
    assert optuna.get_all_study_names(open_storage(place)) == ["rates"]


@pytest.mark.parametrize("site", ["cross-site", "same-site", "CROSS-SITE", "", "x"])
@pytest.mark.parametrize(
    ("path", "mode", "destination", "status"),
    [
        ("/dashboard", "navigate", "document", 200),
        ("/dashboard", "navigate", "iframe", 403),
        ("/dashboard", "no-cors", "script", 403),
        ("/api/studies", "navigate", "document", 403),
        ("/api/studies", "cors", "empty", 403),
        ("/csv/1", "no-cors", "script", 403),
        ("/static/bundle.js", "no-cors", "script", 403),
        ("/favicon.ico", "no-cors", "image", 403),
    ],
)
def test_what_another_page_asks_for_is_refused_but_a_link(
    served, site, path, mode, destination, status
):
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": destination}
    assert ask(served, path, headers=headers)[0] == status


@pytest.mark.parametrize(
    ("filename", "shown"),
    [
        ("x.png", "image/png"),
        ("x.txt", "text/plain"),
        ("x.csv", "text/csv"),
        *((f"x.{end}", None) for end in ("html", "htm", "HTML", "xhtml", "svg", "js", "mjs")),
        *((f"x.{end}", None) for end in ("xml", "xsl", "pdf", "swf", "mht", "hta", "wasm", "a")),
        ("x", None),
    ],
)
def test_upload_is_never_a_page_or_a_program(tmp_path, filename, shown):
    made = Place(tmp_path / "studies")
    noted_study.make_study(made)
    sent = "data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg=="
    body = json.dumps({"file": sent, "filename": filename}).encode()
    with serving(made) as server:
        given = {"Content-Type": "application/json"}
        status, _, text = ask(server, "/api/artifacts/1", "POST", body, given)
        assert status == 201, text
        upload = json.loads(text)["artifact_id"]
        status, headers, _ = ask(server, f"/artifacts/1/{upload}")
    assert status == 200
    assert headers["Content-Security-Policy"] == (
        "sandbox; default-src 'none'; frame-ancestors 'self'"
    )
    if shown is None:
        assert headers.get_all("Content-Type") == ["application/octet-stream"]
        assert headers["Content-Disposition"] == "attachment"
    else:
        assert headers.get_all("Content-Type") == [shown]


def test_request_that_takes_too_long_is_ended_and_leaves_room(place, monkeypatch):
    monkeypatch.setattr(serve_module, "_LIMIT_S", 2.0)
    monkeypatch.setattr(serve_module, "_MOST_REQUESTS", 2)
    with serving(place) as server:
        slow = [socket.create_connection(("127.0.0.1", server.server_port)) for _ in range(4)]
        for each in slow:
            each.settimeout(20)
            each.sendall(b"GET / HTTP/1.1\r\n")
        assert [each.recv(100) for each in slow] == [b""] * 4
        wait_until(lambda: is_answered(server))  # the sockets end before their places are free
        for each in slow:
            each.close()


def test_request_for_which_no_thread_starts_leaves_room(place, monkeypatch):
    monkeypatch.setattr(serve_module, "_MOST_REQUESTS", 1)
    refused = []

    def start(thread):
        refused.append(thread)
        raise RuntimeError("can't start new thread")

    with serving(place) as server:
        with monkeypatch.context() as patched:
            patched.setattr("socketserver.threading.Thread.start", start)
            with pytest.raises((http.client.HTTPException, OSError)):
                ask(server, "/api/meta")
        assert len(refused) == 1
        assert ask(server, "/api/meta")[0] == 200
