"""The worker, which runs trials: it keeps a model loaded and obeys the supervisor's commands, one
at a time.

Started as ``python -m hawsweep.running.worker``; with the argument ``ahead`` it is a spare one,
which imports its libraries before it waits. The first line on its standard input is the setting
(JSON), each further one a command; every line on its standard output is an event (JSON). The output
of libraries goes to a log file, which can be read after a death: the worker's own, and during a
trial the trial's ``log.txt``.
"""

import faulthandler
import importlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import optuna
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from hawsweep.data.leaks import find_leaks
from hawsweep.data.load import load_data
from hawsweep.data.prompt_file import read_retention
from hawsweep.data.tokens import encode_prompt
from hawsweep.data.validation_set import shared_records
from hawsweep.errors import HawsweepError, MemoryBudgetError, TravelError
from hawsweep.layout import LOG_FILE
from hawsweep.machine import backend
from hawsweep.machine.memory import available_bytes
from hawsweep.machine.output import log_to, make_output_visible, print_to, print_traceback
from hawsweep.machine.processes import identity
from hawsweep.machine.without_torch import keep_torch_out, keep_trackers_out
from hawsweep.models import resolve
from hawsweep.models.load import load_model, load_template
from hawsweep.planning.calibration import cost_model
from hawsweep.planning.peak import arrays_budget
from hawsweep.planning.workload import save_lengths
from hawsweep.results.leaderboard import trial_row
from hawsweep.running.open_test import open_test
from hawsweep.scoring.embedder_process import EmbedderClient
from hawsweep.scoring.score import Scorer
from hawsweep.spec.sweep import SweepSpec, keep_count
from hawsweep.study.attributes import (
    CONFIRMS,
    MEMORY_FACTOR,
    PATHS,
    PLAN,
    SEED,
    SMALLEST_VIOLATION,
    TIME_S,
    WORKER,
)
from hawsweep.study.baselines import (
    base_dir,
    keep_base,
    unmeasured,
)
from hawsweep.study.confirm import load_confirmation
from hawsweep.study.faults import (
    ENDED_BY_SIGTERM,
    FROM_OUTSIDE,
    INTERRUPTED,
    TAINTING,
    WANTS_SUCCESSOR,
    Fault,
    of_exception,
)
from hawsweep.study.leases import leased
from hawsweep.study.located import located
from hawsweep.study.optuna_door import trial_to_run
from hawsweep.study.patience import while_waiting
from hawsweep.study.place import Place
from hawsweep.study.presence import Presence
from hawsweep.study.queue import end_failed, pause
from hawsweep.study.storage import (
    disk_fault,
    is_storage_fault,
    open_storage,
    storage_faults_told,
)
from hawsweep.study.study import check_tokens, date_of, load_study
from hawsweep.study.travel import fetch, put
from hawsweep.study.trials import repeated_by
from hawsweep.training.train import Interrupted
from hawsweep.trial.context import TrialContext, make_context
from hawsweep.trial.measure_base import measure_base
from hawsweep.trial.prompts import untried
from hawsweep.trial.run import Paused, end_infeasible, run_trial

# Modules that are otherwise imported at their first use, which takes seconds: a spare worker
# imports them ahead.
_PUT_OFF = (
    "alembic.command",  # opens a study
    "mlx_lm",  # loads a model
    "scipy.optimize",  # fits a memory model
    "transformers.models.llama.configuration_llama",  # loads a tokenizer
)
_SIGN_OF_LIFE_S = 5.0


class Worker:
    """One worker: a bench, a study, and a channel to the supervisor."""

    def __init__(self, setting: dict[str, Any], events: TextIO) -> None:
        self._events = events
        self._parent = os.getppid()
        self._identity = {**identity(), "parent": setting["supervisor"]}
        self._stop = False
        self._told = 0.0
        self._lost = threading.Event()
        self.is_tainted = False
        self.name: str = setting["study"]
        self.spec = SweepSpec.model_validate(setting["spec"])
        self.place = Place(Path(setting["studies_dir"]), setting["storage_url"])
        self._process_bytes: float | None = setting.get("budget_bytes")
        # Models that do not fit into memory: why, and by how many GB.
        self.left_out: dict[str, tuple[str, float]] = setting.get("left_out", {})
        self._paths: dict[str, str] = setting.get("paths", {})
        self._model: str | None = None
        self._embedder: dict[str, str] | None = setting.get("embedder")
        self._rest_s: float = setting.get("rest_s", 0.0)

    def tell(self, kind: str, **values: Any) -> None:
        """Send an event."""
        self._told = time.monotonic()
        try:
            self._events.write(json.dumps({"event": kind, **values}) + "\n")
            self._events.flush()
        except BrokenPipeError:  # the supervisor is gone; the trial ends after its iteration
            self._stop = True

    def show_life(self) -> None:
        """Send a sign of life now and then, if no other event is sent."""
        if time.monotonic() - self._told > _SIGN_OF_LIFE_S:
            self.tell("alive")

    def stop(self, *_: object) -> None:
        """Ask the running trial to end after its current iteration; later commands are ignored."""
        self._stop = True

    def waits(self) -> None:
        """Show life while the database does not answer, and end if it is asked to."""
        self.show_life()
        if self.should_stop():
            raise Interrupted

    def should_stop(self) -> bool:
        """Whether the trial must end: it was asked to, or the supervisor is gone."""
        return self._stop or os.getppid() != self._parent

    def prepare(self) -> None:
        """Load the data and the first model."""
        self.tell("begun", identity=self._identity)
        self._rest()
        backend.wire_memory(self._process_bytes or available_bytes())
        backend.limit_cache(0)
        self._progress("reading the data")
        self.storage: BaseStorage = open_storage(self.place, patient=True)
        self._presence = Presence(self.place, self.name)
        # The study is kept: reading takes about a second for each thousand trials.
        self._study = load_study(self.storage, self.name, self.spec)
        splits = self.splits = load_data(self._located(self.spec).data, self._progress)
        kept = self._located(self.spec).retention
        self._questions = [] if kept is None else read_retention(kept)
        folder = splits.folder or self.place.study_dir(self.name) / "data"
        if splits.folder is None and not folder.exists():
            splits.write(folder)
        self._mlx_data_dir = folder
        self._scorer = Scorer(
            resolve.resolve_embedder(self.spec.scoring.embedder, self._progress),
            self.spec.scoring,
            trust_remote_code=self.spec.trust_remote_code,
            encode=self._embedder_client(),
        )
        self._valid_records = self._share_records() if self.spec.searches_models else None
        self._progress("loading the model")
        self.use(next(each for each in self.spec.models if each not in self.left_out))
        train = self.context.train
        self.tell(
            "ready",
            n_train=len(self.context.workload(with_variants=False).lengths),
            n_valid=len(self.context.valid),
            n_truncated=train.n_truncated,
            n_dropped=train.n_dropped,
            n_empty=train.n_empty,
            warnings=[
                *self.context.loaded.template.repairs,
                *train.warnings,
                *untried(
                    self.spec,
                    self.context.loaded,
                    self.context.prompts,
                    self.context.valid_prompts,
                ),
            ],
        )

    def _rest(self) -> None:
        """Wait until the display is likelier to sleep, see ``failures.rest_s``."""
        if self._rest_s:
            self._progress(f"waiting {self._rest_s:.0f} s, since the display may fall asleep")
        until = time.monotonic() + self._rest_s
        while (left_s := until - time.monotonic()) > 0:
            time.sleep(min(1.0, left_s))
            self.waits()

    def _embedder_client(self) -> EmbedderClient | None:
        if self._embedder is None:
            return None

        need = partial(self.tell, "embedder")
        return EmbedderClient(**self._embedder, need=need, waiting=self.waits)

    def _progress(self, text: str) -> None:
        self.tell("preparing", text=text)

    def _located(self, spec: SweepSpec) -> SweepSpec:
        paths = {**self._study.user_attrs.get(PATHS, {}), **self._paths}
        return located(spec, paths, self.place)

    def _folder_of(self, model: str) -> Path:
        found = self._located(self.spec.of_model(model)).model
        return resolve.resolve_model(found, self._progress)

    def _share_records(self) -> list[int]:
        templates = {}
        for model in self.spec.models:
            path = self._folder_of(model)
            templates[model] = load_template(
                path, trust_remote_code=self.spec.trust_remote_code, today=date_of(self._study)
            )
        return shared_records(self.spec, self.splits, templates)

    def use(self, model: str) -> None:
        """Make ``context`` the bench for this model; the memory of another model is freed first.

        Raises:
            MemoryBudgetError: It does not fit.
        """
        if model == self._model:
            return
        if model in self.left_out:
            raise MemoryBudgetError(self.left_out[model][0])
        if self._model is not None:
            self.tell("loading", model=model)
            self._model = None
            del self.context
            backend.free_memory()
        spec = self.spec.of_model(model)
        path = self._folder_of(model)
        self.memory = cost_model(path)
        budget_bytes = None
        if self.memory is not None and self._process_bytes is not None:
            budget_bytes = arrays_budget(self._process_bytes, self.memory.coefficients)
            backend.limit_memory(budget_bytes)
        today = date_of(self._study)
        loaded = load_model(path, trust_remote_code=spec.trust_remote_code, today=today)
        check_tokens(self._study, differs=loaded.template.differs)
        self.context: TrialContext = make_context(
            spec,
            loaded,
            self.splits,
            self._scorer,
            self._mlx_data_dir,
            self.base_dir(model),
            self.memory,
            budget_bytes,
            self._valid_records,
        )
        self.context.should_stop = lambda: self.should_stop() or self._lost.is_set()
        self.context.on_batch = self.show_life
        for question in self._questions:  # one refused after the night would cost the night
            encode_prompt(question, loaded.template)
        work = self.context.workload(with_variants=False)
        save_lengths(spec, self.splits.fingerprint()["train"], work)
        self._model = model

    def base_dir(self, model: str) -> Path:
        """The folder of an untuned model's answers."""
        several = model if self.spec.searches_models else ""
        return base_dir(self.place, self.name, several)

    def base(self) -> None:
        """Measure an untuned model, and store the result in the study."""
        study = self._study
        missing = unmeasured(study, self.spec, self.left_out)
        model = missing[0] if missing and self._model not in missing else self._model
        assert model is not None
        self.use(model)
        self.tell("base_start")
        measured = measure_base(self.context, self.base_dir(model), find_leaks(self.splits))
        keep_base(study, self.spec, model, measured, self.left_out)
        about = {"model": model} if self.spec.searches_models else {}
        self.tell("base_end", **about, **measured)

    def trial(self, number: int) -> None:
        """Run a trial of the study; the study has its settings."""
        self._run(self._study, "trial", number)

    def confirm(self, number: int) -> None:
        """Run one of the confirming runs."""
        study = load_confirmation(self.storage, self.name, self.spec)
        self._run(study, "confirm", number)

    def _run(self, study: optuna.Study, kind: str, number: int) -> None:
        self._lost = lost = threading.Event()  # of this trial: a late call is no other's
        with leased(study, number, lost.set):
            self._run_held(study, kind, number)

    def _run_held(self, study: optuna.Study, kind: str, number: int) -> None:
        trial = trial_to_run(study, number)
        about = {"number": trial.number, "settings": trial.params}
        about |= {key: trial.user_attrs.get(key) for key in (CONFIRMS, SEED)}
        self.tell(f"{kind}_start", **about)
        folder = self.place.folder_of(study.study_name, number)
        trials = study.get_trials(deepcopy=False)
        for each in (number, *repeated_by(trials[number], trials)):
            # It goes on, perhaps from what another machine has.
            self._travel(partial(fetch, study, self.place, trials[each]))
        folder.mkdir(parents=True, exist_ok=True)
        fault, from_outside = None, False
        started = time.monotonic() - trial.user_attrs.get(TIME_S, 0.0)  # until it paused
        with log_to(folder / LOG_FILE):
            try:
                # Another machine may have taken the same trial.
                if trial.user_attrs.get(WORKER) != self._identity:
                    trial.set_user_attr(WORKER, self._identity)
                value, state = self._value_of(study, trial, folder)
                trial.set_user_attr(TIME_S, round(time.monotonic() - started, 3))
                self._put(study, number, is_pruned=state == TrialState.PRUNED)
                if state == TrialState.WAITING:
                    pause(study, trial.number)
                else:
                    study.tell(trial, value, state=state)
            except optuna.exceptions.UpdateFinishedTrialError:
                from_outside = True  # for instance in the dashboard
            except Interrupted:
                try:
                    trial.set_user_attr(TIME_S, round(time.monotonic() - started, 3))
                    fault = INTERRUPTED
                except optuna.exceptions.UpdateFinishedTrialError:
                    from_outside = True  # another one has its settings
            except Exception as error:
                self._presence.check()
                if is_storage_fault(error):
                    raise  # not the trial's fault; its state is on disk
                fault = of_exception(error)  # which ends this trial only
                print_traceback(error)
        if fault is not None and not self._end(study, number, fault):
            from_outside = True
            # The state of this process, and the disk, are what they are.
            fault = fault if fault.kind in (*TAINTING, "disk") else None
        if fault is not None and fault.kind == "disk":
            raise disk_fault(self.place)
        self.is_tainted = fault is not None and fault.kind in TAINTING
        if not self.is_tainted:
            backend.free_memory()  # what the next trial needs has other sizes
        ended = study.get_trials(deepcopy=False)[trial.number]
        row = trial_row(ended)
        self.tell(
            f"{kind}_end",
            **about,
            state=row.state,
            reason=FROM_OUTSIDE if from_outside else row.reason,
            fault=None if fault is None else fault.kind,
            val_loss=row.val_loss,
            score=row.score,
            time_s=row.time_s,
            peak_memory_bytes=row.peak_memory_bytes,
            predicted_memory_bytes=(ended.user_attrs.get(PLAN) or {}).get("peak_bytes"),
        )

    def _end(self, study: optuna.Study, number: int, fault: Fault) -> bool:
        """End a trial by its fault; False where it was ended elsewhere meanwhile."""
        if study.get_trials(deepcopy=False)[number].state != TrialState.RUNNING:
            return False
        with suppress(optuna.exceptions.UpdateFinishedTrialError):
            self._put(study, number)
        return end_failed(study, number, fault) is not None

    def _put(self, study: optuna.Study, number: int, *, is_pruned: bool = False) -> None:
        """Put a trial's files into the study's store, the large ones where they are kept."""
        if os.getppid() == self._parent:  # else there is no time: the trial goes on here
            bulk = not is_pruned or keep_count(self.spec.keep) is None
            self._travel(partial(put, study, self.place, number, bulk=bulk))

    def _travel(self, do: Callable[..., object]) -> None:
        """Put or fetch files. If the store cannot be used the sweep goes on without."""
        try:
            do(waiting=self.is_patient)
        except TravelError as fault:
            self.tell("not_told", text=str(fault).removesuffix("."))

    def is_patient(self) -> bool:
        """Whether to wait on; shows life."""
        self.show_life()
        return not self.should_stop()

    def _value_of(
        self, study: optuna.Study, trial: optuna.Trial, folder: Path
    ) -> tuple[float | None, TrialState]:
        model = self.spec.model_of(trial.params)
        try:
            if model in self.left_out:
                reason, short = self.left_out[model]
                end_infeasible(trial, max(short, SMALLEST_VIOLATION), reason)
            self.use(model)
            self._make_room(study)
            return run_trial(self.context, trial, folder, self.tell), TrialState.COMPLETE
        except optuna.TrialPruned:
            return None, TrialState.PRUNED
        except Paused:
            return None, TrialState.WAITING

    def test(self) -> None:
        """Open the test split for the best trial and the base, and see what the trial keeps."""
        open_test(self, self._study, self._questions)

    def _make_room(self, study: optuna.Study) -> None:
        """Raise the predicted memory after a trial that ran out."""
        factor = study.user_attrs.get(MEMORY_FACTOR, 1.0)
        if self.memory is not None and factor != 1.0:
            scaled = self.memory.coefficients.scaled(factor)
            self.context.memory = replace(self.memory, coefficients=scaled)


def import_ahead() -> None:
    """Import the modules that would be imported at their first use."""
    for name in _PUT_OFF:
        with suppress(ImportError):  # the first use will report it
            importlib.import_module(name)


def main() -> None:
    """Follow the supervisor's commands until it says ``exit`` or is gone."""
    keep_torch_out()
    keep_trackers_out()
    if len(sys.argv) > 1:
        import_ahead()
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # the output of libraries is no event
    make_output_visible()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    first = sys.stdin.readline()
    if not first:
        return  # it is not needed, or the supervisor is gone
    setting = json.loads(first)
    print_to(Path(setting["log"]))
    os.nice(setting["nice"])
    worker = Worker(setting, events)
    faulthandler.enable(all_threads=False)  # says where it was when it dies by a signal
    signal.signal(signal.SIGTERM, worker.stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor decides
    commands: dict[str, Callable[..., None]] = {
        "base": worker.base,
        "trial": worker.trial,
        "confirm": worker.confirm,
        "test": worker.test,
    }
    try:
        with storage_faults_told(worker.place), while_waiting(worker.waits):
            worker.prepare()
            for command in map(str.strip, sys.stdin):
                if command == "exit":
                    break
                name, *numbers = command.split()
                commands[name](*map(int, numbers))
                if worker.should_stop():
                    raise Interrupted
                if worker.is_tainted:
                    sys.exit(WANTS_SUCCESSOR)
    except Interrupted:
        sys.exit(ENDED_BY_SIGTERM)
    except HawsweepError as fault:  # outside of a trial it ends the sweep
        cause = fault.__cause__
        if isinstance(cause, RuntimeError) and of_exception(cause).kind in TAINTING:
            print_traceback(fault)  # the GPU's: another process may not meet it
            sys.exit(1)
        worker.tell("fatal", error=type(fault).__name__, message=str(fault))
        sys.exit(1)


if __name__ == "__main__":
    main()
