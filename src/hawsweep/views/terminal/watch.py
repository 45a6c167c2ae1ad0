"""A picture shown again and again while what it shows changes."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from hawsweep.errors import HawsweepError
from hawsweep.study.storage import STORAGE_FAULTS
from hawsweep.views.terminal.progress import RunningPicture
from hawsweep.views.terminal.tables import MOST_ROWS, status_picture

if TYPE_CHECKING:
    from hawsweep.running.status import Overview


# Look by look what was drawn last, when, and why nothing was since.
Looks = Iterator[tuple[RenderableType, datetime, Exception | None]]

# What a leaderboard is followed by: the test, the verdict, what is left.
_LINES_BELOW = 7

# A sweep writes while it is looked at: a database in use, a file that was there a moment ago.
_PASSING = (HawsweepError, *STORAGE_FAULTS, OSError, LookupError, ValueError)


def watched_picture(status: "Overview", console: Console, *, is_screen: bool) -> RenderableType:
    """What is watched of a study: what runs, then its trials, as many as there is room for.

    Where it is no screen, what changes with every second is left out.
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
    """Show what ``draw`` gives until Ctrl-C; where it fails, what it gave last, and why it failed.

    On a terminal it takes the whole screen and leaves it as it was; elsewhere it prints what has
    changed. ``plain`` does that on a terminal too.

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
    with Live(console=console, screen=True, auto_refresh=False) as live:
        for picture, drawn, fault in looks:
            foot = Text(f"{drawn:%H:%M:%S}  Ctrl-C ends", style="dim")
            if fault is not None:
                foot = Text(f"As it was at {drawn:%H:%M:%S}. {fault}", style="yellow")
            # Above the picture: a long one is cut below.
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
