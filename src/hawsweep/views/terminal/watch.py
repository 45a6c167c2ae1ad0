"""A picture that is updated while its study changes."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live

from hawsweep.errors import HawsweepError
from hawsweep.machine.output import visible_output
from hawsweep.study.storage import STORAGE_FAULTS
from hawsweep.views.terminal.progress import RunningPicture
from hawsweep.views.terminal.tables import MOST_ROWS, status_picture
from hawsweep.views.terminal.text import Text

if TYPE_CHECKING:
    from hawsweep.running.status import Status


# Look by look what was drawn last, when, and why nothing was since.
Looks = Iterator[tuple[RenderableType, datetime, Exception | None]]

# Lines below a leaderboard: the test, the verdict, the work left.
_LINES_BELOW = 7

# Faults that pass while a sweep writes: a locked database, a removed file.
_PASSING = (HawsweepError, *STORAGE_FAULTS, OSError, LookupError, ValueError)


def watched_picture(status: "Status", console: Console, *, is_screen: bool) -> RenderableType:
    """The picture of a watched study: its workers, then as many trials as there is room for.

    Without a terminal, values that change every second are left out.
    """
    if not is_screen:
        return status_picture(status, console.width, MOST_ROWS)
    height = console.height - 2
    parts: list[RenderableType] = []
    if status.running is not None:
        running = RunningPicture(
            status.running, with_events=True, with_rows=False, height=max(8, height // 2)
        )
        height -= len(console.render_lines(running, pad=False)) + 1
        parts = [running, ""]
    most = max(3, height - _LINES_BELOW)
    left = status.running is None
    return Group(*parts, status_picture(status, console.width, most, with_left=left))


def watch_status(
    console: Console,
    draw: Callable[[], RenderableType],
    interval_s: float,
    *,
    plain: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Show the result of ``draw`` until Ctrl-C; after a fault, the last picture and the fault.

    On a terminal it takes the whole screen and restores it at the end; elsewhere, or with
    ``plain``, it prints changes.

    Raises:
        HawsweepError: The first picture cannot be drawn.
    """
    show = _on_screen if console.is_terminal and not plain else _in_lines
    with suppress(KeyboardInterrupt):
        show(console, _looks(draw(), draw, interval_s, sleep))


def _looks(
    picture: RenderableType,
    draw: Callable[[], RenderableType],
    interval_s: float,
    sleep: Callable[[float], None],
) -> Looks:
    drawn = datetime.now()
    fault: Exception | None = None
    while True:
        yield picture, drawn, fault
        sleep(interval_s)
        try:
            picture, drawn, fault = draw(), datetime.now(), None
        except _PASSING as passing:
            fault = passing


def _on_screen(console: Console, looks: Looks) -> None:
    with Live(console=console, screen=True, auto_refresh=False) as live, visible_output():
        for picture, drawn, fault in looks:
            foot = Text(f"{drawn:%H:%M:%S}  Ctrl-C ends", style="dim")
            if fault is not None:
                foot = Text(f"As it was at {drawn:%H:%M:%S}. {fault}", style="yellow")
            # Above the picture, whose end may be cut.
            live.update(Group(foot, picture), refresh=True)


def _in_lines(console: Console, looks: Looks) -> None:
    shown = said = None
    for picture, _, fault in looks:
        if fault is not None and str(fault) != said:
            console.print(Text(f"Not read now: {fault}"), soft_wrap=True)
        said = None if fault is None else str(fault)
        with console.capture() as captured:
            console.print(picture)
        if (text := captured.get()) != shown:
            console.print(picture)
            shown = text
