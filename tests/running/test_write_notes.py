"""Notes written by a sweep's events."""

import pytest

from hawsweep.running import write_notes
from hawsweep.running.events import Event


@pytest.fixture
def told(monkeypatch):
    """What the listener is told and what is written, in order."""
    order = []
    monkeypatch.setattr(
        write_notes, "annotate_trial", lambda study, _, number: order.append((study, number))
    )
    monkeypatch.setattr(
        write_notes, "annotate_study", lambda study, _, *, ended: order.append((study, ended))
    )
    return order


def tell(told, *events, joins=False):
    listen = write_notes.writing_notes(
        lambda event: told.append(event.kind), "study", "confirming", "place", joins=joins
    )
    for kind, *numbers in events:
        listen(Event(kind, values=dict.fromkeys(["number"], *numbers)))


def test_note_is_written_once_the_next_work_is_handed_out(told):
    tell(told, ["trial_end", 3], ["confirm_end", 0], ["ready"], ["tick"], ["tick"])
    written = [("study", 3), ("confirming", 0)]
    assert told == ["trial_end", "confirm_end", "ready", "tick", *written, "tick"]


@pytest.mark.parametrize("joins", [False, True])
def test_study_is_written_when_no_worker_runs(told, joins):
    tell(told, ["trial_end", 3], ["ended"], joins=joins)
    assert told == ["trial_end", ("study", 3), ("study", not joins)]
