"""A running sweep as lines of JSON, for programs."""

import json

import pytest
from click.testing import CliRunner
from reported_study import make_reported_study
from tiny_sweep import tiny_sweep

from hawsweep.cli import main
from hawsweep.errors import WorkerError
from hawsweep.running import start
from hawsweep.running.events import Event
from hawsweep.study.presence import Presence
from hawsweep.views.json_schema import STREAMS

SETTINGS = {"learning_rate": 1e-3}
STARTED = Event("trial_start", 1, {"number": 3, "settings": SETTINGS, "confirms": None})
ENDED = Event(
    "trial_end", 1, {"number": 3, "state": "fail", "reason": "\x1b[31m", "val_loss": float("inf")}
)
NOTHING_NEW = [Event("tick"), Event("iteration", 1, {"iteration": 1, "iters": 4})]


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """Start a sweep that does not train, but has these events and then this outcome or fault."""

    def begin(*events, end):
        def run(spec, name, *, on_event, **_):
            print("a library's own words")
            for event in events:
                on_event(event)
            if isinstance(end, Exception):
                raise end
            return end

        monkeypatch.setattr(start, "run_sweep", run)
        path = tmp_path / "tiny.yaml"
        path.write_text(json.dumps(tiny_sweep("model", "data")), encoding="utf-8")
        done = CliRunner().invoke(main, ["start", str(path), "--json"])
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        for line in lines:
            STREAMS["start"].validate_python(line)
        return done, lines

    return begin


def test_each_event_is_a_line_and_nothing_else_is_printed(begin, tmp_path):
    study, place = make_reported_study(tmp_path)
    outcome = start.Outcome(study, place, "interrupted", Presence(place, "rates"))
    done, lines = begin(STARTED, *NOTHING_NEW, ENDED, end=outcome)
    assert done.exit_code == 130
    assert done.stderr == "a library's own words\n"
    first, started, ended, last = lines
    assert (first["event"], first["version"], first["study"]) == ("begin", 1, "tiny")
    assert {key: started[key] for key in ("event", "worker", "number", "settings")} == {
        "event": "trial_start",
        "worker": 1,
        "number": 3,
        "settings": SETTINGS,
    }
    assert (ended["state"], ended["reason"], ended["val_loss"]) == ("fail", "\x1b[31m", None)
    assert "\x1b" not in done.stdout
    assert (last["event"], last["ended"], last["use"]) == ("end", "interrupted", 4)
    assert last["best_trial"] == 4
    assert last["sentences"][0].startswith("Use trial 4")


def test_error_is_the_last_event(begin):
    done, lines = begin(end=WorkerError("3 failures in a row."))
    assert done.exit_code == 1
    assert "Error: 3 failures in a row." in done.stderr
    assert [(each["event"], each.get("message")) for each in lines] == [
        ("begin", None),
        ("error", "3 failures in a row."),
    ]


def test_events_of_a_sweep_in_the_background_are_refused():
    done = CliRunner().invoke(main, ["start", "lr-rank", "--json", "--detach"])
    assert done.exit_code == 2
    assert "leave out --detach" in done.output
