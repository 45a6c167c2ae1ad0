"""Runs in trackers (trackio, W&B, MLflow): one for each trial, written by a sweep's events.

Each tracker has a process, ``tracker_process``: what its library prints, asks for and waits for
harms no trial.
"""

import hashlib
import json
import queue
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna

from hawsweep.errors import HawsweepError
from hawsweep.machine.children import child_command, child_environment, start_child, tell_child
from hawsweep.results.verdict import judge_study
from hawsweep.running.events import Event, Listener
from hawsweep.spec.sweep import SweepSpec
from hawsweep.study.attributes import REPORT_ID
from hawsweep.study.place import Place

_LAST_WAIT_S = 30.0
_COMMAND = child_command("-m", "hawsweep.running.tracker_process")
# What is logged of an event while a trial trains, and when it has ended.
_LOGGED = {"train": ("train_loss", "tokens_per_s"), "eval": ("val_loss",)}


class _Tracker(threading.Thread):
    """Passes calls to a tracker's process until it gets None; reports only the first fault."""

    def __init__(self, label: str, log: Path, faults: "queue.SimpleQueue[str]") -> None:
        super().__init__(daemon=True)
        self.label, self._log, self._faults = label, log, faults
        self.calls: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._process = start_child([*_COMMAND, label], log, child_environment())
        self.start()

    def run(self) -> None:
        has_failed = False
        while (call := self.calls.get()) is not None:
            fault = self._do(call)
            if fault and not has_failed:
                has_failed = True
                self._faults.put(f"{self.label} did not log: {fault} ({self._log} has more)")
        self._process.communicate()  # closes its standard input: it ends its runs

    def _do(self, call: dict[str, Any]) -> str:
        assert self._process.stdout is not None
        tell_child(self._process, json.dumps(call))
        answer = self._process.stdout.readline()
        return json.loads(answer) if answer else "its process ended"

    def kill(self) -> None:
        """End its process, whatever it does."""
        self._process.kill()


class Reporter:
    """Passes a sweep's events on, and logs them to trackers. A process for each does the work, so
    the sweep does not wait.

    Args:
        listen: Gets the events, and one of kind ``not_told`` where a tracker failed.
        joins: Another process runs the study, too, and logs its verdict.
    """

    def __init__(
        self, spec: SweepSpec, study: optuna.Study, place: Place, listen: Listener, *, joins: bool
    ) -> None:
        self._study, self._place, self._listen, self._joins = study, place, listen, joins
        if REPORT_ID not in study.user_attrs:
            study.set_user_attr(REPORT_ID, uuid.uuid4().hex)
        self._id = study.user_attrs[REPORT_ID]
        self._name, self._runs = study.study_name, dict[tuple[str, int], str]()
        self._faults: queue.SimpleQueue[str] = queue.SimpleQueue()
        folder = place.study_dir(self._name)
        self._trackers = [
            _Tracker(each, folder / f"{each}.log", self._faults) for each in spec.report_to
        ]
        config = {"model": ", ".join(spec.models), "description": spec.description}
        self._begin(self._name, config, folder)

    def __call__(self, event: Event) -> None:
        """Pass an event on, and log it."""
        self._listen(event)
        kind, values, who = event.kind, event.values, (event.host, event.worker)
        run = self._runs.get(who)
        if kind in ("trial_start", "confirm_start"):
            self._on_start(event)
        elif kind in _LOGGED and run is not None:
            logged = {key: values[key] for key in _LOGGED[kind]}
            self._call("log", run, step=values["iteration"], values=logged)
        elif kind in ("trial_end", "confirm_end") and run is not None:
            del self._runs[who]
            self._call("end", run, state=values["state"], values=_results(values))
        elif kind == "base_end" and "model" not in values:
            base = {"base_score": values["base"]["score"], "base_loss": values["base"]["val_loss"]}
            self._call("log", self._name, step=0, values=base)
        elif kind == "ended" and not self._joins:
            text = _verdict_of(self._study, self._place)
            self._call("end", self._name, state="complete", values={}, text=text)
        self._pass_faults()

    def close(self) -> None:
        """Wait until all is logged, for half a minute at most."""
        deadline = time.monotonic() + _LAST_WAIT_S
        for tracker in self._trackers:
            tracker.calls.put(None)
        for tracker in self._trackers:
            tracker.join(max(0.0, deadline - time.monotonic()))
            if tracker.is_alive():
                tracker.kill()
                self._faults.put(f"{tracker.label} did not take the last values in time")
        self._pass_faults()

    def _pass_faults(self) -> None:
        while not self._faults.empty():
            self._listen(Event("not_told", values={"text": self._faults.get()}))

    def _on_start(self, event: Event) -> None:
        number, original = event.values["number"], event.values.get("confirms")
        name, folder = f"{self._name}-trial-{number}", self._place.trial_dir(self._name, number)
        if original is not None:
            name = f"{self._name}-trial-{original}-seed-{event.values['seed']}"
            folder = self._place.confirm_dir(self._name, number)
        self._runs[event.host, event.worker] = name
        self._begin(name, event.values["settings"], folder)

    def _begin(self, run: str, config: dict[str, Any], folder: Path) -> None:
        # Another study of this name, elsewhere or later, has other runs.
        key = hashlib.sha256(f"{self._id} {run}".encode()).hexdigest()[:16]
        self._call("begin", run, id=key, group=self._name, config=config, folder=str(folder))

    def _call(self, what: str, run: str, **values: Any) -> None:
        for tracker in self._trackers:
            tracker.calls.put({"do": what, "run": run, **values})


def _verdict_of(study: optuna.Study, place: Place) -> str:
    with suppress(HawsweepError):  # the start itself reports a damaged file
        verdict = judge_study(study, place)
        return "" if verdict is None else "\n\n".join(verdict.sentences)
    return ""


def _results(values: dict[str, Any]) -> dict[str, float]:
    """What is logged of a trial that ended; a value it has not reached is left out."""
    found = {key: values.get(key) for key in ("score", "time_s")}
    found["best_val_loss"] = values.get("val_loss")
    for key in ("peak_memory", "predicted_memory"):
        n_bytes = values.get(f"{key}_bytes")
        found[f"{key}_gb"] = None if n_bytes is None else n_bytes / 1e9
    return {key: value for key, value in found.items() if value is not None}


@contextmanager
def reporting(
    spec: SweepSpec, study: optuna.Study, place: Place, listen: Listener, *, joins: bool
) -> Iterator[Listener]:
    """Give a listener that also logs to the trackers in ``spec.report_to``."""
    if not spec.report_to:
        yield listen
        return
    reporter = Reporter(spec, study, place, listen, joins=joins)
    try:
        yield reporter
    finally:
        reporter.close()
