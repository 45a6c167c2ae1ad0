"""Notes for the dashboard, written by a sweep's events."""

import time
from collections.abc import Callable

import optuna

from hawsweep.notes.annotate import annotate_study, annotate_trials
from hawsweep.running.events import FREES_WORKER, Event, Listener
from hawsweep.study.place import Place

# Times the time of writing, in which none are written: all notes of a study are read each time,
# which takes seconds where it has thousands.
_REST = 20


def writing_notes(
    listen: Listener,
    study: optuna.Study,
    confirming: optuna.Study,
    place: Place,
    *,
    joins: bool,
    now: Callable[[], float] = time.monotonic,
) -> Listener:
    """Write also the notes of trials that ended, and the study's, again when no worker runs.

    A worker is handed its next work after an event that frees it: notes are written at the next
    other event, while the next trial runs.

    Args:
        joins: Another process runs the study, too, and writes the study's note.
    """
    studies = {"trial_end": study, "confirm_end": confirming}
    unwritten: dict[str, list[int]] = {kind: [] for kind in studies}
    due = now()

    def write() -> None:
        nonlocal due
        started = now()
        for kind, numbers in unwritten.items():
            if numbers:
                annotate_trials(studies[kind], place, tuple(numbers), with_study=not joins)
                numbers.clear()
        due = now() + _REST * (now() - started)

    def tell(event: Event) -> None:
        if event.kind != "ended":
            listen(event)
        if event.kind in studies and not event.host:  # it writes them itself
            unwritten[event.kind].append(event.values["number"])
        if event.kind in FREES_WORKER:
            return
        if any(unwritten.values()) and (event.kind == "ended" or now() >= due):
            write()
        if event.kind == "ended" and not joins:
            annotate_study(study, place, ended=True)

    return tell
