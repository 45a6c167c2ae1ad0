"""Notifications: where they go, what they say, and that they harm nothing."""

import json
import os
import re
import socket
import sys
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil
import pytest
from click.testing import CliRunner
from tiny_sweep import really_embedded, tiny_sweep

from hawsweep.cli import main
from hawsweep.errors import SpecError, StudyError
from hawsweep.machine.processes import supervisor_of
from hawsweep.running import notify
from hawsweep.running.background import start_detached
from hawsweep.running.events import Event
from hawsweep.running.notify import Command, Message, News, find_targets, telling
from hawsweep.spec.checks import NEWS
from hawsweep.spec.read import check_sweep
from hawsweep.study.place import Place

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
                receiver.got.append((self.path, json.loads(body)))
                code = receiver._answers.pop(0) if receiver._answers else 204
                self.send_response(code)
                if code == 302:
                    self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"json://127.0.0.1:{self._server.server_address[1]}"

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
        yield f"json://127.0.0.1:{server.getsockname()[1]}/{SECRET}"


@pytest.fixture(autouse=True)
def nobody_in_the_environment(monkeypatch):
    monkeypatch.delenv("HAWSWEEP_NOTIFY", raising=False)


def wait_until(holds):
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def deliver(url, message=MESSAGE):
    [target] = find_targets(url)
    return target.deliver(message)


def test_targets_are_told_apart():
    given = ["json://h/x", "ntfys://h/x", "  say 'done' ", "curl https://h"]
    assert [each.label for each in find_targets(given)] == [
        "json://",
        "ntfys://",
        "the command to notify by",
        "the command to notify by",
    ]
    assert find_targets(given[2:]) == [Command("say 'done'"), Command("curl https://h")]
    assert find_targets("say x") == [Command("say x")]
    assert find_targets() == find_targets([]) == []


@pytest.mark.parametrize(
    ("url", "label"),
    [
        ("https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ", "slack"),
        (f"https://discord.com/api/webhooks/{'1' * 18}/{'a' * 32}", "discord"),
        ("https://ntfy.sh/topic", "ntfys"),
    ],
)
def test_web_addresses_of_known_services_are_taken(url, label):
    assert [each.label for each in find_targets(url)] == [f"{label}://"]


def test_environment_names_targets_one_a_line_where_none_are_given(monkeypatch):
    monkeypatch.setenv("HAWSWEEP_NOTIFY", "\njson://h\n say done\n\n")
    assert [each.label for each in find_targets()] == ["json://", "the command to notify by"]
    assert find_targets(["say other"]) == [Command("say other")]
    assert find_targets(()) == []


UNKNOWN_WEB = (
    "apprise does not know the service of an http or https URL: write the service's own scheme, "
    "such as slack://, discord:// or ntfy://, or json:// in place of http:// and jsons:// in place "
    "of https://."
)
NO_LINE = "An address to notify is empty or of several lines. Correct --notify or HAWSWEEP_NOTIFY."
UNKNOWN = (
    "apprise cannot notify by this {} address on this machine; https://appriseit.com/services/ has "
    "each service's form. Correct --notify or HAWSWEEP_NOTIFY."
)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("", NO_LINE),
        (" ", NO_LINE),
        (f"say {SECRET}\nsay more", NO_LINE),
        (f"https://h/{SECRET}", UNKNOWN_WEB),
        (f"http://127.0.0.1:8/{SECRET}", UNKNOWN_WEB),
        (f"https://[{SECRET}/", UNKNOWN_WEB),
        (f"ftp://h/{SECRET}", UNKNOWN.format("ftp://")),
        (f"slack://{SECRET}", UNKNOWN.format("slack://")),
        (
            "desktop",
            "`desktop` is no longer an address to notify: write macosx:// on a Mac, elsewhere the "
            "command 'notify-send hawsweep \"$HAWSWEEP_TEXT\"'.",
        ),
    ],
)
def test_what_is_no_target_is_refused_with_what_to_write_and_not_shown(target, message):
    with pytest.raises(SpecError) as caught:
        find_targets([target])
    assert str(caught.value) == message
    assert SECRET not in repr(caught.value)


def test_url_without_apprise_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "apprise", None)
    for url in (f"slack://{SECRET}", f"https://ntfy.sh/{SECRET}"):
        with pytest.raises(SpecError) as caught:
            find_targets(url)
        assert str(caught.value) == (
            f"Notifications by {url.partition('://')[0]}:// need apprise, which is not installed: "
            "pip install apprise"
        )
    assert find_targets("say done") == [Command("say done")]  # needs none


def test_secrets_of_targets_are_not_in_their_names():
    for target in find_targets([f"jsons://me:{SECRET}@h/{SECRET}", f"curl -H {SECRET}"]):
        assert SECRET not in repr(target) + target.label


def test_service_gets_the_text():
    with Receiver() as receiver:
        assert deliver(f"{receiver.url}/hook", Message("lr-rank", "best", "trial 3 & 4")) is None
    [(path, body)] = receiver.got
    assert path == "/hook"
    assert (body["title"], body["message"]) == ("hawsweep", "trial 3 & 4")


def test_text_of_others_calls_no_channel():
    with Receiver() as receiver:
        deliver(receiver.url, Message("x", "best", "<!channel> @everyone: 1 < 2, a @ b"))
    [(_, body)] = receiver.got
    space = "\N{ZERO WIDTH SPACE}"
    assert body["message"] == f"<{space}!channel> @{space}everyone: 1 < 2, a @ b"


@pytest.mark.parametrize("answer", [503, 404, 302])
def test_service_that_refuses_is_said_and_no_other_address_gets_the_message(answer):
    with Receiver(answer) as receiver:
        assert deliver(f"{receiver.url}/{SECRET}") == "the service did not take the message"
    assert [path for path, _ in receiver.got] == [f"/{SECRET}"]


def test_service_that_does_not_answer_is_given_up():
    with silent_server() as url:
        assert deliver(f"{url}?rto=0.1") == "the service did not take the message"
    assert deliver(url) == "the service did not take the message"


def test_faults_of_services_show_no_address(monkeypatch, capfd, caplog):
    [target] = find_targets(f"json://127.0.0.1:9/{SECRET}")
    target.deliver(MESSAGE)

    def fails(**_):
        raise OSError(f"cannot reach {SECRET}")

    monkeypatch.setattr(target.apprise, "notify", fails)
    assert target.deliver(MESSAGE) == "OSError"
    assert SECRET not in "".join(capfd.readouterr()) + caplog.text


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
    assert Command("exec sleep 60").deliver(MESSAGE) == "it did not end within 0.2 s"


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


def test_sweep_waits_for_no_target_and_a_fault_is_said_once():
    hold, told, events = threading.Event(), Told(), []

    class Slow:
        label = "the slow one"

        def deliver(self, message):
            hold.wait(PATIENCE_S)
            return "it is slow"

    news = News("rates", check_sweep(SWEEP, "a sweep"), [Slow(), told], events.append)
    news(began())
    news(ended(0, "complete", 0.25))
    news(ended(1, "complete", 0.5))
    wait_until(lambda: len(told.messages) == 3)  # while the other has delivered nothing
    assert not_told(events) == []
    hold.set()
    news.close()
    assert not_told(events) == ["the slow one was not notified: it is slow"]


def test_the_end_does_not_wait_for_long(monkeypatch):
    monkeypatch.setattr(notify, "_LAST_WAIT_S", 0.1)
    events = []
    with silent_server() as url:
        news = News("rates", check_sweep(SWEEP, "x"), find_targets(url), events.append)
        news(began())
        news.close()
    assert not_told(events) == ["json:// did not take the messages in time"]


def not_told(events):
    return [each.values["text"] for each in events if each.kind == "not_told"]


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


def began(*, is_new=True, finished=0, n_trials=3, **best):
    about = {"name": "x", "is_new": is_new, "finished": finished, "n_trials": n_trials, **best}
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
        news.tell_end("finished", Results(Best(), ("Use trial 1: +0.31.", "And so on.")))
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
        ("end", "rates: finished, 4 of 3 trials. Use trial 1: +0.31. And so on.", 1, 0.25),
    ]


def test_news_count_the_settings_of_a_space_that_has_fewer_than_trials():
    told, search = Told(), {"learning_rate": {"choices": [1e-4, 1e-3]}}
    spec = check_sweep({**SWEEP, "search": search, "train": {"iters": 10}}, "a sweep")
    with telling("rates", spec, [told], lambda _: None) as news:
        news(began())
        news(ended(0, "complete", 0.5))
    texts = [each.text for each in told.messages]
    assert texts[0] == "rates: starts: 2 trials"
    assert texts[1].endswith("; 1 of 2 trials")


def test_news_count_the_trials_that_were_added():
    told = Told()
    with telling("rates", check_sweep(SWEEP, "a sweep"), [told], lambda _: None) as news:
        news(began(is_new=False, finished=3, n_trials=4))
        news(Event("extended", values={"n_trials": 6, "timeout_s": None}))
        news(ended(3, "complete", 0.5))
    texts = [each.text for each in told.messages]
    assert texts[0] == "rates: goes on after 3 of 4 trials"
    assert texts[1].endswith("; 4 of 6 trials")


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
    assert not_told(events) == ["the test was not notified: it is away"]


def test_sweep_in_the_background_tells_and_keeps_no_secret(
    tmp_path, monkeypatch, tiny_model_dir, chat_data_dir
):
    sweep = tmp_path / "tiny.yaml"
    tiny = really_embedded(tiny_sweep(tiny_model_dir, chat_data_dir))
    sweep.write_text(json.dumps({**tiny, "trials": 1}))
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
    assert [path for path, _ in receiver.got] == [f"/{SECRET}"] * 3
    start, best, end = [body["message"] for _, body in receiver.got]
    assert start == "tiny: starts: 1 trial"
    assert re.match(r"tiny: trial 0 is the best so far, score \d+\.\d+; 1 of 1 trial$", best)
    assert end.startswith("tiny: finished, 1 of 1 trial. ")
    told = (tmp_path / "told").read_text().splitlines()
    assert told == [f"{event} {SECRET}" for event in ("start", "best", "end")]
    log = (studies / "tiny" / "sweep.log").read_text()
    assert log.count("the command to notify by was not notified: it ended with code 3") == 1
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
        assert "apprise cannot notify by this ftp:// address" in done.stderr
        assert SECRET not in done.output
    assert not (tmp_path / "studies").exists()
    with pytest.raises(SpecError, match="apprise cannot notify by this ftp://"):
        start_detached(["start"], "x", Place(tmp_path / "studies"), ["ftp://x"])
