"""The dashboard and a page of someone else, open in one browser."""

import base64
import http.server
import json
import threading

import noted_study
import optuna
import pytest
from noted_study import serving
from playwright.sync_api import Error

from hawsweep.study.place import Place
from hawsweep.study.storage import open_storage

# What a page does to read and to write: each gives what it got, or why it got nothing.
ATTEMPTS = """
async ({at, own}) => {
  const post = (path, mode, type) => fetch(at + path, {
    method: "POST", mode, headers: {"Content-Type": type},
    body: JSON.stringify({study_name: "taken", directions: ["maximize"], file: "data:,a"}),
  }).then(answer => answer.text());
  const element = (tag, attributes) => new Promise((resolve, reject) => {
    const made = document.createElement(tag);
    made.onload = () => resolve("loaded");
    made.onerror = () => reject(new Error("error event"));
    Object.assign(made, attributes);
    document.body.append(made);
  });
  const read = path => fetch(at + path).then(answer => answer.text());
  const attempts = {
    study: () => read("/api/studies/1"),
    studies: () => read("/api/studies"),
    line_break: () => read("/artifacts/1/1/x%0a"),
    other_digits: () => read("/api/studies/%d9%a1"),
    upload: () => read(own),
    upload_line_break: () => read(own + "%0a"),
    csv_as_script: () => element("script", {src: at + "/csv/1"}),
    bundle_as_script: () => element("script", {src: at + "/static/bundle.js"}),
    icon: () => element("img", {src: at + "/favicon.ico"}),
    style: () => element("link", {rel: "stylesheet", href: at + "/csv/1"}),
    create: () => post("/api/studies", "cors", "application/json"),
    rename: () => post("/api/studies/1/rename", "cors", "application/json"),
    rename_line_break: () => post("/api/studies/1/rename%0a", "cors", "application/json"),
    put: () => fetch(at + "/api/studies/1/note", {method: "PUT", body: "{}"}),
    delete: () => fetch(at + "/api/studies/1", {method: "DELETE"}),
  };
  const blind = {
    create: () => post("/api/studies", "no-cors", "text/plain"),
    rename: () => post("/api/studies/1/rename", "no-cors", "text/plain"),
    rename_line_break: () => post("/api/studies/1/rename%0a", "no-cors", "text/plain"),
    upload: () => post("/api/artifacts/1", "no-cors", "text/plain"),
  };
  const found = {};
  for (const [name, attempt] of Object.entries(attempts)) {
    try { found[name] = String(await attempt()) } catch (error) { found[name] = null }
  }
  for (const [name, attempt] of Object.entries(blind)) {
    await attempt().catch(() => null);
  }
  navigator.sendBeacon(at + "/api/studies", JSON.stringify({study_name: "taken"}));
  return found;
}
"""
FORM = """
({at}) => {
  const form = document.createElement("form");
  Object.assign(form, {action: at + "/api/studies", method: "post", enctype: "text/plain"});
  const field = document.createElement("input");
  field.name = '{"study_name": "taken", "directions": ["maximize"], "x": "';
  field.value = '"}';
  form.append(field);
  document.body.append(form);
  form.submit();
}
"""
FRAME = """
({at}) => new Promise(resolve => {
  const frame = document.createElement("iframe");
  frame.onload = resolve;
  frame.src = at + "/dashboard";
  document.body.append(frame);
})
"""
SCRIPT = "document.title = 'it ran'; fetch('/api/studies').then(() => { document.title = 'read' })"


class _Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>foreign</title><body>")

    def log_message(self, *_):
        """Nothing."""


@pytest.fixture(scope="module")
def foreign_port():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def place(tmp_path):
    made = Place(tmp_path / "studies")
    noted_study.complete(noted_study.make_study(made), made, 0.6)
    return made


@pytest.fixture
def opened(browser):
    context = browser.new_context()
    yield context.new_page()
    context.close()


def upload(page, address, filename, content):
    """A file uploaded by a program; gives its path."""
    encoded = base64.b64encode(content.encode()).decode()
    sent = page.request.post(
        f"{address}/api/artifacts/1",
        data={"file": f"data:text/html;base64,{encoded}", "filename": filename},
    )
    assert sent.status == 201
    return f"/artifacts/1/{sent.json()['artifact_id']}"


def told(page, address):
    """What the dashboard tells of the study, and pages might change."""
    study = json.loads(page.request.get(f"{address}/api/studies/1").text())
    return {key: study[key] for key in ("name", "note", "artifacts", "trials", "user_attrs")}


# A site has no port: 127.0.0.1 is another origin of the same site, localhost another site.
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_foreign_page_reads_nothing_and_writes_nothing(opened, place, foreign_port, host):
    with serving(place) as server:
        at = server.url.rstrip("/")
        given = {"at": at, "own": upload(opened, at, "x.txt", "a secret")}
        before = told(opened, at)
        opened.goto(f"http://{host}:{foreign_port}/")
        found = opened.evaluate(ATTEMPTS, given)
        assert len(found) == 15
        assert {name: text for name, text in found.items() if text is not None} == {}
        opened.evaluate(FRAME, given)
        assert not [frame for frame in opened.frames if frame.url.startswith(at)]
        with opened.expect_navigation():
            opened.evaluate(FORM, given)
        assert "Another page may neither read nor write here." in opened.content()
        assert told(opened, at) == before
        assert optuna.get_all_study_names(open_storage(place)) == ["rates"]


def test_own_page_does_all_that_a_foreign_page_may_not(opened, place):
    with serving(place) as server:
        at = server.url.rstrip("/")
        given = {"at": at, "own": upload(opened, at, "x.txt", "a secret")}
        opened.goto(f"{at}/dashboard")
        found = opened.evaluate(ATTEMPTS, given)
        assert "rates" in found["studies"]
        assert found["upload"] == "a secret"
        assert found["bundle_as_script"] == "loaded"
        assert optuna.get_all_study_names(open_storage(place)) == ["taken"]  # the other is deleted


def test_link_from_a_foreign_page_opens_the_dashboard(opened, place, foreign_port):
    with serving(place) as server:
        at = server.url.rstrip("/")
        opened.goto(f"http://localhost:{foreign_port}/")
        with opened.expect_navigation():
            opened.evaluate("at => { location = at + '/dashboard/studies/1' }", at)
        opened.get_by_text("rates").first.wait_for(timeout=60_000)


@pytest.mark.parametrize("filename", ["page.html", "page.svg", "page.xhtml", "page.js", "page"])
def test_uploaded_page_is_saved_and_runs_nothing(opened, place, filename):
    with serving(place) as server:
        at = server.url.rstrip("/")
        path = upload(opened, at, filename, f"<title>shown</title><script>{SCRIPT}</script>")
        opened.goto(f"{at}/dashboard")
        before = opened.title()
        with opened.expect_download() as saved, pytest.raises(Error, match="Download is starting"):
            opened.goto(f"{at}{path}")
        assert saved.value.failure() is None
        assert opened.title() == before
