"""What the dashboard shows beside Optuna's own pages, brought up to date while it is served.

Plots are drawn here and not when a trial ends, so that a sweep pays nothing for them; notes and
links that an older version, or a machine without the files, did not write are added.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from hawsweep.annotations import annotate_study
from hawsweep.errors import StudyError
from hawsweep.processes import supervisor_of
from hawsweep.study import CONFIRM_SUFFIX, Place, load_study

logger = logging.getLogger(__name__)

_INTERVAL_S = 5.0
_ENDING_S = 3.0


class Refresher:
    """Looks at all studies of hawsweep's, and brings those up to date that changed since."""

    def __init__(self, storage: RDBStorage, place: Place) -> None:
        self._storage, self._place = storage, place
        self._seen: dict[str, Any] = {}

    def look(self) -> None:
        """Once. What cannot be read or written is told of and left."""
        for study in self._storage.get_all_studies():
            name = study.study_name
            if "spec" not in study.user_attrs and not name.endswith(CONFIRM_SUFFIX):
                continue  # another program's
            with suppress(StudyError):  # of a name that no folder can have
                self._refresh(load_study(self._storage, name))

    def _refresh(self, opened: optuna.Study) -> None:
        name = opened.study_name
        trials = opened.get_trials(deepcopy=False)
        folder = self._place.study_dir(name.removesuffix(CONFIRM_SUFFIX))
        is_running = any(trial.state == TrialState.RUNNING for trial in trials)
        ended = not is_running and supervisor_of(folder) is None
        now = [
            opened._study_id,
            [trial.state.value for trial in trials],
            sum(len(trial.intermediate_values) for trial in trials),
            [opened.user_attrs.get(key) for key in ("base", "test", "confirm")],
            ended,
        ]
        if self._seen.get(name) != now:
            annotate_study(opened, self._place, ended=ended)
            if not name.endswith(CONFIRM_SUFFIX):
                save_plots(opened)
            self._seen[name] = now


def save_plots(opened: optuna.Study) -> None:
    """Draw a study's plots, and keep those that changed where the dashboard looks for them."""
    from optuna_dashboard import save_plotly_graph_object
    from optuna_dashboard._custom_plot_data import get_plotly_graph_objects

    from hawsweep import figures

    known = get_plotly_graph_objects(opened._storage.get_study_system_attrs(opened._study_id))
    for draw in (
        figures.learning_curves,
        figures.score_against_loss,
        figures.memory_predicted_against_measured,
    ):
        figure, graph_id = draw(opened), draw.__name__.replace("_", "-")
        if known.get(graph_id) != figure.to_json():
            save_plotly_graph_object(opened, figure, graph_object_id=graph_id)


@contextmanager
def refreshed(look: Callable[[], None], interval_s: float = _INTERVAL_S) -> Iterator[None]:
    """Look again and again, in a thread of its own, while the block runs."""
    end = threading.Event()
    told: set[str] = set()

    def watch() -> None:
        while not end.is_set():
            try:
                look()
            except Exception as fault:  # whatever it is, the pages are served all the same
                what = type(fault).__name__  # its words could hold a storage's password
                if what not in told:
                    told.add(what)
                    logger.warning("Notes and plots are not brought up to date: %s", what)
            end.wait(interval_s)

    thread = threading.Thread(target=watch, daemon=True, name="refresh")
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join(_ENDING_S)
