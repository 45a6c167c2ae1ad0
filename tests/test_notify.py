"""Telling who does not look: targets, what they get, and that they harm nothing."""

import json
import os
import socket
import stat
import sys
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil
import pytest
from click.testing import CliRunner
from tiny_sweep import tiny_sweep

from hawsweep import notify
from hawsweep.cli import main
from hawsweep.detaching import start_detached
from hawsweep.errors import SpecError, StudyError
from hawsweep.news import News, telling
from hawsweep.notify import Command, Desktop, Message, Notifier, Webhook, find_targets
from hawsweep.processes import supervisor_of
from hawsweep.spec import NEWS
from hawsweep.study import Place
from hawsweep.supervisor import Event
from hawsweep.sweepfile import check_sweep

SECRET = "T0psecret"
MESSAGE = Message("lr-rank", "best", 'trial 3 says <!channel> & "$(touch x)" `touch x`', 3, 0.5)
PATIENCE_S = 300


class Receiver:
    """A server that keeps what is posted to it; ``answers`` come one after another."""

    def __init__(self, *answers):
        receiver, self.got, self._answers = self, [], list(answers)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                receiver.got.append((self.path, dict(self.headers), body))
                code = receiver._answers.pop(0) if receiver._answers else 204
                self.send_response(code)
                if code == 302:
                    self.send_header("Location", f"{receiver.url}/elsewhere")
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.05,)).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def silent_server():
    """Takes connections and says nothing."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/{SECRET}"


@pytest.fixture(autouse=True)
def nobody_in_the_environment(monkeypatch):
    monkeypatch.delenv("HAWSWEEP_NOTIFY", raising=False)


@pytest.fixture
def no_pauses(monkeypatch):
    monkeypatch.setattr(notify, "_WEBHOOK_PAUSES_S", (0.0, 0.0, 0.0))


def wait_until(holds):
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def make_program(path, text):
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_targets_are_told_apart():
    given = [
        "https://h/x",
        "http://127.0.0.1:8/x?y=z",
        "desktop",
        "  say 'done' ",
        "curl https://h",
    ]
    assert find_targets(given) == [
        Webhook("https://h/x"),
        Webhook("http://127.0.0.1:8/x?y=z"),
        Desktop(),
        Command("say 'done'"),
        Command("curl https://h"),
    ]
    assert find_targets("desktop") == [Desktop()]
    assert find_targets() == find_targets([]) == []


def test_environment_names_targets_one_a_line_where_none_are_given(monkeypatch):
    monkeypatch.setenv("HAWSWEEP_NOTIFY", "\ndesktop\n say done\n\n")
    assert find_targets() == [Desktop(), Command("say done")]
    assert find_targets(["https://h/x"]) == [Webhook("https://h/x")]
    assert find_targets(()) == []


@pytest.mark.parametrize(
    "target",
    [
        "",
        " ",
        f"ftp://h/{SECRET}",
        f"file:///{SECRET}",
        f"https:///{SECRET}",
        f"https://h:70000/{SECRET}",
        f"https://h:{SECRET}/",
        f"https://h/{SECRET} x",
        f"https://[{SECRET}/",
        f"say {SECRET}\nsay more",
    ],
)
def test_what_is_no_target_is_refused_and_not_shown(target):
    with pytest.raises(SpecError) as caught:
        find_targets([target])
    assert str(caught.value) == (
        "One of those to notify is neither an http or https URL, nor `desktop`, nor a command of "
        "one line. Correct what --notify or HAWSWEEP_NOTIFY says."
    )
    assert SECRET not in repr(caught.value)


def test_secrets_of_targets_are_not_in_their_names():
    for target in find_targets([f"https://me:{SECRET}@h/{SECRET}", f"curl -H {SECRET}"]):
        assert SECRET not in repr(target) + target.label


def test_webhook_gets_json_that_chats_take():
    with Receiver() as receiver:
        assert Webhook(f"{receiver.url}/hook?a=b").deliver(MESSAGE) is None
    [(path, headers, body)] = receiver.got
    assert path == "/hook?a=b"
    assert headers["Content-Type"] == "application/json"
    assert json.loads(body) == {
        "study": "lr-rank",
        "event": "best",
        "trial": 3,
        "score": 0.5,
        "text": 'trial 3 says &lt;!channel&gt; &amp; "$(touch x)" `touch x`',
        "content": MESSAGE.text,
        "allowed_mentions": {"parse": []},
    }


def test_webhook_of_ntfy_gets_the_text(monkeypatch):
    with Receiver() as receiver:
        monkeypatch.setattr(notify, "_host", lambda _: "ntfy.example")
        assert Webhook(f"{receiver.url}/topic").deliver(MESSAGE) is None
    [(_, headers, body)] = receiver.got
    assert body == MESSAGE.text
    assert headers["Title"] == "hawsweep"
    assert headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("answers", "n_tries", "fault"),
    [
        ((503, 429, 200), 3, None),
        ((500, 502, 503), 3, "it answered 503"),
        ((404,), 1, "it answered 404"),
        ((302,), 1, "it answered 302"),
    ],
)
def test_webhook_is_tried_again_where_the_server_is_at_fault(no_pauses, answers, n_tries, fault):
    with Receiver(*answers) as receiver:
        assert Webhook(f"{receiver.url}/{SECRET}").deliver(MESSAGE) == fault
    assert [path for path, _, _ in receiver.got] == [f"/{SECRET}"] * n_tries


def test_webhook_that_does_not_answer_is_given_up(no_pauses, monkeypatch):
    monkeypatch.setattr(notify, "_WEBHOOK_TIMEOUT_S", 0.1)
    with silent_server() as url:
        assert Webhook(url).deliver(MESSAGE) == "no answer within 0.1 s"
    assert Webhook(url).deliver(MESSAGE) == "Connection refused"


@pytest.mark.parametrize("url", [f"https://xn--{SECRET}-.invalid/{SECRET}", "https://h/%zz"])
def test_faults_of_webhooks_show_no_address(no_pauses, monkeypatch, url):
    fault = OSError(f"cannot reach {url}")
    monkeypatch.setattr(notify._OPENER, "open", lambda *_, **__: (_ for _ in ()).throw(fault))
    assert Webhook(url).deliver(MESSAGE) == "OSError"


def test_command_has_the_message_in_its_environment_and_on_its_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = 'cat > input; printf "%s\\n" "$HAWSWEEP_STUDY" $HAWSWEEP_EVENT "$HAWSWEEP_TEXT" '
    line += "$HAWSWEEP_TRIAL $HAWSWEEP_SCORE > variables"
    assert Command(line).deliver(MESSAGE) is None
    said = (tmp_path / "variables").read_text().splitlines()
    assert said == ["lr-rank", "best", MESSAGE.text, "3", "0.5"]
    assert json.loads((tmp_path / "input").read_text()) == vars(MESSAGE)
    assert sorted(os.listdir()) == ["input", "variables"]  # nothing in the text was run


def test_command_that_fails_or_hangs_is_said_without_its_line(monkeypatch):
    assert Command(f"echo {SECRET} >&2; exit 7").deliver(MESSAGE) == "it ended with code 7"
    assert Command("true").deliver(MESSAGE) is None  # although it reads nothing
    monkeypatch.setattr(notify, "_COMMAND_TIMEOUT_S", 0.2)
    assert Command("sleep 60; true").deliver(MESSAGE) == "it did not end within 0.2 s"
    monkeypatch.setattr(notify, "_run", lambda command, *_: f"{command[0]}: No such file")
    assert Command("x").deliver(MESSAGE) == "/bin/sh: No such file"


@pytest.mark.parametrize(("system", "program"), [("darwin", "osascript"), ("linux", "notify-send")])
def test_desktop_gets_the_text_as_one_argument(tmp_path, monkeypatch, system, program):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    make_program(tmp_path / program, f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/arguments\n')
    assert Desktop().deliver(MESSAGE) is None
    said = (tmp_path / "arguments").read_text().splitlines()
    text = MESSAGE.text
    if system == "linux":
        text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert said[-2:] == ["hawsweep", text]
    assert not (tmp_path / "x").exists()


def test_desktop_without_its_program_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Desktop().deliver(MESSAGE) == "notify-send: No such file or directory"


def test_nobody_waits_for_a_target_and_its_fault_is_said_once():
    hold, told = threading.Event(), []

    class Slow:
        label = "the slow one"

        def deliver(self, message):
            hold.wait(PATIENCE_S)
            return "it is slow"

    class Quick:
        label = "the quick one"

        def deliver(self, message):
            told.append(message)

    notifier = Notifier([Slow(), Quick()])
    for _ in range(3):
        notifier.post(MESSAGE)
    wait_until(lambda: len(told) == 3)  # while the other has told nobody
    assert notifier.faults() == []
    hold.set()
    notifier.close()
    assert notifier.faults() == ["the slow one was not told: it is slow"]
    assert notifier.faults() == []


def test_the_end_does_not_wait_for_long(monkeypatch):
    monkeypatch.setattr(notify, "_LAST_WAIT_S", 0.1)
    with silent_server() as url:
        notifier = Notifier([Webhook(url)])
        notifier.post(MESSAGE)
        notifier.close()
        said = notifier.faults()
    assert said == ["the webhook at 127.0.0.1 was not waited for any longer"]


SWEEP = {
    "model": "some/model",
    "data": "phrasebook",
    "search": {"learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}},
    "trials": 3,
}


class Told:
    """A target that keeps what it is told."""

    label = "the test"

    def __init__(self, fault=None):
        self.messages, self._fault = [], fault

    def deliver(self, message):
        self.messages.append(message)
        return self._fault

    def as_said(self):
        return [(each.event, each.text, each.trial, each.score) for each in self.messages]


class Results:
    """What the end looks at of a study's results."""

    def __init__(self, best=None, sentences=(), fault=None):
        self.best_trial, self._sentences, self._fault = best, sentences, fault

    def verdict(self):
        if self._fault:
            raise self._fault
        return self if self._sentences else None

    @property
    def sentences(self):
        return self._sentences


class Best:
    number, value = 1, 0.25


def ended(number, state, score=None):
    return Event("trial_end", 0, {"number": number, "state": state, "score": score})


def began(*, is_new=True, finished=0, **best):
    about = {"name": "x", "is_new": is_new, "finished": finished, **best}
    return Event("study", values=about)


def test_news_are_start_each_new_best_and_end():
    told, events = Told(), []
    sweep = [
        began(),
        ended(0, "complete", 0.25),
        ended(1, "pruned"),
        ended(2, "complete", 0.25),
        ended(3, "infeasible"),
        ended(4, "fail"),
        ended(5, "complete", 0.5),
    ]
    with telling("rates", check_sweep(SWEEP, "a sweep"), [told], events.append) as news:
        for event in sweep:
            news(event)
        news.tell_end("finished", Results(Best(), ("trial 1 is worth shipping.", "And so on.")))
    assert events == sweep
    assert told.as_said() == [
        ("start", "rates: starts: 3 trials", None, None),
        ("best", "rates: trial 0 is the best so far, score 0.2500; 1 of 3 trials", 0, 0.25),
        (
            "best",
            "rates: trial 5 is the best so far, score 0.5000, before 0.2500; 4 of 3 trials",
            5,
            0.5,
        ),
        ("end", "rates: finished, 4 of 3 trials. trial 1 is worth shipping. And so on.", 1, 0.25),
    ]


def test_news_of_a_study_that_goes_on_know_its_best():
    told = Told()
    with telling("rates", check_sweep(SWEEP, "a sweep"), [told], lambda _: None) as news:
        news(began(is_new=False, finished=1, best_trial=0, best_score=0.5))
        news(ended(1, "complete", 0.4))
        news.tell_end("timeout", Results())
    assert told.as_said() == [
        ("start", "rates: goes on after 1 of 3 trials", 0, 0.5),
        ("end", "rates: out of time after 2 of 3 trials.", 0, 0.5),
    ]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (StudyError("The disk is full.\n\x1b[31mRoom!"), r"The disk is full. \x1b[31mRoom!"),
        (OSError(f"postgresql://me:{SECRET}@h"), "OSError"),
        (StudyError("x" * 1000), "x" * 1000),
    ],
)
def test_news_of_a_failure_say_what_went_wrong_and_nothing_secret(fault, said):
    told = Told()

    def sweep():
        with telling("rates", check_sweep(SWEEP, "x"), [told], lambda _: None) as news:
            news(began())
            raise fault

    with pytest.raises(type(fault)):
        sweep()
    [_, (event, text, *_)] = told.as_said()
    assert event == "failure"
    whole = f"rates: ended by an error after 0 of 3 trials: {said}"
    assert text == (whole if len(whole) <= 500 else f"{whole[:497]}...")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [([], []), ("end", ["end"]), (["best", "failure"], ["best"]), (NEWS, ["start", "best", "end"])],
)
def test_only_what_the_sweep_names_is_told(asked, expected):
    told = Told()
    spec = check_sweep({**SWEEP, "notify": asked}, "a sweep")
    with telling("rates", spec, [told], lambda _: None) as news:
        news(began())
        news(ended(0, "complete", 0.5))
        news.tell_end("finished", Results())
    assert [each.event for each in told.messages] == expected


def test_target_that_fails_is_an_event_and_harms_nothing():
    events, told = [], Told("it is away")
    news = News("rates", check_sweep(SWEEP, "a sweep"), [told], events.append)
    news(began())
    wait_until(lambda: told.messages)
    news(ended(0, "complete", 0.5))
    news.tell_end("finished", Results(fault=StudyError("samples.jsonl is damaged")))
    news.close()
    assert len(told.messages) == 3
    assert [each.values["text"] for each in events if each.kind == "not_told"] == [
        "the test was not told: it is away"
    ]


def test_what_is_told_is_no_part_of_a_study():
    specs = [check_sweep({**SWEEP, "notify": each}, "x") for each in (list(NEWS), [], "end")]
    assert len({spec.digest() for spec in specs}) == 1
    assert specs[0] == check_sweep(SWEEP, "x")


@pytest.mark.parametrize(
    "asked",
    [
        f"https://h/{SECRET}",
        [f"https://h/{SECRET}"],
        {"webhook": f"https://h/{SECRET}"},
        {"command": f"curl {SECRET}", "on": ["end"]},
        ["end", "end"],
        [["end"]],
        True,
    ],
)
def test_sweep_says_nobody_to_tell(asked):
    with pytest.raises(SpecError) as caught:
        check_sweep({**SWEEP, "notify": asked}, "a sweep")
    assert str(caught.value) == (
        "a sweep: notify: must be a list of start, best, end, failure. Whom to tell is not for a "
        "sweep to say, which others may have written: use --notify or HAWSWEEP_NOTIFY."
    )


def test_sweep_in_the_background_tells_and_keeps_no_secret(
    tmp_path, monkeypatch, tiny_model_dir, chat_data_dir
):
    sweep = tmp_path / "tiny.yaml"
    sweep.write_text(json.dumps({**tiny_sweep(tiny_model_dir, chat_data_dir), "trials": 1}))
    studies = tmp_path / "studies"
    with Receiver() as receiver:
        asked = ["start", str(sweep), "--detach", f"--studies-dir={studies}"]
        asked += [f"--notify={receiver.url}/{SECRET}"]
        asked += [f"--notify=echo $HAWSWEEP_EVENT {SECRET} >> {tmp_path}/told; exit 3"]
        done = CliRunner().invoke(main, asked)
        assert done.exit_code == 0, done.output
        process = psutil.Process(supervisor_of(studies / "tiny")["pid"])
        assert SECRET not in " ".join(process.cmdline())  # which others see
        try:
            wait_until(lambda: supervisor_of(studies / "tiny") is None)
        finally:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
    bodies = [json.loads(body) for _, _, body in receiver.got]
    assert [each["event"] for each in bodies] == ["start", "best", "end"]
    assert bodies[2]["text"].startswith("tiny: finished, 1 of 1 trials. ")
    assert bodies[1]["trial"] == bodies[2]["trial"] == 0
    assert bodies[1]["score"] == pytest.approx(bodies[2]["score"])
    told = (tmp_path / "told").read_text().splitlines()
    assert told == [f"{event} {SECRET}" for event in ("start", "best", "end")]
    log = (studies / "tiny" / "sweep.log").read_text()
    assert log.count("the command to notify by was not told: it ended with code 3") == 1
    kept = [path for path in studies.rglob("*") if path.is_file()]
    assert studies / "hawsweep.db" in kept
    assert [path for path in kept if SECRET.encode() in path.read_bytes()] == []


def test_start_refuses_what_is_no_target_before_anything_else(tmp_path, tiny_model_dir):
    asked = [
        "start",
        "lr-rank",
        f"--studies-dir={tmp_path / 'studies'}",
        f"--notify=ftp://{SECRET}",
    ]
    for detach in ([], ["--detach"]):
        done = CliRunner().invoke(main, [*asked, *detach])
        assert done.exit_code == 1
        assert "One of those to notify is neither" in done.stderr
        assert SECRET not in done.output
    assert not (tmp_path / "studies").exists()
    with pytest.raises(SpecError, match="One of those to notify"):
        start_detached(["start"], "x", Place(tmp_path / "studies"), ["ftp://x"])
