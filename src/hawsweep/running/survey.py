"""The state of a sweep from which ``next_work`` decides, as the study and the clock have it."""

import time
from dataclasses import replace

import optuna
from optuna.trial import TrialState

from hawsweep.layout import ADAPTER_DIR
from hawsweep.planning.share_memory import WorkerShares
from hawsweep.results.what_is_left import find_remaining
from hawsweep.running.events import Event, Listener
from hawsweep.running.next_work import Work
from hawsweep.search.promotion import next_promoted
from hawsweep.search.rungs import promoting_s
from hawsweep.search.sampler import n_untried
from hawsweep.spec.sweep import SweepSpec
from hawsweep.study import confirm
from hawsweep.study.attributes import ARTIFACT
from hawsweep.study.baselines import unmeasured
from hawsweep.study.confirm import expected_s, winner
from hawsweep.study.leases import Lead, Leader, count_running
from hawsweep.study.optuna_door import read_once
from hawsweep.study.place import Place
from hawsweep.study.trials import (
    count_begun,
    is_asked_for,
    is_paused,
    is_to_go_on,
    is_untested,
    misses_retention,
    repeats_running,
)
from hawsweep.units import parse_share

# A night's end does not move while the machine sleeps, as it would by Python's monotonic clock. On
# a Mac the clock of this name goes on.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Survey:
    """Reads what is done and what is left. Once each it says that no setting is left, and that the
    sweep is settled.

    Args:
        lead: Of this process; it is told when the sweep's time is over.
        leader: The process that started the sweep; None if that is this one.

    Attributes:
        has_news: Whether something changed since it was last asked whether the sweep is settled.
        has_no_test: Whether the winner's adapter is not to be had.
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
        lead: Lead,
        leader: Leader | None,
    ) -> None:
        self._spec, self._name, self._place = spec, name, place
        self._study, self._confirming, self._shares = study, confirming, shares
        self._listen, self._lead, self._leader = listen, lead, leader
        self._started = time.clock_gettime(_CLOCK)
        self._n_workers = shares.n_workers
        self._told_exhausted = self._told_settled = False
        self._was_too_short = self._is_cut_short = self.has_no_test = False
        if leader is None:
            lead.left_s = self._time_left_s
        self.has_news = True

    def extend(self, spec: SweepSpec) -> None:
        """Go by more trials or more time."""
        self._spec, self._was_too_short = spec, False
        self._told_settled, self.has_news = False, True  # said again where it still is

    @property
    def timed_out(self) -> bool:
        """Whether the time was too short for all trials, or for all that they do."""
        return self._was_too_short or self._is_cut_short

    def work(
        self, doing: tuple[str | None, ...], n_to_confirm: int | None, *, is_interrupted: bool
    ) -> Work:
        """The present state, for ``next_work``.

        Args:
            doing: The command of each worker; None for a waiting one.
            n_to_confirm: Confirming runs that wait; None before they are queued.
        """
        with read_once(self._study):
            return self._read(doing, n_to_confirm, is_interrupted)

    def _read(
        self, doing: tuple[str | None, ...], n_to_confirm: int | None, is_interrupted: bool
    ) -> Work:
        leader = self._leader
        if leader is not None:
            n_to_confirm = confirm.n_waiting(self._confirming) or None
        trials = self._study.get_trials(deepcopy=False)
        runs = self._confirming.get_trials(deepcopy=False)
        # Workers elsewhere confirm, too.
        n_running = count_running(trials) + count_running(runs)
        self._n_workers = max(self._n_workers, n_running)
        work = Work(
            doing=doing,
            n_trials=self._spec.trials,
            n_begun=count_begun(trials),
            n_running=count_running(trials),
            n_complete=sum(trial.state == TrialState.COMPLETE for trial in trials),
            is_exhausted=self.is_exhausted(),
            is_settled=self.is_settled() and not any(map(is_asked_for, trials)),
            is_interrupted=is_interrupted,
            joins=leader is not None,
            is_led=leader is not None and leader.lives(),
            has_ended=leader is not None and leader.has_ended(),
            misses_base=bool(unmeasured(self._study, self._spec, self._shares.left_out)),
            time_left_s=self._time_left_s(),
            confirm_s=expected_s(self._study, self._spec, self._n_workers, runs),
            promote_s=promoting_s(self._spec),
            was_late=self._was_too_short and not all(run.state.is_finished() for run in runs),
            n_to_confirm=n_to_confirm,
            n_confirming=count_running(runs),
            wants_test=self.wants_test(),
        )
        promoted = next_promoted(self._spec, trials, may_begin=work.may_begin)
        repeats = any(
            is_to_go_on(trial) and not (is_paused(trial) or repeats_running(trial, trials))
            for trial in trials
        )
        work = replace(work, promotes=repeats or promoted is not None)
        self._was_too_short = self._was_too_short or work.is_over(work.confirm_s)
        self._is_cut_short = work.is_cut_short
        return work

    def _time_left_s(self) -> float | None:
        """Until the timeout, which counts from the leader's start; None without one."""
        said = None if self._leader is None else self._leader.left_s()
        if (timeout := self._spec.timeout) is None:
            return said
        own = self._started + timeout - time.clock_gettime(_CLOCK)
        return own if said is None else min(own, said)

    def is_exhausted(self) -> bool:
        """Whether no trial waits and no setting is left to propose; said once."""
        trials = self._study.get_trials(deepcopy=False)
        waits = any(t.state == TrialState.WAITING and not is_paused(t) for t in trials)
        if waits or n_untried(self._spec, trials):
            return False
        n_begun = count_begun(trials) + count_running(trials)
        if not self._told_exhausted and n_begun < self._spec.trials:
            self._told_exhausted = True
            self._listen(Event("exhausted", values={"n_trials": self._spec.trials}))
        return True

    def is_settled(self) -> bool:
        """Whether another hour is expected to bring less than ``stop_when`` asks for; said once."""
        asked = self._spec.stop_when.expected_gain
        if asked is None or self._told_settled or not self.has_news:
            return self._told_settled
        self.has_news = False
        belief = find_remaining(self._study, self._spec).belief
        if belief is None or not belief.n_next or belief.gain >= parse_share(asked):
            return False
        self._told_settled = True
        self._listen(Event("settled", values={"gain": belief.gain, "asked": asked}))
        return True

    def wants_test(self) -> bool:
        """Whether the best trial is to answer the test split or the questions of retention."""
        best = winner(self._study)
        if best is None or self.has_no_test:
            return False
        if not (is_untested(self._study, best) or misses_retention(self._study, self._spec, best)):
            return False
        # A trial that another program added has no adapter.
        folder = self._place.trial_dir(self._name, best.number)
        return bool(best.user_attrs.get(ARTIFACT)) or (folder / ADAPTER_DIR).is_dir()
