"""The events of a running sweep, for listeners."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

Ended = Literal["finished", "timeout", "interrupted"]


@dataclass(frozen=True)
class Event:
    """An event of ``worker``, on the machine ``host``, which is empty for this one; the keys of
    ``values`` depend on ``kind``.

    Of the sweep: ``preparing``, ``study``, ``left_out``, ``interrupting``, ``died``, ``reaped``,
    ``not_told``, ``exhausted`` (``n_trials``), ``settled`` (``gain``, ``asked``), ``extended``
    (``n_trials``, ``timeout_s``), ``host`` (``state``: ``joined``, ``away`` or ``left``; ``text``),
    ``tick`` where nothing happens, and ``ended``, which only
    ``write_notes`` and ``report_to`` are told, when no worker runs any more. Of a worker:
    ``ready``,
    ``base_start`` and ``base_end``, ``trial_start`` and ``trial_end`` (``number``, ``settings``;
    ``state``, ``val_loss``, ``score``, ``reason``), ``iteration``, ``train``, ``eval`` and
    ``scoring`` between them, ``confirm_start`` and ``confirm_end``, ``test_start`` and
    ``retention_start`` (``number``, ``n_prompts``), each only if it is done, and ``test_end``.
    """

    kind: str
    worker: int = 0
    values: dict[str, Any] = field(default_factory=dict)
    host: str = ""


Listener = Callable[[Event], None]

# After these a worker is free for its next work.
FREES_WORKER = frozenset({"ready", "base_end", "trial_end", "confirm_end", "test_end"})
