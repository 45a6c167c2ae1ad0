"""Notes written by a sweep's events."""

import pytest

from hawsweep.running import write_notes
from hawsweep.running.events import Event


@pytest.fixture
def told(monkeypatch):
    """What the listener is told and what is written, in order."""
    order = []

    def annotate_trials(study, _, numbers, *, with_study):
        order.append((study, numbers, with_study))

    monkeypatch.setattr(write_notes, "annotate_trials", annotate_trials)
    monkeypatch.setattr(
        write_notes, "annotate_study", lambda study, _, *, ended: order.append((study, ended))
    )
    return order


def tell(told, *events, joins=False, now=lambda: 0.0):
    def listen_to(event):
        told.append(event.kind)

    listen = write_notes.writing_notes(
        listen_to, "study", "confirming", "place", joins=joins, now=now
    )
    for kind, *numbers in events:
        listen(Event(kind, values=dict.fromkeys(["number"], *numbers)))


def test_notes_are_written_once_the_next_work_is_handed_out(told):
    tell(told, ["trial_end", 3], ["confirm_end", 0], ["ready"], ["tick"], ["tick"])
    written = [("study", (3,), True), ("confirming", (0,), True)]
    assert told == ["trial_end", "confirm_end", "ready", "tick", *written, "tick"]


def test_study_is_written_when_no_worker_runs(told):
    tell(told, ["trial_end", 3], ["ended"])
    assert told == ["trial_end", ("study", (3,), True), ("study", True)]


def test_process_that_joined_writes_notes_of_its_trials_alone(told):
    tell(told, ["trial_end", 3], ["ended"], joins=True)
    assert told == ["trial_end", ("study", (3,), False)]


def test_writing_takes_a_twentieth_of_the_time_where_it_takes_long(told):
    seconds = iter([0.0, 0.0, 0.0, 2.0, 2.0, 10.0, 42.0, 42.0, 44.0, 44.0])
    ends = [["trial_end", 0], ["tick"], ["trial_end", 1], ["tick"], ["trial_end", 2], ["tick"]]
    tell(told, *ends, now=lambda: next(seconds))
    written = [each for each in told if each not in ("trial_end", "tick")]
    assert written == [("study", (0,), True), ("study", (1, 2), True)]
