"""The process that watches workers: hands out work, survives their deaths, stops when asked."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import optuna

from hawsweep import calibration, confirm, data, errors, memory, models, space, study, sweepplan
from hawsweep.errors import (
    HawsweepError,
    MemoryBudgetError,
    StudyError,
    WorkerError,
    is_out_of_memory,
)
from hawsweep.peak import arrays_budget
from hawsweep.shapes import read_config
from hawsweep.spec import SweepSpec

MAX_FAILURES_IN_A_ROW = 3
MAX_INFEASIBLE_IN_A_ROW = 50
_GRACE_S = 60.0
_POLL_S = 0.25


@dataclass(frozen=True)
class Event:
    """Something that happened to ``worker``; what ``values`` hold depends on ``kind``."""

    kind: str
    worker: int = 0
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How a start ended, and the study it left."""

    ended: Literal["finished", "timeout", "interrupted"]
    study: optuna.Study
    spec: SweepSpec


Listener = Callable[[Event], None]


def run_sweep(spec: SweepSpec, name: str, place: study.Place, listen: Listener) -> Outcome:
    """Start a study, or go on with it, until ``spec.trials`` trials are complete or pruned.

    Args:
        name: The study's name, also of its folder.
        listen: Is told of every event, and with kind ``tick`` several times a second.

    Raises:
        HawsweepError: Something is wrong that another trial would not mend. What was finished is
            kept.
    """
    check_name(name)
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # events say it better

    def preparing(text: str) -> None:
        listen(Event("preparing", values={"text": text}))

    # What is read in a moment comes before a model is converted and measured.
    splits = data.load_data(spec.data, preparing)
    storage = study.open_storage(place, create=True)
    models.resolve_embedder(spec.scoring.embedder, preparing)
    model_path = models.resolve_model(spec.model, preparing)
    n_workers, worker_bytes = _share_memory(spec, model_path, preparing)
    opened, is_new = study.create_study(storage, place, name, spec, splits.fingerprint())
    if is_new:
        for settings in space.first_settings(spec, read_config(model_path)):
            opened.enqueue_trial(settings, user_attrs={"suggested_by": "published sweeps"})
    opened.set_user_attr("references", spec.scoring.references or {})  # may change at each start
    gone = "its worker is gone; its settings are tried again"
    confirming = confirm.open_confirmation(storage, opened, spec)
    for each in (opened, confirming):
        for number in study.reap_running(each, gone, repeat=True):
            listen(Event("reaped", values={"number": number}))
    listen(
        Event(
            "study",
            values={"name": name, "is_new": is_new, "finished": study.count_finished(opened)},
        )
    )
    ended = _Supervisor(
        spec, name, place, opened, confirming, n_workers, worker_bytes, listen
    ).run()
    return Outcome(ended, study.load_study(storage, name), spec)


def _share_memory(
    spec: SweepSpec, model_path: Path, preparing: Callable[[str], None]
) -> tuple[int, float | None]:
    """How many workers there are, and what each may take; None where nothing can be predicted."""
    machine = memory.this_machine()
    budget = memory.find_budget(spec.memory.budget, spec.memory.reserve, machine=machine)
    known = calibration.memory_model(model_path)
    work = sweepplan.workload(spec)
    if known is not None:
        exact = replace(known, coefficients=replace(known.coefficients, error=0.0))
        whole = arrays_budget(budget.total_bytes, known.coefficients)
        sweepplan.check_fits(spec, exact, work, whole)
    known = calibration.ensure_calibrated(model_path, known, budget.total_bytes, preparing)
    if known is None:
        preparing(
            "the memory of this architecture is not known: trials are executed as the sweep says"
        )
        return 1 if spec.workers == "auto" else min(spec.workers, spec.trials), None
    n_workers, each = sweepplan.share(spec, known, work, budget)
    sweepplan.check_fits(spec, known, work, arrays_budget(each, known.coefficients))
    preparing(f"memory: {budget.how}; {each / 1e9:.1f} GB for each of {n_workers} workers")
    return n_workers, each


def check_name(name: str) -> None:
    """Refuse a study's name that could not be a folder's.

    Raises:
        StudyError: It has other characters than letters, digits, ``-``, ``_`` and ``.``.
    """
    if name.endswith(study.CONFIRM_SUFFIX):
        raise StudyError(
            f"A study cannot be named {name!r}: names that end in {study.CONFIRM_SUFFIX} are those "
            "of runs that confirm another. Choose another name."
        )
    if not name or name[0] in ".-" or not all(c.isalnum() or c in "-_." for c in name):
        raise StudyError(
            f"A study cannot be named {name!r}. Use letters, digits, '-', '_' and '.', a "
            "letter first."
        )


class _Process:
    """A worker as the supervisor sees it."""

    def __init__(
        self,
        number: int,
        setting: dict[str, Any],
        n_threads: int,
        log: Path,
        events: "queue.Queue[Any]",
    ) -> None:
        self.number = number
        self.log = log
        self.doing: str | None = "prepare"
        self.trial_number: int | None = None
        self.told_fatal: HawsweepError | None = None
        environment = {
            "OPENBLAS_NUM_THREADS": str(n_threads),
            "OMP_NUM_THREADS": str(n_threads),
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            **os.environ,
        }
        with log.open("ab") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hawsweep.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                encoding="utf-8",
                env=environment,
                start_new_session=True,  # Ctrl-C reaches the supervisor alone
            )
        self.pid = self._process.pid
        self._send_line(json.dumps(setting))
        threading.Thread(target=self._read, args=(events,), daemon=True).start()

    def command(self, command: str) -> None:
        """Ask for ``base``, ``trial``, ``test`` or ``exit``."""
        self.doing = command
        self._send_line(command)

    def ask_to_stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout_s: float | None = None) -> int:
        """Its exit code; it is killed where it has not ended after ``timeout_s``."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _send_line(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it is dead; the end of its output says so

    def _read(self, events: "queue.Queue[Any]") -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            events.put((self, json.loads(line)))
        events.put((self, None))


class _Supervisor:
    def __init__(
        self,
        spec: SweepSpec,
        name: str,
        place: study.Place,
        opened: optuna.Study,
        confirming: optuna.Study,
        n_workers: int,
        worker_bytes: float | None,
        listen: Listener,
    ) -> None:
        self._spec, self._name, self._place = spec, name, place
        self._study, self._n_workers, self._listen = opened, n_workers, listen
        self._confirming = confirming
        self._worker_bytes = worker_bytes
        # More threads than cores in all would make OpenBLAS's waiting threads starve its working
        # ones.
        self._n_threads = max(1, memory.usable_cores() // n_workers)
        self._events: queue.Queue[tuple[_Process, dict[str, Any] | None]] = queue.Queue()
        self._workers: dict[int, _Process] = {}
        self._failures: list[str] = []
        self._n_infeasible = 0
        self._deadline = time.monotonic() + spec.timeout if spec.timeout else None
        self._interrupted = False
        self._interrupts_asked = 0
        self._timed_out = False

    def run(self) -> Literal["finished", "timeout", "interrupted"]:
        try:
            with self._interrupts_noted():
                trains = self._wants_trials() or self._wants_confirmation()
                if trains or self._wants_test():
                    for number in range(self._n_workers if trains else 1):
                        self._start_worker(number)
                    self._loop()
        finally:
            self._end_workers()
        if self._interrupted:
            return "interrupted"
        left = self._wants_more() or confirm.n_waiting(self._confirming) > 0
        return "timeout" if self._timed_out and left else "finished"

    @contextmanager
    def _interrupts_noted(self) -> Iterator[None]:
        # An exception could come in the middle of anything; a count is looked at between events.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in before:
            signal.signal(number, self._note_interrupt)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note_interrupt(self, *_: object) -> None:
        self._interrupts_asked += 1

    def _loop(self) -> None:
        interrupts_done = 0
        while self._workers:
            if self._interrupts_asked > interrupts_done:
                interrupts_done = self._interrupts_asked
                self._interrupt()
            try:
                process, event = self._events.get(timeout=_POLL_S)
            except queue.Empty:
                self._listen(Event("tick"))
                continue
            self._handle(process, event)

    def _handle(self, process: _Process, event: dict[str, Any] | None) -> None:
        if event is None:
            self._bury(process)
            return
        kind = event.pop("event")
        if kind == "fatal":
            process.told_fatal = getattr(errors, event["error"])(event["message"])
        elif kind in ("trial_start", "confirm_start"):
            process.trial_number = event["number"]
        elif kind in ("trial_end", "confirm_end"):
            process.trial_number = None
            interrupted = self._interrupted and event["state"] == "fail"
            self._count_failure(
                event["reason"] if event["state"] == "fail" and not interrupted else None
            )
            self._count_infeasible(event["state"] == "infeasible")
        self._listen(Event(kind, process.number, event))
        if kind in ("ready", "base_end", "trial_end", "confirm_end", "test_end"):
            process.doing = None
            self._assign(process)

    def _assign(self, process: _Process) -> None:
        if self._interrupted:
            process.command("exit")
        elif "base" not in self._attrs() and not self._anyone_does("base"):
            process.command("base")
        elif self._wants_trials():
            process.command("trial")
        elif self._anyone_does("base") or self._anyone_does("trial"):
            return  # the last one sees what is to be confirmed
        elif self._wants_confirmation():
            for other in self._workers.values():
                if other.doing is None and self._wants_confirmation():
                    other.command("confirm")
        elif any(other.doing for other in self._workers.values()):
            return  # the last one tests
        elif self._wants_test():
            process.command("test")
        else:
            for other in self._workers.values():
                other.command("exit")

    def _anyone_does(self, command: str) -> bool:
        return any(worker.doing == command for worker in self._workers.values())

    def _wants_more(self) -> bool:
        return study.count_finished(self._study) < self._spec.trials

    def _wants_trials(self) -> bool:
        if self._is_over(confirm.expected_s(self._study, self._spec, self._n_workers)):
            return False
        running = sum(worker.doing == "trial" for worker in self._workers.values())
        return study.count_finished(self._study) + running < self._spec.trials

    def _wants_confirmation(self) -> bool:
        """Whether a run with a new seed is to be started; what the others said is kept."""
        if self._is_over():
            return False
        confirm.queue(self._study, self._confirming, self._spec)
        begun = sum(
            worker.doing == "confirm" and worker.trial_number is None
            for worker in self._workers.values()
        )
        wants = confirm.n_waiting(self._confirming) > begun
        if not wants and not self._anyone_does("confirm"):
            confirm.conclude(self._study, self._confirming, self._spec)
        return wants

    def _is_over(self, reserve_s: float = 0.0) -> bool:
        if self._deadline is not None and time.monotonic() > self._deadline - reserve_s:
            self._timed_out = True
            return True
        return False

    def _wants_test(self) -> bool:
        best = confirm.winner(self._study)
        tested = self._attrs().get("test", {}).get("trial_number")
        return best is not None and tested != best.number and not self._no_test

    @property
    def _no_test(self) -> bool:
        spec = self._attrs().get("spec", {})
        return str(spec.get("fingerprints", {}).get("test", "0:")).startswith("0:")

    def _attrs(self) -> dict[str, Any]:
        return self._study.user_attrs

    def _start_worker(self, number: int) -> None:
        setting = {
            "study": self._name,
            "spec": self._spec.model_dump(mode="json", exclude_none=True),
            "studies_dir": str(self._place.studies_dir),
            "storage_url": self._place.storage_url,
            "budget_bytes": self._worker_bytes,
        }
        log = self._place.study_dir(self._name) / f"worker-{number}.log"
        self._workers[number] = _Process(number, setting, self._n_threads, log, self._events)

    def _bury(self, process: _Process) -> None:
        """A worker ended: as it was told to, or by its own fault, which costs its trial."""
        code = process.wait()
        del self._workers[process.number]
        if process.told_fatal is not None:
            raise process.told_fatal
        if code == 0:
            return
        reason = f"the worker died {_cause(code)}"
        confirms = process.doing == "confirm"
        its_study = self._confirming if confirms else self._study
        log = process.log
        if process.trial_number is not None:
            folder_of = self._place.confirm_dir if confirms else self._place.trial_dir
            log = folder_of(self._name, process.trial_number) / "log.txt"
        if last := _last_line(log):
            reason += f" (last words: {last})"
        if process.trial_number is not None and _may_be_memory(code, reason):
            again = study.ran_out_of_memory(its_study, process.trial_number)
            reason += "; perhaps out of memory: "
            reason += "tried once more with a smaller plan" if again else "not tried again"
        owner = {**study.this_worker(), "pid": process.pid}
        for number in study.reap_running(its_study, reason, owner, repeat=self._interrupted):
            self._listen(
                Event(
                    "confirm_end" if confirms else "trial_end",
                    process.number,
                    {"number": number, "state": "fail", "reason": reason},
                )
            )
        if self._interrupted:
            return
        self._listen(Event("died", process.number, {"reason": reason}))
        self._count_failure(reason)
        self._start_worker(process.number)

    def _count_failure(self, reason: str | None) -> None:
        self._failures = [*self._failures, reason] if reason is not None else []
        if len(self._failures) >= MAX_FAILURES_IN_A_ROW:
            raise WorkerError(
                f"{len(self._failures)} failures in a row, the last: {self._failures[-1]}. "
                "What finished is kept. "
                f"Look at {self._place.study_dir(self._name)} for worker-*.log and "
                "trials/*/log.txt, "
                "then go on with the same command."
            )

    def _count_infeasible(self, is_infeasible: bool) -> None:
        self._n_infeasible = self._n_infeasible + 1 if is_infeasible else 0
        if self._n_infeasible >= MAX_INFEASIBLE_IN_A_ROW:
            raise MemoryBudgetError(
                f"{self._n_infeasible} proposals in a row do not fit into memory. Narrow the "
                f"search, or raise memory.budget; `hawsweep plan {self._name}` shows what fits."
            )

    def _interrupt(self) -> None:
        if self._interrupted:  # the second time: now
            for worker in self._workers.values():
                worker.kill()
            return
        self._interrupted = True
        self._listen(Event("interrupting"))
        for worker in self._workers.values():
            if worker.doing is None:
                worker.command("exit")
            else:
                worker.ask_to_stop()

    def _end_workers(self) -> None:
        for worker in self._workers.values():
            worker.ask_to_stop()
            worker.command("exit")
        deadline = time.monotonic() + _GRACE_S
        for worker in self._workers.values():
            worker.wait(max(0.0, deadline - time.monotonic()))


def _may_be_memory(code: int, reason: str) -> bool:
    """Whether a worker may have died of a lack of memory: the kernel's SIGKILL, a failed
    allocation's SIGSEGV, Metal's SIGABRT, or its last words.
    """
    signals = (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS)
    return -code in signals or is_out_of_memory(reason)


def _cause(code: int) -> str:
    if code < 0:
        return f"by {signal.Signals(-code).name}"
    return f"with exit code {code}"


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1].strip()[:200] if lines else ""
