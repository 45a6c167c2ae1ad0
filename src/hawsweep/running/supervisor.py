"""The supervisor: hands out work to workers, survives their deaths, and stops when asked."""

import errno
import os
import queue
import random
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from hawsweep.errors import StorageOutageError, StudyBusyError, told_error
from hawsweep.layout import LOG_FILE, STATE_FILE
from hawsweep.machine import memory
from hawsweep.machine.output import OutputError
from hawsweep.models import resolve
from hawsweep.planning.share_memory import WorkerShares
from hawsweep.results.price import settle_preference
from hawsweep.running.events import FREES_WORKER, Ended, Event, Listener
from hawsweep.running.failures import Failures
from hawsweep.running.interrupts import Interrupts
from hawsweep.running.left_trials import LeftTrials
from hawsweep.running.memory_watch import MemoryWatch
from hawsweep.running.next_work import Work, next_work
from hawsweep.running.survey import Survey
from hawsweep.running.worker_process import WorkerProcess, WorkerStarter
from hawsweep.scoring.embedder_process import EmbedderProcess
from hawsweep.scoring.metrics import BUILT_IN
from hawsweep.search.distributions import distributions
from hawsweep.search.promotion import next_promoted
from hawsweep.search.sampler import make_sampler
from hawsweep.spec.sweep import SweepSpec
from hawsweep.study import confirm
from hawsweep.study.attributes import SUPERVISOR
from hawsweep.study.backup import Backups
from hawsweep.study.clean_up import remove_bulk
from hawsweep.study.confirm import conclude, spec_to_confirm
from hawsweep.study.faults import INTERRUPTED, TAINTING, WANTS_SUCCESSOR, of_worker
from hawsweep.study.leases import Lead, Leader, count_running, register_of, turn
from hawsweep.study.patience import while_waiting
from hawsweep.study.place import Place
from hawsweep.study.presence import Presence
from hawsweep.study.queue import ask, end_needless, leave_behind, reap_running
from hawsweep.study.study import extended, stop_asked
from hawsweep.study.trials import count_finished, train_of

_GRACE_S = 60.0
POLL_S = 0.25
# Seconds between checks of rare changes: requests in the study, the machine's memory.
_LOOK_S = 2.0  # about: machines that share a database do not ask in step
# Seconds between checks of other processes' trials, which read all trials.
_LOOK_AT_OTHERS_S = 6.0
# Loading libraries and a large model sends no sign of life.
_PREPARING_S = 600.0
# After a trial that ended by one of these faults the worker ends by itself.
_LAST_FAULTS = {*TAINTING, INTERRUPTED.kind}


class Supervisor:
    """Hands out a study's work to workers until it is done or asked to stop.

    Args:
        spec: As the start asked; what `hawsweep extend` added is taken up from the study.
        presence: Looks whether the study is still there.
        here: The paths of model and data on this machine; see ``located.found_here``.
        joins: Another process started the sweep and leads it.
        tied: That process passes requests to stop on by signals; one that was taken from the study,
            too, would count twice.
        lead: Of this process; None for one that joins.
    """

    def __init__(
        self,
        spec: SweepSpec,
        name: str,
        place: Place,
        study: optuna.Study,
        confirming: optuna.Study,
        shares: WorkerShares,
        listen: Listener,
        presence: Presence,
        here: Mapping[str, str],
        *,
        joins: bool,
        tied: bool = False,
        lead: Lead | None = None,
    ) -> None:
        self._joins, self._tied = joins, tied
        self._of = f"-{os.getpid()}" if joins else ""  # in the names of logs
        self._asked, self._spec = spec, extended(study, spec)
        self._name, self._place, self._here = name, place, here
        self._study, self._confirming = study, confirming
        self._shares, self._tell, self._presence = shares, listen, presence
        # With more threads than cores, OpenBLAS's waiting threads slow down its working ones.
        self._starter = WorkerStarter(
            max(1, memory.usable_cores() // shares.n_workers),
            with_torch=spec.scoring.metric not in BUILT_IN,
        )
        self._embedder = EmbedderProcess(
            resolve.resolve_embedder(spec.scoring.embedder),
            trust_remote_code=spec.trust_remote_code,
            log=place.study_dir(name) / f"embedder{self._of}.log",
            environment=self._starter.environment,
            nice=spec.machine.nice,
        )
        self._events: queue.Queue[tuple[WorkerProcess, dict[str, Any] | None]] = queue.Queue()
        self._workers: dict[int, WorkerProcess] = {}
        self._failures = Failures(name, place)
        self._interrupted, self._lead = False, lead or Lead()
        self.interrupts = Interrupts()
        self._memory_watch = MemoryWatch()
        self._leader = Leader(study)
        self._survey = Survey(
            self._spec,
            name,
            place,
            study,
            confirming,
            shares,
            self._listen,
            self._lead,
            self._leader if joins else None,
        )
        self._left = LeftTrials(study, confirming, joins=joins)
        self._register = register_of(place)
        self._backups = Backups(place)
        self._next_look = self._next_look_at_others = 0.0

    def run(self) -> Ended:
        """Work until the study is done, the time is up or a stop is asked for; give how it ended.

        Raises:
            HawsweepError: A fault that would stop every trial.
        """
        with self.interrupts.noted(), while_waiting(self._wait):
            try:
                self._presence.check()
                work = self._work()
                if not work.wants_trials and work.may_confirm and not work.n_running:
                    work = self._work(n_to_confirm=self._queue_confirmations())
                trains = work.wants_trials or bool(work.n_to_confirm) or work.is_led
                trains = trains or bool(work.n_running or work.n_confirming)  # elsewhere
                if not trains and not self._joins:
                    self._settle_winner()
                    work = self._work()
                if trains or (work.wants_test and not self._joins):
                    for number in range(self._shares.n_workers if trains else 1):
                        self._start_worker(number)
                    self._loop()
            finally:
                self._end_workers()
                self._presence.check()  # else notes and the backup would be of something else
                self._listen(Event("ended"))
                self._backups.make()
        if self._interrupted:
            return "interrupted"
        leader = self._study.user_attrs.get(SUPERVISOR) if self._joins else None
        if leader is not None and not self._leader.lives():
            text = (
                f"{leader['host']}, which leads the sweep, is not heard of: start the sweep again, "
                "there or here"
            )
            self._listen(Event("not_told", values={"text": text}))
        left = count_finished(self._study) < self._spec.trials
        left = left and not (self._survey.is_exhausted() or self._survey.is_settled())
        left = left or confirm.n_waiting(self._confirming) > 0
        return "timeout" if self._survey.timed_out and left else "finished"

    def _wait(self) -> None:
        """While the database does not answer, no worker counts as hung, and Ctrl-C ends it."""
        for worker in self._workers.values():
            worker.last_sign = time.monotonic()
        self._interrupted = self.interrupts.take() or self._interrupted
        if self._interrupted:
            raise StorageOutageError("The database does not answer. The same command goes on.")

    def _listen(self, event: Event) -> None:
        try:
            self._tell(event)
        except OutputError as fault:
            if fault.errno != errno.EIO:
                raise
            # Writing to a closed terminal may fail before the signal comes.
            self.interrupts.note_hang_up()

    def _loop(self) -> None:
        while self._workers:
            while self.interrupts.take():
                self._interrupt()
            self._presence.check_files()
            if time.monotonic() >= self._next_look:
                self._next_look = time.monotonic() + _LOOK_S * random.uniform(0.75, 1.25)
                self._look()
            try:
                process, event = self._events.get(timeout=POLL_S)
            except queue.Empty:
                self._listen(Event("tick"))
                continue
            process.last_sign = time.monotonic()
            self._handle(process, event)

    def _look(self) -> None:
        """Check for changes without an event: memory, hung workers, requests in the study, and
        whether that is still there.
        """
        self._presence.check()
        if self._lead.taken_over.is_set():
            raise StudyBusyError(
                f"Another process has taken over study {self._name!r}, for this one was not heard "
                f"of. Run trials of it here, too: `{self._place.command('worker', self._name)}`."
            )
        self._memory_watch.look()
        self._end_hung()
        self._backups.look()
        if time.monotonic() >= self._next_look_at_others:
            self._next_look_at_others = time.monotonic() + _LOOK_AT_OTHERS_S
            self._free_left()
        self._extend()
        self._assign_idle()
        asked = stop_asked(self._study)
        # A tied process hears the first request from its starter; twice it would mean: now.
        if not self._tied or asked > 1:
            self.interrupts.ask(asked)

    def _extend(self) -> None:
        """Take up more trials or more time, which another process asked for."""
        spec = extended(self._study, self._asked)
        if (spec.trials, spec.timeout) == (self._spec.trials, self._spec.timeout):
            return
        self._spec = spec
        self._survey.extend(spec)
        values = {"n_trials": spec.trials, "timeout_s": spec.timeout}
        self._listen(Event("extended", values=values))

    def _free_left(self) -> None:
        for number, end in self._left.free():
            self._survey.has_news = True
            self._backups.note_change()
            self._listen(Event("reaped", values={"number": number, "reason": end.reason}))

    def _end_hung(self) -> None:
        asked_s = self._spec.machine.hang_timeout
        for worker in self._workers.values():
            longest_s = max(asked_s, _PREPARING_S) if worker.doing == "prepare" else asked_s
            silent_s = time.monotonic() - worker.last_sign
            if worker.doing is not None and worker.hung_s is None and silent_s > longest_s:
                worker.end_hung(silent_s)

    def _handle(self, process: WorkerProcess, event: dict[str, Any] | None) -> None:
        if event is None:
            self._bury(process)
            return
        kind = event.pop("event")
        if kind in FREES_WORKER:
            self._presence.check()
        if kind in ("embedder", "base_start", "scoring"):
            self._embedder.ensure()
        if kind == "embedder":
            return
        if kind == "fatal":
            process.told_fatal = told_error(event["error"], event["message"])
        elif kind in ("trial_start", "confirm_start"):
            process.trial_number = event["number"]
        elif kind in ("trial_end", "confirm_end"):
            process.trial_number = None
            if event["fault"] != "interrupted":
                self._failures.count(event["fault"], event["reason"])
            self._failures.count_infeasible(is_infeasible=event["state"] == "infeasible")
        elif kind == "test_end":
            self._survey.has_no_test = event.get("number") is None  # its adapter is not to be had
        if kind in ("trial_end", "confirm_end"):
            self._survey.has_news = True
            remove_bulk(self._study, self._place, self._spec)
        if kind in ("base_end", "trial_end", "confirm_end", "test_end"):
            self._backups.note_change()
        self._listen(Event(kind, process.number, event))
        if kind == "ready":
            self._starter.keep_spare(process.log)
        if kind in FREES_WORKER:
            if event.get("fault") in _LAST_FAULTS:
                process.doing = "exit"
            else:
                process.doing = None
                self._assign(process)

    def _assign_idle(self) -> None:
        for worker in self._idle():
            if worker.doing is None:  # an earlier command may have gone to all waiting workers
                self._assign(worker)

    def _assign(self, process: WorkerProcess) -> None:
        work = self._work()
        command = next_work(work)
        if command == "queue":
            command = next_work(self._work(n_to_confirm=self._queue_confirmations()))
        if command in ("test", "finish"):
            self._settle_winner()
            command = "test" if self._survey.wants_test() else "finish"
        if command == "wait":
            return
        if command == "trial":
            self._ask(process, may_begin=work.may_begin)
        elif command == "confirm":
            for worker in self._idle()[: confirm.n_waiting(self._confirming)]:
                self._ask(worker, confirms=True)
        elif command == "finish":
            for worker in self._idle():
                worker.command("exit")
        else:
            process.command(command)

    def _idle(self) -> list[WorkerProcess]:
        return [worker for worker in self._workers.values() if worker.doing is None]

    def _work(self, n_to_confirm: int | None = None) -> Work:
        doing = tuple(worker.doing for worker in self._workers.values())
        return self._survey.work(doing, n_to_confirm, is_interrupted=self._interrupted)

    def _queue_confirmations(self) -> int:
        """Queue the confirming runs; give how many wait.

        Trials that are paused still were not promoted, unless there was no time for it.
        """
        if not self._survey.timed_out:
            self._leave_behind()
        confirm.queue(self._study, self._confirming, self._spec)
        return confirm.n_waiting(self._confirming)

    def _settle_winner(self) -> None:
        """Where time ran out among the confirming runs, those that ended count."""
        for study in (self._study, self._confirming):
            end_needless(study)
        conclude(self._study, self._confirming, self._spec)
        settle_preference(self._study, self._place, self._spec)

    def _leave_behind(self) -> None:
        def last_of(trial: FrozenTrial) -> int:
            return train_of(self._spec, trial).iters

        if count_running(self._study.get_trials(deepcopy=False)):
            return  # in another process, and others may yet go on beside it
        for number in leave_behind(self._study, last_of):
            folder = self._place.trial_dir(self._name, number)
            (folder / STATE_FILE).unlink(missing_ok=True)
        remove_bulk(self._study, self._place, self._spec)

    def _ask(
        self, process: WorkerProcess, *, confirms: bool = False, may_begin: bool = True
    ) -> None:
        """Have a worker run the next trial, or confirming run."""
        assert process.identity is not None
        spec = spec_to_confirm(self._spec) if confirms else self._spec
        number = ask(
            self._confirming if confirms else self._study,
            partial(make_sampler, spec),
            distributions(spec.search),
            self._place.study_dir(self._name),
            process.identity,
            0 if confirms else spec.trials,
            partial(next_promoted, spec, may_begin=may_begin),
            may_begin=may_begin,
            proposes=not confirms,
            turns=turn(self._confirming, self._register),
        )
        if number is not None:
            process.command("confirm" if confirms else "trial", number)

    def _start_worker(self, number: int) -> None:
        # A process that joins asks no questions of ``retention``, and may not have them.
        spec = self._spec.model_copy(update={"retention": None}) if self._joins else self._spec
        setting = {
            "study": self._name,
            "spec": spec.model_dump(mode="json", exclude_none=True),
            "studies_dir": str(self._place.studies_dir),
            "storage_url": self._place.storage_url,
            "budget_bytes": self._shares.bytes_each,
            "left_out": self._shares.left_out,
            "nice": self._spec.machine.nice,
            "embedder": self._embedder.contact,
            "paths": self._here,
            "rest_s": self._failures.rest_s,
        }
        log = self._place.study_dir(self._name) / f"worker{self._of}-{number}.log"
        self._workers[number] = WorkerProcess(number, self._starter, log, setting, self._events)

    def _bury(self, process: WorkerProcess) -> None:
        """Handle the end of a worker: as asked, or by a fault, which ends its trial."""
        code = process.wait()
        del self._workers[process.number]
        if process.told_fatal is not None:
            raise process.told_fatal
        if process.hung_s is not None:  # the embedder may be the one that hangs
            self._embedder.kill()
        if code == 0 and process.doing in (None, "exit"):
            return
        if code == WANTS_SUCCESSOR:
            if not self._interrupted:
                self._start_worker(process.number)
            return
        confirms = process.doing == "confirm"
        its_study = self._confirming if confirms else self._study
        log, log_start = process.log, process.log_start
        if process.trial_number is not None:
            folder = self._place.folder_of(its_study.study_name, process.trial_number)
            log, log_start = folder / LOG_FILE, 0
        circumstances = self._memory_watch.circumstances(process.hung_s)
        fault = of_worker(code, log, circumstances, log_start)
        reaped = INTERRUPTED if self._interrupted else fault
        ends = {}
        if process.identity is not None:
            ends = reap_running(its_study, reaped, process.identity)
        for number, end in ends.items():
            self._backups.note_change()
            about = {"number": number, "state": end.state, "reason": end.reason}
            kind = "confirm_end" if confirms else "trial_end"
            self._listen(Event(kind, process.number, {**about, "fault": fault.kind}))
        if self._interrupted:
            return
        self._listen(Event("died", process.number, {"reason": fault.text}))
        if not any(end.state == "infeasible" for end in ends.values()):
            self._failures.count(fault.kind, fault.text)
        self._start_worker(process.number)

    def _interrupt(self) -> None:
        if self._interrupted:  # the second request: stop now
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
        try:
            gone = self._presence.fault() is not None
        except StorageOutageError:
            gone = False
        for worker in self._workers.values():
            if gone:
                worker.kill()  # what it would save now has no place
            else:
                worker.ask_to_stop()
                worker.command("exit")
        deadline = time.monotonic() + _GRACE_S
        for worker in self._workers.values():
            while worker.is_alive() and time.monotonic() < deadline:
                if self.interrupts.is_asked:  # another request: stop now
                    deadline = 0.0
                time.sleep(POLL_S)
            worker.wait(0.0)
        self._starter.close()
        self._embedder.close()
