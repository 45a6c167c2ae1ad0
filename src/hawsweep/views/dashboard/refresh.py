"""Updates the dashboard's notes, links and plots while it is served.

Plots are drawn here and not when a trial ends, so that they cost a sweep no time. Missing notes and
links are added, for instance those of an older version, or of a machine without the files.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from hawsweep.errors import StudyError
from hawsweep.layout import CONFIRM_SUFFIX
from hawsweep.machine.processes import supervisor_of
from hawsweep.notes.annotate import annotate_study
from hawsweep.notes.attachments import REPORT
from hawsweep.study.attributes import BASE, CONFIRMED, RETENTION, SPEC
from hawsweep.study.optuna_door import storage_of, study_id
from hawsweep.study.place import Place
from hawsweep.study.study import load_study
from hawsweep.study.trials import read_test

logger = logging.getLogger(__name__)

_MARK = "hawsweep:plot:"
_INTERVAL_S = 5.0
_REST = 20  # times the time of an update, so that a sweep keeps the cores and the database
_ENDING_S = 3.0


class Refresher:
    """Updates all changed studies of hawsweep."""

    def __init__(self, storage: BaseStorage, place: Place) -> None:
        self._database, self._place = storage, place
        self._seen: dict[str, Any] = {}

    def look(self) -> None:
        """Update once. Studies that cannot be read or written are logged and skipped."""
        for study in self._database.get_all_studies():
            name = study.study_name
            if SPEC not in study.user_attrs and not name.endswith(CONFIRM_SUFFIX):
                continue  # another program's
            with suppress(StudyError):  # its name cannot be a folder's
                self._refresh(load_study(self._database, name))

    def _refresh(self, study: optuna.Study) -> None:
        name = study.study_name
        trials = study.get_trials(deepcopy=False)
        folder = self._place.study_dir(name.removesuffix(CONFIRM_SUFFIX))
        is_running = any(trial.state == TrialState.RUNNING for trial in trials)
        ended = not is_running and supervisor_of(folder) is None
        now = [
            study_id(study),
            [trial.state.value for trial in trials],
            sum(len(trial.intermediate_values) for trial in trials),
            [study.user_attrs.get(key) for key in (BASE, CONFIRMED, RETENTION)],
            read_test(study),
            ended,
            (folder / REPORT.path).is_file(),
        ]
        if self._seen.get(name) != now:
            annotate_study(study, self._place, ended=ended)
            if not name.endswith(CONFIRM_SUFFIX):
                save_plots(study)
            self._seen[name] = now


def save_plots(study: optuna.Study) -> None:
    """Draw a study's plots, and store the changed ones for the dashboard."""
    from optuna_dashboard import save_plotly_graph_object

    from hawsweep.views.figures import (
        learning_curves,
        memory_predicted_against_measured,
        score_against_loss,
    )

    storage = storage_of(study)
    known = storage.get_study_system_attrs(study_id(study))
    for draw in (
        learning_curves,
        score_against_loss,
        memory_predicted_against_measured,
    ):
        figure, graph_id = draw(study), draw.__name__.replace("_", "-")
        # The dashboard's cards are narrow, without room beside the title.
        figure.update_layout(legend={"x": 0, "xanchor": "left", "y": -0.2, "yanchor": "top"})
        digest = hashlib.sha256(figure.to_json().encode()).hexdigest()
        if known.get(f"{_MARK}{graph_id}") != digest:
            save_plotly_graph_object(study, figure, graph_object_id=graph_id)
            storage.set_study_system_attr(study_id(study), f"{_MARK}{graph_id}", digest)


@contextmanager
def refreshed(look: Callable[[], None], interval_s: float = _INTERVAL_S) -> Iterator[None]:
    """Update repeatedly in a thread while the block runs."""
    end = threading.Event()
    told: set[str] = set()

    def watch() -> None:
        while not end.is_set():
            started = time.monotonic()
            try:
                look()
            except Exception as fault:  # a fault must not stop the server
                what = type(fault).__name__  # its text could hold a storage's password
                if what not in told:
                    told.add(what)
                    logger.warning("Notes and plots are not up to date: %s", what)
            end.wait(max(interval_s, _REST * (time.monotonic() - started)))

    thread = threading.Thread(target=watch, daemon=True, name="refresh")
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join(_ENDING_S)
