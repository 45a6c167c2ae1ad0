"""A running sweep as one picture: progress and its end, the workers, the best so far, events."""

import math
import time
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table

from hawsweep.running.progress import SweepState, ToldEvent, WorkerState
from hawsweep.text import clock, counted, duration, settings_text, when
from hawsweep.views.terminal.curves import loss_at, sparkline
from hawsweep.views.terminal.events import event_lines
from hawsweep.views.terminal.tables import leaderboard_table, then_text
from hawsweep.views.terminal.text import Text, fit_line

# From this many columns on a worker's settings are in its line.
_ROOMY = 120
_N_EVENTS = 6
_BAR = 10
# The fewest columns for settings, even if cut.
_LEAST_SETTINGS = 36
_FEWEST_ROWS = 1


class RunningPicture:
    """A sweep's state now, as wide as the terminal and at most as high.

    Args:
        with_events: Show the last events too, unless they are printed above it.
        height: The most lines; by default the terminal's.
    """

    def __init__(
        self,
        state: SweepState,
        *,
        with_events: bool = False,
        with_rows: bool = True,
        now: float | None = None,
        height: int | None = None,
    ) -> None:
        self._state, self._with_events, self._with_rows = state, with_events, with_rows
        self._now, self._height = time.time() if now is None else now, height

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        height = self._height or options.height or console.height
        yield from self._head(width, options.ascii_only)
        workers = _workers(self._state, self._now, width, options.ascii_only)
        yield from workers
        room = height - 3 - _height_of(workers, console, options)
        if self._with_events and self._state.told:
            told = [_told_line(each, width) for each in self._state.told]
            lines = [line for line in told if line is not None][-_N_EVENTS:]
            if room > len(lines):
                room -= len(lines) + 1
                yield Group("", *lines)
        standing = self._state.standing
        n_rows = min(0 if standing is None else len(standing.rows), room - 2)
        if self._with_rows and standing is not None and n_rows >= _FEWEST_ROWS:
            yield Group("", leaderboard_table(standing.rows[:n_rows], width))

    def _head(self, width: int, ascii_only: bool) -> RenderResult:
        state, standing = self._state, self._state.standing
        share = min(state.finished / max(1, state.n_trials), 1.0)
        left = state.ends_in(self._now)
        ends = (
            "" if left is None else f"ends {when(self._now + left, self._now)}, in {duration(left)}"
        )
        n_paused = 0 if standing is None else standing.n_paused
        said = f"{state.finished}/{counted(state.n_trials, 'trial')}"
        said += f", {n_paused} paused" if n_paused else ""
        bar = ProgressBar(1.0, share, width=30 if width >= _ROOMY else 16)
        time_taken = clock(max(0.0, self._now - state.started))
        cells = (Text(state.name, style="bold"), bar, said, time_taken, ends)
        yield _row_that_fits(cells, (1, 3, 4), 2, width)
        parts = []
        if standing is not None and standing.best is not None and state.best_score is not None:
            parts.append(f"best: trial {standing.best} {state.best_score:.4f}")
        if standing is not None and (then := then_text(standing)):
            parts.append(f"then {then}")
        if parts:
            yield fit_line(Text("; ".join(parts), style="dim"), width)
        if standing is not None and standing.known:
            yield fit_line(Text(standing.known[0], style="dim"), width)


def _height_of(parts: Sequence[RenderableType], console: Console, options: ConsoleOptions) -> int:
    return sum(len(console.render_lines(each, options)) for each in parts)


def _row_that_fits(
    cells: Sequence[RenderableType], dropped: Sequence[int], gap: int, width: int
) -> Table:
    """A line of cells, of which some go whole where room is short.

    Args:
        dropped: The places of these, the first first.
        gap: The columns between two cells.
    """
    shown = list(range(len(cells)))
    for place in (None, *dropped):
        shown = [each for each in shown if each != place]
        if sum(_width_of(cells[each]) + gap for each in shown) - gap <= width:
            break
    row = Table.grid(padding=(0, gap, 0, 0))
    for _ in shown:
        row.add_column(no_wrap=True, overflow="ellipsis")
    row.add_row(*(cells[each] for each in shown))
    return row


def _width_of(cell: RenderableType) -> int:
    return (cell.width or 0) if isinstance(cell, ProgressBar) else cell_len(str(cell))


def _told_line(told: ToldEvent, width: int) -> Text | None:
    lines = event_lines(told.kind, told.values, told.host)
    if not lines:
        return None
    line = Text.assemble((f"{time.strftime('%H:%M', time.localtime(told.at))}  ", "dim"))
    line.append_text(lines[0])
    return fit_line(line, width)


def _workers(state: SweepState, now: float, width: int, ascii_only: bool) -> list[RenderableType]:
    draw = _WorkerDrawing(state, now, ascii_only)
    if width >= _ROOMY and state.workers and (table := draw.table(state.workers, width)):
        return [table]
    return [draw.two_lines(worker, width) for worker in state.workers]


class _WorkerDrawing:
    def __init__(self, state: SweepState, now: float, ascii_only: bool) -> None:
        standing = state.standing
        self._best = None if standing is None else standing.best
        self._best_curve = () if standing is None else standing.best_curve
        self._now, self._ascii = now, ascii_only
        self._longest = max((len(_doing(each)[0]) for each in state.workers), default=0)

    def table(self, workers: Sequence[WorkerState], width: int) -> Table | None:
        """One full line for each worker; None if there is no room for settings."""
        to = "" if self._best is None else f"to trial {self._best}"
        titles = ("iteration", "train", "val", "", to, "tok/s", "GB (process)", "time")
        rows = [self._cells(worker) for worker in workers]
        doing = [_doing(worker) for worker in workers]
        taken = [self._longest, _BAR]
        for column in zip(titles, *rows, strict=True):
            taken.append(max(cell_len(str(cell)) for cell in column))
        room = width - sum(taken) - 2 * len(taken)
        if room < min(_LEAST_SETTINGS, max(what.cell_len for _, what in doing)):
            return None
        table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("", no_wrap=True)
        table.add_column("settings", no_wrap=True)
        table.add_column("", no_wrap=True)
        for title in titles:
            table.add_column(title, justify="right", no_wrap=True)
        for worker, (who, what), row in zip(workers, doing, rows, strict=True):
            bar = ProgressBar(worker.iters, worker.iteration, width=_BAR) if worker.iters else ""
            table.add_row(Text(who, style="bold"), fit_line(what, room, "  "), bar, *row)
        return table

    def _cells(self, worker: WorkerState) -> tuple[str | Text, ...]:
        return (
            f"{worker.iteration}/{worker.iters}" if worker.iters else "",
            _loss(worker.train_loss),
            _loss(worker.curve[-1][1] if worker.curve else None),
            self._spark(worker, _BAR),
            self._lead(worker),
            "" if worker.tokens_per_s is None else f"{worker.tokens_per_s:.0f}",
            _memory(worker),
            self._time(worker),
        )

    def two_lines(self, worker: WorkerState, width: int) -> RenderableType:
        """A worker's activity and losses; in a second line settings, speed, memory and time."""
        who, what = _doing(worker)
        if not worker.iters:
            line = Text.assemble((f"{who}  " if who else ""), what)
            line = fit_line(line, width - 9)
            line.pad_right(max(0, width - 9 - line.cell_len))
            line.append(f" {self._time(worker):>8}", style="dim")
            return line
        cells = (
            Text(f"{who:{self._longest}}", style="bold"),
            ProgressBar(worker.iters, worker.iteration, width=8),
            f"{f'{worker.iteration}/{worker.iters}':>9}",
            f"train {_loss(worker.train_loss)}" if worker.train_loss is not None else "",
            f"val {_loss(worker.curve[-1][1])}" if worker.curve else "",
            self._spark(worker, 8),
            self._lead(worker, with_name=True),
        )
        upper = _row_that_fits(cells, (5, 1, 6, 3), 1, width)
        rate = "" if worker.tokens_per_s is None else f"{worker.tokens_per_s:.0f} tok/s"
        memory = f"{_memory(worker)} GB" if _memory(worker) else ""
        settings = Text(f"  {what.plain}", style="dim")
        needed = min(settings.cell_len, _LEAST_SETTINGS)
        for first in range(3):  # speed and memory go where the settings have no room
            right = "  ".join(each for each in (rate, memory, self._time(worker))[first:] if each)
            room = max(0, width - len(right) - 2)
            if room >= needed:
                break
        lower = fit_line(settings, room, "  ")
        lower.pad_right(max(0, room - lower.cell_len))
        lower.append(f"  {right}")
        return Group(upper, lower)

    def _spark(self, worker: WorkerState, width: int) -> Text:
        losses = [loss for _, loss in worker.curve]
        scale = [
            loss
            for loss in (*losses, *(loss for _, loss in self._best_curve))
            if math.isfinite(loss)
        ]
        if not losses or not scale:
            return Text("")
        text = sparkline(losses, min(scale), max(scale), width, self._ascii)
        return Text(text, style="blue")

    def _lead(self, worker: WorkerState, *, with_name: bool = False) -> Text:
        """The last validation loss less the best trial's at the same iteration."""
        if not worker.curve or worker.trial is None:
            return Text("")
        iteration, loss = worker.curve[-1]
        best = loss_at(self._best_curve, iteration)
        if best is None or not math.isfinite(loss):
            return Text("")
        style = "green" if loss <= best else "yellow"
        name = f" to trial {self._best}" if with_name else ""
        return Text.assemble((f"{loss - best:+.3f}", style), (name, "dim"))

    def _time(self, worker: WorkerState) -> str:
        if not worker.since or worker.doing == "waiting":
            return ""
        return clock(max(0.0, self._now - worker.since))


def _doing(worker: WorkerState) -> tuple[str, Text]:
    """A worker's name, and its activity or settings."""
    who, what = _doing_here(worker)
    return f"{worker.host} {worker.number}  {who}".rstrip() if worker.host else who, what


def _doing_here(worker: WorkerState) -> tuple[str, Text]:
    trial = f"trial {worker.trial}"
    if worker.doing == "trial":
        return trial, Text(settings_text(worker.settings))
    if worker.doing == "scoring":
        return trial, Text(f"translating {worker.text} validation prompts")
    if worker.doing == "base":
        return "base", Text("measuring the untuned model")
    if worker.doing == "test":
        return trial, Text("translating the test split, as does the base")
    if worker.doing == "retention":
        return trial, Text(f"answering {worker.text} questions of retention, as does the base")
    if worker.doing == "preparing":
        return "", Text(worker.text)
    return "", Text(worker.doing, style="dim")


def _loss(loss: float | None) -> str:
    return "" if loss is None else f"{loss:.3f}"


def _memory(worker: WorkerState) -> str:
    """The peak of the trial's arrays and their budget, and what the process takes now."""
    if worker.peak_memory_bytes is None:
        return ""
    of = "" if worker.budget_bytes is None else f"/{worker.budget_bytes / 1e9:.2f}"
    process = "" if worker.footprint_bytes is None else f" ({worker.footprint_bytes / 1e9:.2f})"
    return f"{worker.peak_memory_bytes / 1e9:.2f}{of}{process}"
