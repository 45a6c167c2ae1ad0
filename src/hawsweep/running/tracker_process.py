"""A tracker's process: it logs a sweep's runs to trackio, W&B or MLflow.

Started as ``python -m hawsweep.running.tracker_process NAME``. Each line on its standard input is a
call (JSON); a line on its standard output answers it: empty, or the fault (JSON). What the library
prints goes to its standard error. Addresses and keys are those that the library finds in the
environment.
"""

import importlib
import json
import os
import re
import sys
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hawsweep.machine.output import make_output_visible, print_traceback

_PROJECT = "hawsweep"
_LONGEST = 300
# Of W&B.
_SENDS_NO_SURROUNDINGS = {
    "host": "hawsweep",
    "x_disable_meta": True,
    "x_save_requirements": False,
    "disable_git": True,
    "disable_code": True,
    "save_code": False,
}


@dataclass(frozen=True)
class Run:
    """A run, which may have begun in an earlier process.

    Attributes:
        id: The same in each of them.
        is_known: Whether it has begun earlier.
        group: The study; its own run has that name.
    """

    name: str
    id: str
    group: str
    config: Mapping[str, Any]
    is_known: bool


class LikeWandb:
    """W&B, or trackio, which has the same interface."""

    def __init__(self, name: str) -> None:
        self._library = importlib.import_module(name)
        self._is_wandb = name == "wandb"
        self._project = os.environ.get(f"{name.upper()}_PROJECT", _PROJECT)

    def begin(self, run: Run) -> Any:
        """Begin a run, or go on with it; give what the other calls need. Several are open."""
        about: dict[str, Any] = {"project": self._project, "config": dict(run.config)}
        about |= {"name": run.name, "group": run.group}
        # Their figures of the machine would be those of this process, which does not train. Host,
        # folder, packages and code are not theirs to send.
        if self._is_wandb:
            quiet = self._library.Settings(
                console="off", x_disable_stats=True, **_SENDS_NO_SURROUNDINGS
            )
            again = {"id": run.id, "resume": "allow", "reinit": "create_new"}
            return self._library.init(**about, **again, settings=quiet)
        # trackio finds the newest run of that name.
        resume = "allow" if run.is_known else "never"
        return self._library.init(**about, resume=resume, auto_log_gpu=False, auto_log_cpu=False)

    def log(self, opened: Any, values: Mapping[str, float], step: int) -> None:
        """Log values of one iteration."""
        opened.log(dict(values), step=step)

    def end(self, opened: Any, state: str, text: str, results: Mapping[str, float]) -> None:
        """End a run, which may go on later.

        Args:
            results: What was logged last. W&B ignores it at an iteration that an earlier process
                has logged, but not in the summary.
            state: Of its trial; ``stopped`` if that is not known.
            text: What the group's run has to show, or nothing.
        """
        if self._is_wandb:
            opened.summary.update(dict(results))
        if text and self._is_wandb:
            opened.notes = text
        elif text:
            opened.log({"verdict": self._library.Markdown(text)})
        opened.finish(**({"exit_code": int(state == "fail")} if self._is_wandb else {}))


class MLflow:
    """MLflow: the study is an experiment's run, and its trials are nested in it."""

    def __init__(self) -> None:
        # With its own values a server that is away is waited for during minutes, at each call.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        from mlflow import MlflowClient

        self._client = MlflowClient()
        self._experiment, self._parents = "", dict[str, str]()

    def begin(self, run: Run) -> Any:
        """As of ``LikeWandb``."""
        from mlflow.entities import Param

        if not self._experiment:
            self._experiment = self._find_experiment()
        where = f"tags.`hawsweep.run` = '{run.id}'"
        known = self._client.search_runs([self._experiment], where, max_results=1)
        if known:
            opened: str = known[0].info.run_id
            self._client.update_run(opened, status="RUNNING")
        else:
            tags = {"hawsweep.run": run.id, "hawsweep.study": run.group}
            if parent := self._parents.get(run.group):
                tags["mlflow.parentRunId"] = parent
            made = self._client.create_run(self._experiment, tags=tags, run_name=run.name)
            opened = made.info.run_id
            params = [Param(key, str(value)) for key, value in run.config.items()]
            self._client.log_batch(opened, params=params)
        if run.name == run.group:
            self._parents[run.name] = opened
        return opened

    def _find_experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        known = self._client.get_experiment_by_name(name)
        return str(known.experiment_id if known else self._client.create_experiment(name))

    def log(self, opened: Any, values: Mapping[str, float], step: int) -> None:
        """As of ``LikeWandb``."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(key, value, now, step) for key, value in values.items()]
        self._client.log_batch(opened, metrics)

    def end(self, opened: Any, state: str, text: str, results: Mapping[str, float]) -> None:
        """As of ``LikeWandb``."""
        if text:
            self._client.set_tag(opened, "mlflow.note.content", text)
        ends = {"fail": "FAILED", "paused": "SCHEDULED", "stopped": "KILLED"}
        self._client.set_terminated(opened, ends.get(state, "FINISHED"))


class Runs:
    """The runs of a sweep in one tracker. No iteration is logged twice: the file ``NAME.json`` in a
    run's folder has the last one of each value, which also a later process reads.
    """

    def __init__(self, name: str, tracker: LikeWandb | MLflow) -> None:
        self._name, self._tracker = name, tracker
        self._runs: dict[str, tuple[Run, Path]] = {}
        self._opened: dict[str, Any] = {}
        self._steps: dict[str, dict[str, int]] = {}

    def do(self, call: Mapping[str, Any]) -> None:
        """Do what a line asks for; see ``report_to``."""
        name = call["run"]
        if call["do"] == "begin":
            path = Path(call["folder"]) / f"{self._name}.json"
            known = _steps(path, call["id"])
            if known is None and name in self._runs and self._runs[name][0].id == call["id"]:
                known = self._steps[name]  # of a trial on another machine, without a folder here
            run = Run(name, call["id"], call["group"], call["config"], known is not None)
            self._runs[name], self._steps[name] = (run, path), known or {}
            self._open(name)
            self._keep(name, self._steps[name])
        elif call["do"] == "log":
            self._log(name, call["values"], call["step"])
        else:
            last, results = max(self._steps[name].values(), default=0), call["values"]
            # Those of an earlier end, at the same iteration, no longer hold.
            self._steps[name] = {k: n for k, n in self._steps[name].items() if k not in results}
            self._log(name, results, last)
            self._tracker.end(self._open(name), call["state"], call.get("text", ""), results)
            del self._opened[name]

    def close(self) -> None:
        """End what is open."""
        for opened in self._opened.values():
            self._tracker.end(opened, "stopped", "", {})

    def _open(self, name: str) -> Any:
        """Also a run that could not be opened when it began."""
        run, _ = self._runs[name]
        if name != run.group:
            self._open(run.group)
        if name not in self._opened:
            self._opened[name] = self._tracker.begin(run)
        return self._opened[name]

    def _log(self, name: str, values: Mapping[str, float], step: int) -> None:
        known = self._steps[name]
        new = {key: value for key, value in values.items() if step > known.get(key, -1)}
        if not new:
            return
        self._tracker.log(self._open(name), new, step)
        self._keep(name, {**known, **dict.fromkeys(new, step)})

    def _keep(self, name: str, steps: Mapping[str, int]) -> None:
        run, path = self._runs[name]
        self._steps[name] = dict(steps)
        with suppress(OSError):  # its folder is gone
            path.write_text(json.dumps({"id": run.id, "steps": steps}), encoding="utf-8")


def _steps(path: Path, run_id: str) -> dict[str, int] | None:
    """The last iteration of each value of a run; None if the run is new."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["id"] == run_id:  # else left from an earlier study of that name
            return dict(content["steps"])
    return None


def main() -> None:
    """Answer calls until the standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # the output of libraries is no answer
    make_output_visible()
    name, runs, warned = sys.argv[1], None, _noted_warnings()
    for line in sys.stdin:
        fault = ""
        try:
            if runs is None:
                runs = Runs(name, MLflow() if name == "mlflow" else LikeWandb(name))
            runs.do(json.loads(line))
        except Exception as error:  # of any library
            print_traceback(error)
            fault = _told(error)
        while warned:
            fault = warned.pop() or fault
        print(json.dumps(fault), file=answers, flush=True)
    if runs is not None:
        runs.close()


def _noted_warnings() -> list[str]:
    """A list that gets trackio's warnings from now on: it raises nothing, also where nothing can be
    written.
    """
    noted: list[str] = []
    show = warnings.showwarning

    def note(message: Warning | str, *about: Any) -> None:
        if str(message).startswith("trackio"):
            noted.append(" ".join(str(message).split())[:_LONGEST])
        show(message, *about)

    warnings.showwarning = note  # type: ignore[assignment]  # which gets them by position
    return noted


def _told(fault: Exception) -> str:
    """A fault in a line, without the user and password of an address."""
    line = " ".join(str(fault).split())[:_LONGEST]
    return re.sub(r"://[^/@\s]*@", "://", f"{type(fault).__name__}: {line}".rstrip(": "))


if __name__ == "__main__":
    main()
