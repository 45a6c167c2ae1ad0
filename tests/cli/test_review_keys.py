"""A review in a terminal, key by key."""

import json
import re
import time

import pytest
from command import COMMAND
from reviewed_study import make_reviewed_study
from screens import Screen

from hawsweep.results.review import read_judgments, review_of, review_path


@pytest.fixture
def study(place):
    return make_reviewed_study(place)


class Reviewer:
    """Presses keys in a review that runs in a terminal."""

    def __init__(self, screen, path):
        self._screen, self._path = screen, path

    def press(self, key, seen):
        """Press a key until it shows: click drops keys that come before it waits for one."""
        before = len(re.findall(seen, self._screen.text()))
        deadline = time.monotonic() + 60
        while len(re.findall(seen, self._screen.text())) == before:
            assert time.monotonic() < deadline, self._screen.text()
            n_lines = len(self.said())
            self._screen.type(key)
            patience = time.monotonic() + 5
            while time.monotonic() < patience:
                time.sleep(0.05)
                if len(re.findall(seen, self._screen.text())) > before:
                    return
                if len(self.said()) != n_lines:  # it was taken, and is to be seen soon
                    patience = deadline

    def said(self):
        return [each for each in read_judgments(self._path) if each.said != "same"]


def review_command(place, *words):
    return [*COMMAND, "review", "rates", f"--studies-dir={place.studies_dir}", *words]


@pytest.mark.parametrize("columns", [40, 80])
def test_twenty_sentences_are_judged_by_one_key_each(study, place, columns):
    path, after = review_path(study, place), 0
    with Screen(review_command(place), columns, 24) as screen:
        reviewer = Reviewer(screen, path)
        screen.until("Sentence 1 of 20", "reference  The king read")
        assert "trial 1" not in screen.text()  # it is blind
        for number in range(1, 20):
            key = "ab=n"[number % 4]
            reviewer.press(key, f"Sentence {number + 1} of 20")
            after += 1
            assert len(reviewer.said()) == after  # kept at once
        reviewer.press("a", "blind review")
        assert screen.finish() == 0
        shown = " ".join(screen.text().split())
    assert len(reviewer.said()) == 20
    for sentence in review_of(study, place).sentences():
        assert sentence in shown


def test_review_is_stopped_and_goes_on_after_undo_and_wrong_keys(study, place):
    path = review_path(study, place)
    with Screen(review_command(place), 80, 24) as screen:
        reviewer = Reviewer(screen, path)
        screen.until("Sentence 1 of 20")
        reviewer.press("u", "There is nothing to undo")
        reviewer.press("\x1b[A", "The keys are a, b, =, n, u, q")  # an arrow is no "a"
        reviewer.press("A", "Sentence 2 of 20")
        reviewer.press("n", "Sentence 3 of 20")
        reviewer.press("u", "undone")
        reviewer.press("q", "1 of 20 sentences are judged. Go on: hawsweep review rates")
        assert screen.finish() == 0
    with Screen(review_command(place), 80, 24) as screen:
        reviewer = Reviewer(screen, path)
        screen.until("Sentence 2 of 20")
        reviewer.press("=", "Sentence 3 of 20")
        screen.type("\x03")
        time.sleep(1)
        if screen.process.poll() is None:
            screen.type("\x03")
        assert screen.finish() == 130
        assert "Traceback" not in screen.text()
    assert [each.said for each in reviewer.said()][1:] == ["equal"]


def test_finished_review_shows_its_result(study, place):
    with Screen(review_command(place, "--n", "1"), 80, 24) as screen:
        screen.until("Sentence 1 of 1")
        Reviewer(screen, review_path(study, place)).press("b", "blind review")
        screen.finish()
    with Screen(review_command(place, "--n", "1"), 80, 24) as screen:
        assert screen.finish() == 0
        assert "In a blind review of 1 test sentence trial 1 was preferred" in screen.text()
        assert "Sentence" not in screen.text()


def test_hostile_answers_stay_text(study, place):
    for path in place.study_dir("rates").rglob("test_samples.jsonl"):
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for each in lines:
            each["output"] += "\x1b[2J\x1b]0;title\x07[bold]\u202e"
        path.write_text("".join(f"{json.dumps(each)}\n" for each in lines), encoding="utf-8")
    with Screen(review_command(place), 40, 24) as screen:
        screen.until("Sentence 1 of 20", re.escape("\\x1b[2J"))
        assert "[bold]" in "".join(screen.text().split())
        assert "\x1b[2J" not in screen.raw
        assert "\u202e" not in screen.raw
