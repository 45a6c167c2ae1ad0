"""What is seen in a terminal while a sweep runs, and after it."""

import json
import os
import pty
import re
import signal
import subprocess

import pytest
from command import COMMAND
from harness import INTERVAL, N_THREADS, count, wait_until
from screens import Screen

from hawsweep.machine.processes import supervisor_of
from hawsweep.running.progress import read_progress
from hawsweep.study.place import Place

ENDLESS = {
    "search": {"learning_rate": {"low": 1e-4, "high": 1e-2}, "iters": {"choices": [20000, 24000]}}
}
LONG = {"search": {"learning_rate": {"low": 1e-4, "high": 1e-2}, "iters": {"choices": [300, 320]}}}


def start_command(here, *more):
    return hawsweep(here, "start", str(here.folder / "sweep.yaml"), "--study=tiny", *more)


def hawsweep(here, *words):
    return [*COMMAND, *words, f"--studies-dir={here.studies}"]


@pytest.mark.parametrize(
    ("columns", "lines", "variables"), [(80, 24, {"NO_COLOR": "1"}), (140, 40, {})]
)
def test_live_picture_shows_the_sweep_in_its_terminal(lab, columns, lines, variables):
    here = lab(trials=3, confirm={"top": 2, "seeds": 1}, **LONG)
    with Screen(start_command(here), columns, lines, **variables, **N_THREADS) as screen:
        # GB: the peak of what a trial may take.
        begun = screen.until(
            *(r"0/3 trials", r"trial 0 .*/3[02]0", "tok/s", r"ends \d\d:\d\d, in "),
            r" 0\.\d\d/\d+\.\d\d ",
        )
        assert "2 runs with new seeds and the test split" in begun
        assert re.search(r"lr \d\.\d\de-0\d", begun)
        assert re.search(r"\d\d:\d\d:\d\d  base +val loss", begun)
        later = screen.until(r"1/3 trials", r"best: trial 0 \d", r"[+-]\d\.\d{3}", "best so far")
        assert re.search(r"^ +0 +complete", later, re.MULTILINE)  # the leaderboard
        assert re.search(r"^ +base +\d", later, re.MULTILINE)
        screen.until("trial [0-2] again")
        assert screen.finish() == 0
        ended = screen.text()
    assert "hawsweep show tiny" in ended
    assert "tok/s  0." not in ended  # the picture is gone
    assert screen.has_colours is (not variables)
    assert screen.raw.rindex("\x1b[?25h") > screen.raw.rindex("\x1b[?25l")  # the cursor is back


def test_picture_can_be_watched_from_another_terminal_and_goes_with_the_sweep(lab):
    here = lab(trials=3, **ENDLESS)
    folder = Place(here.studies).study_dir("tiny")
    watching = hawsweep(here, "status", "tiny", "--watch", "--interval=0.5")
    with (
        Screen(start_command(here), 80, 24, **N_THREADS) as sweep,
        Screen(watching_of(here, sweep, watching), 80, 24) as screen,
    ):
        seen = (r"0/3 trials", r"trial 0 .*/2[04]000", "tok/s", "ends ", r"\d\d:\d\d  base ")
        screen.until(*seen, r"lr \d\.", r"val \d\.\d{3} ")
        assert read_progress(folder).workers[0].trial == "0"
        sweep.process.send_signal(signal.SIGINT)
        assert sweep.finish() == 130
        assert not list(folder.glob("*progress*"))
        shown = screen.until("0 of 3 trials are done; left: 3 to go", "Go on: hawsweep start")
        assert not re.search(r"trial 0 .*/2[04]000", shown)
        screen.process.send_signal(signal.SIGINT)
        assert screen.finish() == 0


def watching_of(here, sweep, command):
    """The command, when there is something to watch."""
    sweep.until(r"trial 0 .*/2[04]000")
    return command


def test_sweep_that_was_killed_is_not_shown_as_running(lab):
    here = lab(trials=3, **ENDLESS)
    folder = Place(here.studies).study_dir("tiny")
    with Screen(start_command(here), 80, 24, **N_THREADS) as screen:
        screen.until("trial 0 .*/2[04]000")
        screen.process.kill()
        screen.finish()
    assert list(folder.glob("progress.json"))
    wait_until(lambda: read_progress(folder) is None)
    command = hawsweep(here, "status", "tiny", "--json")
    shown = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert shown["left"]["trials"] == 3
    assert shown["left"]["command"].startswith("hawsweep start ")


def test_plain_sweep_says_lines_on_a_terminal_too(lab):
    here = lab(trials=2)
    with Screen(start_command(here, "--plain"), 80, 24, **N_THREADS) as screen:
        assert screen.finish() == 0
        text = screen.text()
    for line in ("New study tiny", "trial 0 starts: lr ", "trial 0   complete, val loss"):
        assert re.search(rf"^\d\d:\d\d:\d\d  {line}", text, re.MULTILINE)
    assert not re.search(r"\x1b\[\d*[A-K]|\x1b\[\?", screen.raw)  # nothing is drawn over


def test_command_that_goes_on_does(lab):
    here = lab(trials=2)
    with here.start() as run:
        event, _ = run.next({"trial_end"})
        assert event is not None
        run.process.send_signal(signal.SIGINT)
        run.wait()
    command = hawsweep(here, "status", "tiny", "--json")
    shown = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    words = shown["left"]["command"].split()
    assert words[:2] == ["hawsweep", "start"]
    goes_on = subprocess.run(
        [*COMMAND, *words[1:]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert goes_on.returncode == 0, goes_on.stderr
    assert "Continuing after 1 finished trial: study tiny" in goes_on.stdout
    here.check(2)


def test_error_is_not_coloured_where_no_colour_is_wanted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # an error's line is as long as the path it names
    command = [*COMMAND, "status", "--studies-dir=none"]
    for variables, expected in (({}, True), ({"NO_COLOR": "1"}, False)):
        with Screen(command, 240, 24, **variables) as screen:
            assert screen.finish() == 1
        assert "Error: There are no studies" in screen.text()
        assert screen.has_colours is expected


@pytest.mark.parametrize("first", ["the signal", "the terminal"])
def test_closed_terminal_is_as_ctrl_c(lab, first):
    here = lab(trials=1, search={"iters": {"choices": [400]}})
    ours, theirs = pty.openpty()
    environment = {**os.environ, **N_THREADS, "TERM": "xterm-256color"}
    command = start_command(here, "--plain")
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    metrics = here.studies / "tiny/trials/0000/metrics.jsonl"
    wait_until(lambda: metrics.is_file() and '"eval"' in metrics.read_text())
    ends = [lambda: process.send_signal(signal.SIGHUP), lambda: os.close(ours)]
    for end in ends if first == "the signal" else ends[::-1]:
        end()
    assert process.wait(60) == 130
    count("terminal closed")
    assert supervisor_of(here.studies / "tiny") is None
    went_on = next(each for each in here.finish().events if each["kind"] == "eval")
    assert went_on["values"]["iteration"] > INTERVAL
    here.check(1)
    assert len(here.trials()) == 1
