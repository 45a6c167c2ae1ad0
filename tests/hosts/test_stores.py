"""The stores in which files travel: S3 as moto serves it, the starter's over HTTP, and a folder."""

import http.client
import io
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import optuna
import pytest
from optuna.artifacts.exceptions import ArtifactNotFound

from hawsweep.errors import StudyError, TravelError
from hawsweep.running.artifact_server import serving_artifacts
from hawsweep.study import artifact_clients, artifact_stores, travel
from hawsweep.study.artifact_stores import open_store
from hawsweep.study.attributes import ARTIFACTS
from hawsweep.study.place import Place

# boto3's clients leave their connections to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
CONTENT = os.urandom(3 << 20)


@pytest.fixture
def served(tmp_path, monkeypatch):
    with serving_artifacts(tmp_path / "store", most_bytes=4 << 20) as served:
        monkeypatch.setenv(artifact_stores.TOKEN_VARIABLE, served.token)
        yield served


def holds(store):
    """What every store does."""
    store.write("a.tar", io.BytesIO(CONTENT))
    with store.open_reader("a.tar") as file:
        assert b"".join(iter(lambda: file.read(1 << 20), b"")) == CONTENT
    store.write("a.tar", io.BytesIO(b"other"))
    with store.open_reader("a.tar") as file:
        assert file.read() == b"other"
    store.remove("a.tar")
    with pytest.raises(ArtifactNotFound) as fault:
        store.open_reader("a.tar")
    assert artifact_stores.is_missing(fault.value)


def test_a_folder_holds_files(tmp_path):
    holds(open_store(str(tmp_path), tmp_path / "s"))
    assert list(tmp_path.iterdir()) == []


def test_the_folder_beside_the_study_is_made(tmp_path):
    holds(open_store(artifact_stores.BESIDE, tmp_path / "s"))
    assert (tmp_path / "s" / "artifacts").is_dir()


def test_a_bucket_holds_files_below_its_prefix(bucket, tmp_path):
    import boto3

    store = open_store(bucket, tmp_path)
    store.write("b.tar", io.BytesIO(CONTENT))
    found = boto3.client("s3").list_objects_v2(Bucket="lab-files")["Contents"]
    assert [each["Key"] for each in found] == ["sweeps/one/b.tar"]
    store.remove("b.tar")
    holds(store)


def test_the_starters_store_holds_files(served, tmp_path):
    holds(open_store(served.url, tmp_path))
    assert list((tmp_path / "store").iterdir()) == []


def first(study):
    return study.get_trials()[0]


def study_with(url, place):
    study = optuna.create_study(study_name="s", direction="maximize")
    study.set_user_attr(ARTIFACTS, url)
    study.ask()
    folder = place.trial_dir("s", 0)
    folder.mkdir(parents=True)
    (folder / "samples.jsonl").write_text("{}")
    return study


def refusal(url, tmp_path, monkeypatch):
    """The sentence of a store that does not take a trial's files, which stay; at once."""
    place = Place(tmp_path / "studies")
    study = study_with(url, place)
    monkeypatch.setattr(travel.time, "sleep", lambda _: pytest.fail("it is waited for"))
    with pytest.raises(TravelError) as fault:
        travel.put(study, place, 0, waiting=lambda: True)
    text = str(fault.value)
    assert text.startswith(f"The files of trial 0 cannot be put into the store {url}: ")
    assert text.endswith(". They stay where they are.")
    assert (place.trial_dir("s", 0) / "samples.jsonl").read_text() == "{}"
    assert "the-secret-key" not in text
    assert "the-key-id" not in text
    return text


class _Forbids(BaseHTTPRequestHandler):
    def do_PUT(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_a_bucket_that_refuses_is_one_sentence(bucket, tmp_path, monkeypatch):
    server = HTTPServer(("127.0.0.1", 0), _Forbids)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    assert "AccessDenied" in refusal(bucket, tmp_path, monkeypatch)
    server.shutdown()
    server.server_close()


def test_a_bucket_that_is_missing_is_one_sentence(bucket, tmp_path, monkeypatch):
    assert "NoSuchBucket" in refusal("s3://other-lab/one", tmp_path, monkeypatch)


def test_a_missing_bucket_is_not_a_removed_archive(bucket, tmp_path):
    here, there = Place(tmp_path / "here"), Place(tmp_path / "there")
    study = study_with(bucket, there)
    travel.put(study, there, 0)
    study.set_user_attr(ARTIFACTS, "s3://other-lab/one")
    with pytest.raises(TravelError, match="cannot be fetched from the store s3://other-lab/one"):
        travel.fetch(study, here, first(study))


def test_no_credentials_are_one_sentence(bucket, tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    assert "credentials" in refusal(bucket, tmp_path, monkeypatch)


@pytest.mark.parametrize("token", ["", "wrong", "t\xf6ken"])
def test_without_its_token_the_starters_store_refuses(served, tmp_path, monkeypatch, token):
    monkeypatch.setenv(artifact_stores.TOKEN_VARIABLE, token)
    text = refusal(served.url, tmp_path, monkeypatch)
    assert "401 Unauthorized; HAWSWEEP_ARTIFACTS_TOKEN is not its token" in text
    assert served.token not in text
    store = open_store(served.url, tmp_path)
    for ask in (store.open_reader, store.remove):
        with pytest.raises(artifact_stores.Refused):
            ask("a.tar")
    with pytest.raises(artifact_stores.Refused):  # also where much is still to be sent
        store.write("a.tar", io.BytesIO(CONTENT))
    assert list((tmp_path / "store").iterdir()) == []


def test_a_token_is_in_no_text_of_the_served_store(served):
    assert served.token not in repr(served)


def asked(served, method, path, body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)
    connection.request(method, path, body, {"Authorization": f"Bearer {served.token}", **headers})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


def test_no_path_leads_out_of_the_starters_store(served, tmp_path):
    (tmp_path / "outside").write_text("mine")
    for path in (
        "/../outside",
        "/%2e%2e/outside",
        "//etc/passwd",
        "/",
        "/.hidden",
        "/a%2fb",
        "/~a",
    ):
        for method in ("GET", "PUT", "DELETE"):
            body = b"x" if method == "PUT" else None
            assert asked(served, method, path, body) == 400, (method, path)
    assert (tmp_path / "outside").read_text() == "mine"
    assert asked(served, "POST", "/a.tar", b"x") == 501


def test_an_artifact_of_any_size_is_refused(served, tmp_path):
    assert asked(served, "PUT", "/a.tar", bytes((4 << 20) + 1)) == 413
    assert asked(served, "PUT", "/a.tar", **{"Content-Length": "9" * 5000}) == 411
    assert asked(served, "PUT", "/a.tar", iter([b"x"]), **{"Transfer-Encoding": "chunked"}) == 411
    assert list((tmp_path / "store").iterdir()) == []


def test_half_an_upload_is_no_artifact(served, tmp_path):
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)
    connection.putrequest("PUT", "/a.tar")
    connection.putheader("Authorization", f"Bearer {served.token}")
    connection.putheader("Content-Length", "1000")
    connection.endheaders(b"half")
    connection.sock.shutdown(1)
    assert connection.getresponse().status == 400
    connection.close()
    assert list((tmp_path / "store").iterdir()) == []


def test_a_store_over_a_network_is_refused(tmp_path):
    for url in ("http://lab.example/", "http://127.0.0.1@lab.example/", "http://127.0.0.1:1/x"):
        with pytest.raises(StudyError, match=r"is at http://127\.0\.0\.1:PORT/"):
            open_store(url, tmp_path)


def test_other_urls_are_refused(tmp_path):
    for url in ("gs://bucket", "files", "s3://K:S@bucket", "s3://bucket/../x?y", "https://h/"):
        with pytest.raises(StudyError, match="must be s3://bucket/prefix or the absolute path"):
            open_store(url, tmp_path)


def test_a_link_that_is_down_is_waited_out(tmp_path, monkeypatch):
    here, there = Place(tmp_path / "here"), Place(tmp_path / "there")
    study = study_with("http://127.0.0.1:9/", there)  # nothing listens there
    with serving_artifacts(tmp_path / "store") as served:
        monkeypatch.setenv(artifact_stores.TOKEN_VARIABLE, served.token)

        faults = iter([True])
        ask = artifact_clients.HttpStore._ask

        def asking(store, *args):
            if next(faults, False):
                store._port = 9
            else:
                store._port = served.port
            return ask(store, *args)

        monkeypatch.setattr(artifact_clients.HttpStore, "_ask", asking)
        travel.put(study, there, 0, waiting=lambda: True)
        assert travel.fetch(study, here, first(study))


def test_a_link_that_stays_down_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setenv("HAWSWEEP_OUTAGE_S", "1.5")
    place = Place(tmp_path / "studies")
    study = study_with("http://127.0.0.1:9/", place)
    with pytest.raises(TravelError, match=r"Connection refused\. They stay where they are"):
        travel.put(study, place, 0, waiting=lambda: True)
