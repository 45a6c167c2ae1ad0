"""The progress of a study: finished trials, remaining work, and its time."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from hawsweep.results.leaderboard import TrialRow, leaderboard, loss_curve
from hawsweep.results.what_is_known import known_sentences
from hawsweep.search.belief import Belief, KeyBelief, find_belief
from hawsweep.search.rungs import expected_ends
from hawsweep.search.sampler import n_untried
from hawsweep.spec.space import apply_settings
from hawsweep.spec.sweep import SweepSpec
from hawsweep.study.attributes import BASE, INFEASIBLE, SCORE_TIME_S, TIME_S
from hawsweep.study.confirm import complete_runs, confirmations, confirming_study, n_left, winner
from hawsweep.study.trials import (
    count_finished,
    is_paused,
    is_untested,
    misses_retention,
    n_test_records,
)

# The lines of a leaderboard that a running sweep shows.
_N_ROWS = 5
_HOUR_S = 3600.0
_ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass(frozen=True)
class Remaining:
    """The progress of a study between two events.

    Attributes:
        n_trials: The number to finish: fewer than the sweep's where the space has fewer settings.
        n_running: Trials that run in any process on any machine, by the database.
        trial_s: Mean seconds of a trial, including pruned ones; None before the first has ended
            or paused.
        again_left: Confirming runs that are left.
        test_left: Whether the test split is to be opened.
        retention_left: Whether the questions of ``retention`` are to be answered.
        after_s: Seconds of these two with one worker.
        best: The number of the best trial; ``best_curve`` has its iterations and validation
            losses.
        rows: The best lines of the leaderboard, the base among them.
        n_paused: Trials that wait, trained in part; ``paused_s`` is what they took.
        belief: What the search knows; None before it knows something.
        known: That in words.
    """

    n_trials: int
    finished: int
    n_running: int
    trial_s: float | None
    again_left: int
    test_left: bool
    after_s: float
    best: int | None
    best_curve: tuple[tuple[int, float], ...]
    rows: tuple[TrialRow, ...]
    n_paused: int = 0
    paused_s: float = 0.0
    belief: Belief | None = None
    known: tuple[str, ...] = ()
    retention_left: bool = False

    @property
    def trials_left(self) -> int:
        """Trials left to finish, including running ones."""
        return max(0, self.n_trials - self.finished)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        return not (self.trials_left or self.again_left or self.test_left or self.retention_left)

    def to_plain(self) -> dict[str, Any]:
        """For JSON; see ``from_plain``."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Remaining":
        """The inverse of ``to_plain``, also after JSON."""
        curve = tuple((int(step), float(loss)) for step, loss in plain["best_curve"])
        rows = tuple(TrialRow(**row) for row in plain["rows"])
        known: dict[str, Any] = {"best_curve": curve, "rows": rows, "known": tuple(plain["known"])}
        if (belief := plain["belief"]) is not None:
            keys = tuple(KeyBelief(**key) for key in belief["keys"])
            known["belief"] = Belief(**{**belief, "keys": keys})
        return cls(**{**plain, **known})


def find_remaining(
    study: optuna.Study, spec: SweepSpec | None, rows: Sequence[TrialRow] | None = None
) -> Remaining:
    """The progress of a study now.

    Args:
        spec: None for a study of another program, which has no work left.
        rows: Its leaderboard, if it was computed already.
    """
    trials = study.get_trials(deepcopy=False)
    finished = count_finished(study)
    paused = [trial for trial in trials if is_paused(trial)]
    best = winner(study)
    n_trials = finished if spec is None else _n_trials(trials, finished, spec)
    again_left = 0 if spec is None else _again_left(study, spec, max(finished, n_trials))
    again_s = 0.0 if spec is None else again_left * _again_s(trials, spec)
    test_left = _test_left(study, best)
    trial_s = _trial_s(trials, spec, n_trials)
    n_running = sum(trial.state == TrialState.RUNNING for trial in trials)
    belief = None
    if spec is not None:
        asked = 1 if spec.workers == "auto" else spec.workers
        n_next = _HOUR_S / trial_s * max(asked, n_running) if trial_s else 0.0
        belief = find_belief(spec, trials, n_next, complete_runs(study))
    return Remaining(
        n_trials=n_trials,
        finished=finished,
        n_paused=len(paused),
        paused_s=sum(_seconds(trial) or 0.0 for trial in paused),
        n_running=n_running,
        trial_s=trial_s,
        again_left=again_left,
        test_left=test_left,
        retention_left=_retention_left(study, spec, best),
        after_s=again_s + test_left * _test_s(study, best),
        best=None if best is None else best.number,
        best_curve=() if best is None else loss_curve(best),
        rows=_best_rows(leaderboard(study) if rows is None else rows),
        belief=belief,
        known=() if belief is None or spec is None else tuple(known_sentences(belief, spec)),
    )


def _n_trials(trials: Sequence[FrozenTrial], finished: int, spec: SweepSpec) -> int:
    n_begun = sum(not trial.state.is_finished() for trial in trials)
    return int(min(spec.trials, finished + n_begun + n_untried(spec, trials)))


def seconds_left(
    standing: Remaining, elapsed: Sequence[float], n_workers: int, trial_s: float | None = None
) -> float | None:
    """The seconds that a study still takes, roughly; None if a trial's time is not known.

    Args:
        elapsed: Seconds since the start of each running trial.
        trial_s: Seconds of a trial, used before any has finished.
    """
    each = standing.trial_s or trial_s
    if each is None:
        return 0.0 if standing.is_done else None
    # A trial that has taken longer than the mean is about to end.
    work = max(0.0, standing.trials_left * each - standing.paused_s) + standing.after_s
    return max(0.0, work - sum(min(seconds, each) for seconds in elapsed)) / max(1, n_workers)


def _trial_s(trials: Sequence[FrozenTrial], spec: SweepSpec | None, n_trials: int) -> float | None:
    """The mean of ended trials; where trials are promoted, what one is expected to take by the pace
    of all.
    """
    ended = [
        trial
        for trial in trials
        if is_paused(trial)
        or (
            trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
            and not trial.user_attrs.get(INFEASIBLE)
        )
    ]
    times = [(t, seconds) for t in ended if (seconds := _seconds(t)) is not None]
    if not times:
        return None
    trained = sum(trial.last_step or 0 for trial, _ in times)
    if spec is None or spec.pruning.name != "promote" or not trained:
        return sum(seconds for _, seconds in times) / len(times)
    train = apply_settings(spec.train, times[0][0].params)
    expected = sum(at * n for at, n in expected_ends(train, n_trials).items()) / max(1, n_trials)
    return sum(seconds for _, seconds in times) / trained * expected


def _seconds(trial: FrozenTrial) -> float | None:
    known = trial.user_attrs.get(TIME_S)
    if known is None and trial.duration is not None:
        known = max(0.0, trial.duration.total_seconds())
    return known


def _again_left(study: optuna.Study, spec: SweepSpec, n_trials: int) -> int:
    if confirmations(study):
        return n_left(study, spec)
    if n_trials < 2:
        return 0
    wanted = min(spec.confirm.top, n_trials) * spec.confirm.seeds
    if not wanted:
        return 0
    again = confirming_study(study)
    n_ended = 0 if again is None else len(again.get_trials(deepcopy=False, states=_ENDED))
    return max(0, wanted - n_ended)


def _again_s(trials: Sequence[FrozenTrial], spec: SweepSpec) -> float:
    """Mean seconds of one of the best trials."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    best = sorted(complete, key=lambda trial: -(trial.value or 0.0))[: max(1, spec.confirm.top)]
    times = [seconds for trial in best if (seconds := _seconds(trial)) is not None]
    return sum(times) / len(times) if times else 0.0


def _test_left(study: optuna.Study, best: FrozenTrial | None) -> bool:
    return n_test_records(study) > 0 if best is None else is_untested(study, best)


def _retention_left(study: optuna.Study, spec: SweepSpec | None, best: FrozenTrial | None) -> bool:
    if spec is None or spec.retention is None:
        return False
    return best is None or misses_retention(study, spec, best)


def _test_s(study: optuna.Study, best: FrozenTrial | None) -> float:
    """Seconds of the test: base and winner answer up to twice as many prompts as before."""
    base_s = float(study.user_attrs.get(BASE, {}).get("time_s") or 0.0)
    trial_s = 0.0 if best is None else float(best.user_attrs.get(SCORE_TIME_S) or 0.0)
    return 2.0 * (base_s + trial_s)


def _best_rows(rows: Sequence[TrialRow]) -> tuple[TrialRow, ...]:
    """The first few rows, and every baseline after them."""
    ranked = [row for row in rows if row.state in ("complete", "paused", "pruned", "base")]
    trials = [row.label for row in ranked if row.state != "base"][:_N_ROWS]
    return tuple(row for row in ranked if row.state == "base" or row.label in trials)
