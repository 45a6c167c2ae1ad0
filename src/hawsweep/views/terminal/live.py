"""The display of a running sweep: a live picture on a terminal, else lines."""

import time
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.live import Live

from hawsweep.machine.output import visible_output
from hawsweep.running.progress import Follower, WorkerState
from hawsweep.views.terminal.events import event_lines, start_line
from hawsweep.views.terminal.progress import RunningPicture
from hawsweep.views.terminal.text import Text

if TYPE_CHECKING:
    from hawsweep.running.events import Event


_PLAIN_INTERVAL_S = 60.0
# After these a worker may do something else.
_CHANGES_DOING = frozenset(
    {"iteration", "tick", "preparing", "base_start", "scoring", "test_start", "retention_start"}
)
# A picture takes some milliseconds of a busy machine.
_PICTURES_PER_S = 1
# Lines above the picture for the last events.
_LINES_ABOVE = 6


class SweepDisplay:
    """Shows a sweep's events: a live picture on a terminal, else lines.

    Args:
        n_trials: The number to finish.
        plain: Lines also on a terminal.
    """

    def __init__(self, console: Console, n_trials: int, *, plain: bool = False) -> None:
        self._console = console
        self._is_live = console.is_terminal and not plain
        self._follow = Follower(n_trials)
        self._told_ready = False
        self._told_at: dict[tuple[str, int], float] = {}
        self._told_text: dict[tuple[str, int], str] = {}
        self._shown = ExitStack()
        self._live = Live(
            get_renderable=self._picture,
            console=console,
            transient=True,
            refresh_per_second=_PICTURES_PER_S,
        )

    def __enter__(self) -> "SweepDisplay":
        if self._is_live:
            self._shown.enter_context(self._live)
            # What is printed meanwhile goes through the live picture.
            self._shown.enter_context(visible_output())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._shown.close()

    def __call__(self, event: "Event") -> None:
        """Show an event."""
        event = self._follow(event)
        if event.kind != "ready" or not self._told_ready:  # workers read the same data
            self._told_ready |= event.kind == "ready"
            for line in event_lines(event.kind, event.values, event.host):
                self._print(line)
        if self._is_live:
            return
        if (start := start_line(event.kind, event.values, event.host)) is not None:
            self._print(start)
        if event.kind in _CHANGES_DOING:
            for worker in self._follow.state.workers:
                self._print_now_and_then(worker)

    def _print(self, line: Text) -> None:
        at = Text.assemble((f"{time.strftime('%H:%M:%S')}  ", "dim"))
        self._console.print(
            at.append_text(line), highlight=False, soft_wrap=not self._console.is_terminal
        )

    def _print_now_and_then(self, worker: WorkerState) -> None:
        text, now, who = _doing_text(worker), time.monotonic(), (worker.host, worker.number)
        if text is None:
            return
        is_new = text != self._told_text.get(who) and worker.doing != "trial"
        # They all prepare alike.
        is_new &= worker.doing != "preparing" or (not worker.host and worker.number == 0)
        told_at = self._told_at.setdefault(who, now)
        if is_new or now - told_at >= _PLAIN_INTERVAL_S:
            self._told_at[who], self._told_text[who] = now, text
            on = f"{worker.host} {worker.number}  " if worker.host else ""
            self._print(Text(f"{on}{text}{_numbers(worker)}"))

    def _picture(self) -> RenderableType:
        height = max(8, self._console.height - _LINES_ABOVE)
        return RunningPicture(self._follow.state, height=height)


def _doing_text(worker: WorkerState) -> str | None:
    """A worker's activity in words; None for a waiting worker."""
    trial = f"trial {worker.trial}"
    return {
        "trial": trial,
        "scoring": f"{trial}: translating {worker.text} validation prompts",
        "base": "base: measuring the untuned model",
        "test": f"{trial} and base: translating the test split",
        "retention": f"{trial} and base: answering {worker.text} questions of retention",
        "preparing": worker.text,
    }.get(worker.doing)


def _numbers(worker: WorkerState) -> str:
    if not worker.iteration or worker.doing != "trial":
        return ""
    parts = [f"iteration {worker.iteration}/{worker.iters}"]
    if worker.train_loss is not None:
        parts.append(f"train {worker.train_loss:.3f}")
    if worker.curve:
        parts.append(f"val {worker.curve[-1][1]:.3f}")
    if worker.tokens_per_s is not None:
        parts.append(f"{worker.tokens_per_s:.0f} tok/s")
    return "  " + "  ".join(parts)
