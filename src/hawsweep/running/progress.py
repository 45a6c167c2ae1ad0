"""The state of a running sweep: updated by each event, and kept in a file for other processes."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from hawsweep.files import HALF_WRITTEN
from hawsweep.machine.processes import identity, is_alive_here, is_dead_here
from hawsweep.results.what_is_left import Remaining, seconds_left
from hawsweep.running.events import FREES_WORKER, Event, Listener

_FILE = "progress.json"
_WRITE_INTERVAL_S = 1.0
# For this many seconds the file of a process on another machine counts: whether that process lives
# cannot be checked.
_FRESH_S = 30.0
_N_TOLD = 8
# The most points of a worker's curve, so that the file written each second stays small.
_N_POINTS = 200
# Events that are printed in words; the others only change the picture of the workers.
TOLD = frozenset(
    {
        "base_end",
        "trial_end",
        "confirm_end",
        "left_out",
        "host",
        "not_told",
        "died",
        "reaped",
        "exhausted",
        "settled",
        "extended",
        "interrupting",
    }
)
_CHANGES_STANDING = frozenset(
    {"study", "extended", "base_end", "trial_end", "confirm_end", "reaped"}
)
_OF_NO_WORKER = frozenset(
    {"interrupting", "reaped", "left_out", "host", "not_told", "exhausted", "settled", "extended"}
)
# What a worker is at after events that say nothing else of it.
_DOING = {"base_start": "base", "died": "starting", **dict.fromkeys(FREES_WORKER, "waiting")}

Curve = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class WorkerState:
    """The state of one worker.

    Attributes:
        doing: ``starting``, ``preparing`` (see ``text``), ``base``, ``trial``, ``scoring``,
            ``test``, ``retention`` or ``waiting``.
        trial: Its number, or ``7 again`` for a confirming run; None without a trial.
        since: When that began, in seconds since the epoch.
        curve: The iterations and validation losses of its last evaluations.
        peak_memory_bytes: Of the trial's arrays so far; ``budget_bytes`` is what they may take.
        footprint_bytes: Of the worker's process at its last report.
        host: Of another machine; empty on this one.
    """

    number: int
    doing: str = "starting"
    text: str = ""
    trial: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    since: float = 0.0
    iteration: int = 0
    iters: int = 0
    train_loss: float | None = None
    curve: Curve = ()
    tokens_per_s: float | None = None
    peak_memory_bytes: int | None = None
    footprint_bytes: int | None = None
    budget_bytes: float | None = None
    host: str = ""


@dataclass(frozen=True)
class ToldEvent:
    """An event that is printed, and its time, in seconds since the epoch."""

    at: float
    kind: str
    values: Mapping[str, Any]
    host: str = ""


@dataclass(frozen=True)
class SweepState:
    """The state of a running sweep.

    Attributes:
        started, updated: In seconds since the epoch.
        timeout_s: No trial starts after this many seconds.
        n_workers: The planned number of workers.
        standing: None before it is known.
        best_score: The highest so far.
        told: The last printed events, the newest last.
    """

    name: str = ""
    started: float = 0.0
    updated: float = 0.0
    n_trials: int = 0
    timeout_s: float | None = None
    n_workers: int = 1
    workers: tuple[WorkerState, ...] = ()
    standing: Remaining | None = None
    best_score: float | None = None
    told: tuple[ToldEvent, ...] = ()

    @property
    def finished(self) -> int:
        """Trials that gave a result."""
        return 0 if self.standing is None else self.standing.finished

    def ends_in(self, now: float) -> float | None:
        """The seconds left, roughly; None if a trial's time is not known."""
        if self.standing is None:
            return None
        running = [each for each in self.workers if each.trial is not None and each.iters]
        elapsed = [max(0.0, now - each.since) for each in running]
        # Before the first trial has ended, the furthest one gives the time of a trial.
        known = [
            seconds * each.iters / each.iteration
            for each, seconds in zip(running, elapsed, strict=True)
            if each.iteration
        ]
        left = seconds_left(self.standing, elapsed, self.n_workers, min(known, default=None))
        if left is None or self.timeout_s is None:
            return left
        return min(left, max(0.0, self.started + self.timeout_s - now))


class Follower:
    """Keeps the ``state`` of a sweep; each event makes a new one.

    Args:
        n_trials: The number to finish, until an event has it.
    """

    def __init__(self, n_trials: int = 0, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        now = clock()
        self.state = SweepState(started=now, updated=now, n_trials=n_trials)

    def __call__(self, event: Event) -> Event:
        """Update the state by an event; give the event with ``is_best`` added."""
        now, state = self._clock(), self.state
        if event.kind in ("tick", "alive"):
            self.state = replace(state, updated=now)
            return event
        if event.kind in ("trial_end", "confirm_end"):
            event = replace(event, values={**event.values, "is_best": self._is_best(event)})
        changes: dict[str, Any] = {"updated": now}
        if event.kind == "study":
            changes |= {
                "name": event.values["name"],
                "n_trials": event.values.get("n_trials", state.n_trials),
                "n_workers": event.values.get("n_workers", state.n_workers),
                "timeout_s": event.values.get("timeout_s"),
            }
        elif event.kind == "extended":
            changes |= {key: event.values[key] for key in ("n_trials", "timeout_s")}
        elif event.kind == "standing":
            standing = Remaining.from_plain(event.values)
            scores = [row.score for row in standing.rows if row.state == "complete"]
            best = max((score for score in scores if score is not None), default=None)
            changes |= {"standing": standing, "n_trials": standing.n_trials, "best_score": best}
        elif event.kind == "host" and event.values["state"] != "joined":
            changes["workers"] = tuple(each for each in state.workers if each.host != event.host)
        elif event.kind not in _OF_NO_WORKER:
            changes["workers"] = self._with_worker(event, now)
        if event.values.get("is_best"):
            changes["best_score"] = event.values["score"]
        if event.kind in TOLD:
            told = ToldEvent(now, event.kind, event.values, event.host)
            changes["told"] = (*state.told, told)[-_N_TOLD:]
        self.state = replace(state, **changes)
        return event

    def _is_best(self, event: Event) -> bool:
        score, best = event.values.get("score"), self.state.best_score
        return event.kind == "trial_end" and score is not None and (best is None or score > best)

    def _with_worker(self, event: Event, now: float) -> tuple[WorkerState, ...]:
        known = {(each.host, each.number): each for each in self.state.workers}
        who = event.host, event.worker
        before = known.get(who, WorkerState(event.worker, since=now, host=event.host))
        known[who] = _followed(before, event.kind, event.values, now)
        return tuple(known[who] for who in sorted(known))


def _followed(before: WorkerState, kind: str, values: Mapping[str, Any], now: float) -> WorkerState:
    """A worker after one of its events."""
    budget = values.get("budget_bytes", before.budget_bytes)
    fresh = WorkerState(before.number, since=now, budget_bytes=budget, host=before.host)
    if kind == "iteration":
        return replace(before, iteration=values["iteration"], iters=values["iters"])
    if kind == "train":
        return replace(
            before,
            train_loss=values["train_loss"],
            tokens_per_s=values["tokens_per_s"],
            peak_memory_bytes=values.get("peak_memory_bytes"),
            footprint_bytes=values.get("footprint_bytes"),
            budget_bytes=budget,
        )
    if kind == "eval":
        point = (values["iteration"], values["val_loss"])
        curve = (*before.curve, point)[-_N_POINTS:]
        return replace(before, curve=curve, iteration=values["iteration"])
    if kind in ("trial_start", "confirm_start"):
        number = values.get("confirms")
        label = str(values["number"]) if number is None else f"{number} again"
        return replace(
            fresh,
            doing="trial",
            trial=label,
            settings=values["settings"],
            iters=values.get("iters") or values["settings"].get("iters") or 0,
        )
    if kind == "scoring":
        return replace(before, doing="scoring", text=str(values["n_prompts"]))
    if kind == "preparing":
        return replace(fresh, doing="preparing", text=values["text"])
    if kind == "loading":
        return replace(fresh, doing="preparing", text=f"loading {values['model']}")
    if kind == "test_start":
        return replace(fresh, doing="test", trial=str(values["number"]))
    if kind == "retention_start":
        questions = str(values["n_prompts"])
        return replace(fresh, doing="retention", trial=str(values["number"]), text=questions)
    return replace(fresh, doing=_DOING[kind]) if kind in _DOING else before


def telling_remaining(listen: Listener, look: Callable[[], Mapping[str, Any]]) -> Listener:
    """Add an event ``standing``, the study's progress, after each event that changes it."""

    def tell(event: Event) -> None:
        listen(event)
        if event.kind in _CHANGES_STANDING:
            listen(Event("standing", values=dict(look())))

    return tell


@contextmanager
def recording(listen: Listener, folder: Path, name: str = _FILE) -> Iterator[Listener]:
    """Keep the state in a file during the block, updated at most once a second.

    If the file cannot be written, the sweep goes on.

    Args:
        folder: The study's.
    """
    follower, path = Follower(), folder / name
    beside = folder / f"{HALF_WRITTEN}{os.getpid()}-{name}"
    process = identity()
    for other in _files(folder):
        if _read(other) is None:  # its process was killed
            other.unlink(missing_ok=True)
    written = 0.0

    def tell(event: Event) -> None:
        nonlocal written
        follower(event)
        now = time.monotonic()
        if now - written >= _WRITE_INTERVAL_S:
            written = now
            text = json.dumps({"process": process, **asdict(follower.state)}, default=str)
            with suppress(OSError):
                # Not synced to disk: after a crash of the machine it is not needed.
                beside.write_text(text, encoding="utf-8")
                os.replace(beside, path)
        listen(event)

    try:
        yield tell
    finally:
        for each in (path, beside):
            with suppress(OSError):
                each.unlink(missing_ok=True)


def joined_file() -> str:
    """The name of the file of a process that joined a sweep."""
    return f"progress-{os.getpid()}.json"


def read_progress(folder: Path) -> SweepState | None:
    """The states of all processes that run a study here, as one; None if no process runs it.

    The first is the one that started it, if it still lives.
    """
    states = [state for path in _files(folder) if (state := _read(path)) is not None]
    if not states:
        return None
    workers = [worker for state in states for worker in state.workers]
    told = sorted((each for state in states for each in state.told), key=lambda each: each.at)
    newest = max(states, key=lambda state: (state.standing is not None, state.finished))
    return replace(
        states[0],
        workers=tuple(
            worker if worker.host else replace(worker, number=n) for n, worker in enumerate(workers)
        ),
        n_workers=sum(state.n_workers for state in states),
        standing=newest.standing,
        best_score=newest.best_score,
        updated=max(state.updated for state in states),
        told=tuple(told[-_N_TOLD:]),
    )


def _files(folder: Path) -> list[Path]:
    """The state of the process that started the sweep comes first."""
    return [folder / _FILE, *sorted(folder.glob("progress-*.json"))]


def _read(path: Path) -> SweepState | None:
    """The state in a file; None if the file is missing or damaged, or its process has ended."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        process = known.pop("process")
        is_fresh = abs(time.time() - path.stat().st_mtime) < _FRESH_S
        if not (is_alive_here(process) or (is_fresh and not is_dead_here(process))):
            return None
        workers = tuple(
            WorkerState(**{**each, "curve": _curve(each["curve"])}) for each in known["workers"]
        )
        told = tuple(ToldEvent(**each) for each in known["told"])
        standing = None if known["standing"] is None else Remaining.from_plain(known["standing"])
        return SweepState(**{**known, "workers": workers, "told": told, "standing": standing})
    except (OSError, ValueError, KeyError, TypeError):
        return None  # being removed, or of another version


def _curve(points: Sequence[Sequence[float]]) -> Curve:
    return tuple((int(iteration), float(loss)) for iteration, loss in points)
