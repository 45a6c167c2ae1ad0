"""Notes for the dashboard, written by a sweep's events."""

import optuna

from hawsweep.notes.annotate import annotate_study, annotate_trial
from hawsweep.running.events import FREES_WORKER, Event, Listener
from hawsweep.study.place import Place


def writing_notes(
    listen: Listener, study: optuna.Study, confirming: optuna.Study, place: Place, *, joins: bool
) -> Listener:
    """Write also the note of each trial that ends, and the study's, again when no worker runs.

    A worker is handed its next work after an event that frees it: notes are written at the next
    other event, while the next trial runs.

    Args:
        joins: Another process runs the study, too.
    """
    studies = {"trial_end": study, "confirm_end": confirming}
    unwritten: list[tuple[optuna.Study, int]] = []

    def tell(event: Event) -> None:
        if event.kind != "ended":
            listen(event)
        if event.kind in studies and not event.host:  # it writes them itself
            unwritten.append((studies[event.kind], event.values["number"]))
        if event.kind in FREES_WORKER:
            return
        while unwritten:
            its_study, number = unwritten.pop(0)
            annotate_trial(its_study, place, number)
        if event.kind == "ended":
            annotate_study(study, place, ended=not joins)

    return tell
