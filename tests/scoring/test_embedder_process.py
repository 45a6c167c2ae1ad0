"""The embedder's process and its clients, mostly with letters counted in place of a model."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
from fake_embedder import LETTERS_DIR, Letters
from harness import children_of, kill, wait_until

from hawsweep.errors import ModelError, ScoringError
from hawsweep.machine.children import child_command
from hawsweep.models.load import load_embedder
from hawsweep.models.resolve import resolve_embedder
from hawsweep.scoring import embedder_process
from hawsweep.scoring.embedder_process import EmbedderClient, EmbedderProcess
from hawsweep.scoring.embedding import Embedder

TEXTS = ["the sea is calm", "ʻo ke kai", "the sea is calm and wide", ""]
REAL = child_command("-m", "hawsweep.scoring.embedder_process")


@pytest.fixture
def process(tmp_path):
    made = EmbedderProcess(LETTERS_DIR, log=tmp_path / "embedder.log")
    yield made
    made.close()


def client_of(process, waiting=lambda: None):
    return EmbedderClient(**process.contact, need=process.ensure, waiting=waiting)


def pid_of(process):
    return process._process.pid


def test_vectors_are_those_of_the_model_to_the_digit(monkeypatch):
    monkeypatch.setattr(embedder_process, "_COMMAND", REAL)
    path = resolve_embedder("all-MiniLM-L6-v2")
    texts = [f"{text} {number}" for number in range(20) for text in TEXTS]
    vectors = Embedder(path).embed(texts)
    here = load_embedder(path).encode(texts, normalize_embeddings=True, batch_size=32)
    assert vectors.dtype == np.float32
    assert (vectors == here).all()


def test_texts_longer_than_the_model_reads_are_told():
    embedder = Embedder(resolve_embedder("all-MiniLM-L6-v2"))
    fitting, longer = "fish " * 254, "fish " * 255  # with the first and the last token 256, 257
    assert embedder.unread([fitting, "fish"]) is None
    assert embedder.unread([longer, fitting]) == (
        "the embedder reads 256 tokens of a text, and 1 of 2 references are longer: what an answer "
        "says after that does not count"
    )
    assert Embedder(LETTERS_DIR).unread([longer]) is None  # its files do not tell


def embedders_here():
    return {each.pid for each in children_of(psutil.Process(), "fake_embedder.py")}


def test_clients_share_one_process(process):
    before = embedders_here()  # of an embedder that another test has left to the collector
    one, other = client_of(process), client_of(process)
    found = {}
    asking = [
        threading.Thread(target=lambda each=each: found.update({each: each(TEXTS)}))
        for each in (one, other)
    ]
    for each in asking:
        each.start()
    for each in asking:
        each.join()
    assert (found[one] == Letters().encode(TEXTS)).all()
    assert (found[other] == found[one]).all()
    assert embedders_here() - before == {pid_of(process)}


def test_client_asks_again_where_the_process_was_killed(process):
    client = client_of(process)
    before = client(TEXTS)
    first = pid_of(process)
    kill(first, signal.SIGKILL)
    assert (client(TEXTS) == before).all()
    assert pid_of(process) != first


def test_client_asks_again_where_the_folder_of_the_socket_was_removed(process):
    before = client_of(process)(TEXTS)
    shutil.rmtree(Path(process.contact["address"]).parent)
    assert (client_of(process)(TEXTS) == before).all()
    assert Path(process.contact["address"]).parent.stat().st_mode & 0o777 == 0o700


def test_client_asks_again_where_the_process_is_killed_at_work(process):
    killed = []

    def strike():
        if not killed:
            killed.append(pid_of(process))
            kill(killed[0], signal.SIGKILL)

    client = client_of(process, waiting=strike)
    assert (client(["slowly"]) == Letters().encode(["slowly"])).all()
    assert killed
    assert pid_of(process) != killed[0]


def test_signs_of_life_come_while_vectors_are_made(process):
    signs = []
    client = client_of(process, waiting=lambda: signs.append(1))
    client(TEXTS)
    signs.clear()
    client(["slowly"])
    assert signs


def test_what_is_raised_while_waiting_goes_through(process):
    patient = client_of(process)
    patient(TEXTS)

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client_of(process, waiting=stop)(["slowly"])
    assert (patient(TEXTS) == Letters().encode(TEXTS)).all()


def test_process_that_dies_again_and_again_is_given_up_with_its_last_words(process, monkeypatch):
    command = (sys.executable, "-c", "import sys; sys.exit('no such library')")
    monkeypatch.setattr(embedder_process, "_COMMAND", command)
    with pytest.raises(ScoringError) as caught:
        client_of(process)(TEXTS)
    assert "died 3 times in a row before it answered" in str(caught.value)
    assert "exit code 1" in str(caught.value)
    assert "embedder.log:\n  no such library" in str(caught.value)


def test_deaths_after_answers_are_not_in_a_row(process):
    client = client_of(process)
    for _ in range(4):
        client(TEXTS)
        kill(pid_of(process), signal.SIGKILL)
    assert (client(TEXTS) == Letters().encode(TEXTS)).all()


def test_faults_of_loading_are_told_in_the_same_words(tmp_path, monkeypatch):
    monkeypatch.setattr(embedder_process, "_COMMAND", REAL)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError) as direct:
        load_embedder(tmp_path)
    with pytest.raises(ModelError) as told:
        Embedder(tmp_path).embed(TEXTS)
    assert str(told.value) == str(direct.value)
    assert "holds weights as a pickle" in str(told.value)


def test_other_faults_are_of_scoring(process):
    with pytest.raises(ScoringError, match=r"The embedder fails: AttributeError\("):
        client_of(process)([1])
    assert "Traceback" in process._log.read_text()


def test_only_this_user_and_who_has_the_key_reaches_the_process(process):
    client = client_of(process)
    client(TEXTS)
    folder = Path(process.contact["address"]).parent
    assert folder.stat().st_mode & 0o777 == 0o700
    child = psutil.Process(pid_of(process))
    assert process.contact["key"] not in str(child.cmdline()) + str(child.environ())

    def need():
        raise ScoringError("not let in")

    with pytest.raises(ScoringError, match="not let in"):
        EmbedderClient(process.contact["address"], "00" * 32, need=need)(TEXTS)
    assert (client(TEXTS) == Letters().encode(TEXTS)).all()


def test_nothing_is_left_when_it_is_closed(process):
    client_of(process)(TEXTS)
    pid, folder = pid_of(process), Path(process.contact["address"]).parent
    process.close()
    assert not psutil.pid_exists(pid)
    assert not folder.exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, None])
def test_process_ends_with_who_started_it(tmp_path, number):
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from hawsweep.scoring import embedder_process\n"
        f"embedder_process._COMMAND = {embedder_process._COMMAND!r}\n"
        f"path = Path({str(LETTERS_DIR)!r})\n"
        "client = embedder_process.own_embedder(path, trust_remote_code=False)\n"
        "client(['a'])\n"
        "process = client._need.__self__\n"
        "print(process._process.pid, process.contact['address'], flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        pid, address = parent.stdout.readline().split()
        assert psutil.pid_exists(int(pid))
        if number is None:
            parent.stdin.close()
        else:
            kill(parent.pid, number)
    wait_until(lambda: not psutil.pid_exists(int(pid)))
    wait_until(lambda: not Path(address).parent.exists())


def test_long_temporary_folder_gives_a_short_address(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setattr(embedder_process.tempfile, "tempdir", str(long))
    made = EmbedderProcess(tmp_path)
    assert len(os.fsencode(made.contact["address"])) < 104
    assert list(long.iterdir()) == []
    made.close()
