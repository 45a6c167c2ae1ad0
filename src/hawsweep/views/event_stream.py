"""The events of a running sweep for programs: `hawsweep start --json` prints a line for each."""

import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, create_model

from hawsweep.running.events import Ended, Event

if TYPE_CHECKING:
    from hawsweep.running.start import Outcome

# Raised where a program that reads the events of earlier versions could fail: another meaning of a
# key, a key or an event less. A new event or key leaves it.
VERSION = 1
_Settings = dict[str, Any]
_TRIAL: dict[str, Any] = {"number": int | None, "settings": _Settings | None}
_RESULT: dict[str, Any] = {
    **_TRIAL,
    "state": str,
    "reason": str | None,
    "val_loss": float | None,
    "score": float | None,
    "time_s": float | None,
}
_AGAIN: dict[str, Any] = {"confirms": int | None, "seed": int | None}
# Each event with its keys; all are there, perhaps null.
EVENTS: dict[str, dict[str, Any]] = {
    "begin": {"version": Literal[1], "study": str, "hawsweep": str},
    "preparing": {"text": str},
    "study": {
        "is_new": bool,
        "finished": int,
        "n_trials": int,
        "n_workers": int,
        "timeout_s": float | None,
        "best_trial": int | None,
        "best_score": float | None,
    },
    "left_out": {"model": str, "reason": str},
    "host": {"state": Literal["joined", "away", "left"], "text": str},
    "ready": {
        "n_train": int,
        "n_valid": int,
        "n_truncated": int,
        "n_dropped": int,
        "warnings": list[str],
    },
    "base_start": {},
    "base_end": {
        "model": str | None,
        "base": dict[str, Any],
        "few_shot": dict[str, Any] | None,
        "self_check": dict[str, Any],
    },
    "trial_start": _TRIAL,
    "train": {
        "iteration": int,
        "train_loss": float | None,
        "tokens_per_s": float | None,
        "peak_memory_bytes": int | None,
    },
    "eval": {"iteration": int, "val_loss": float | None},
    "scoring": {"n_prompts": int},
    "trial_end": _RESULT,
    "confirm_start": {**_TRIAL, **_AGAIN},
    "confirm_end": {**_RESULT, **_AGAIN},
    "test_start": {"number": int},
    "retention_start": {"number": int, "n_prompts": int},
    "test_end": {"number": int | None},
    "died": {"reason": str},
    "reaped": {"number": int, "reason": str},
    "exhausted": {"n_trials": int},
    "settled": {"gain": float, "asked": str},
    "extended": {"n_trials": int, "timeout_s": float | None},
    "not_told": {"text": str},
    "interrupting": {},
    "error": {"message": str},
    "end": {
        "ended": Ended,
        "best_trial": int | None,
        "best_score": float | None,
        "use": int | None,
        "sentences": list[str],
    },
}


class _Line(BaseModel):
    """An event; ``at`` is in seconds since the epoch, ``host`` another machine, or empty."""

    model_config = ConfigDict(extra="forbid")
    at: float
    host: str
    worker: int


def _model(kind: str, keys: Mapping[str, Any]) -> type[BaseModel]:
    fields: dict[str, Any] = {"event": (Literal[kind], ...)}
    fields |= {key: (type_, ...) for key, type_ in keys.items()}
    return create_model(kind, __base__=_Line, **fields)


LINES = tuple(_model(kind, keys) for kind, keys in EVENTS.items())


class EventStream:
    """A listener that gives each event of ``EVENTS`` to ``write``, as plain values."""

    def __init__(self, write: Callable[[Mapping[str, Any]], None]) -> None:
        self._write = write

    def __call__(self, event: Event) -> None:
        """Give an event, with its keys."""
        self.tell(event.kind, event.worker, event.host, **event.values)

    def begin(self, study: str) -> None:
        """Give the first event."""
        self.tell("begin", version=VERSION, study=study, hawsweep=version("hawsweep"))

    def end(self, outcome: "Outcome") -> None:
        """Give the last event: how it ended, and the verdict."""
        best, verdict = outcome.best_trial, outcome.verdict()
        self.tell(
            "end",
            ended=outcome.ended,
            best_trial=None if best is None else best.number,
            best_score=None if best is None else best.value,
            use=None if verdict is None else verdict.use,
            sentences=[] if verdict is None else list(verdict.sentences),
        )

    def tell(self, kind: str, worker: int = 0, host: str = "", /, **values: Any) -> None:
        """Give an event, unless it is none of ``EVENTS``."""
        if kind in EVENTS:
            known = {key: values.get(key) for key in EVENTS[kind]}
            about = {"event": kind, "at": round(time.time(), 3), "host": host, "worker": worker}
            self._write({**about, **known})
