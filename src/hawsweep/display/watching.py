"""A picture shown again and again while what it shows changes."""

import sqlite3
import time
from collections.abc import Callable
from datetime import datetime

from optuna.exceptions import StorageInternalError
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text
from sqlalchemy.exc import SQLAlchemyError

from hawsweep.errors import HawsweepError

# A sweep writes while it is looked at: a database in use, a file that was there a moment ago.
_PASSING = (
    HawsweepError,
    StorageInternalError,
    SQLAlchemyError,
    sqlite3.Error,
    OSError,
    LookupError,
    ValueError,
)


def watch_status(
    console: Console,
    draw: Callable[[], RenderableType],
    interval_s: float,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Show what ``draw`` gives until Ctrl-C; where it fails, what it gave last, and why it failed.

    On a terminal it takes the whole screen and leaves it as it was; elsewhere it prints what has
    changed.

    Raises:
        HawsweepError: The first picture cannot be drawn.
    """
    try:
        picture = draw()
        if console.is_terminal:
            _on_screen(console, picture, draw, interval_s, sleep)
        else:
            _in_lines(console, picture, draw, interval_s, sleep)
    except KeyboardInterrupt:
        return


def _on_screen(
    console: Console,
    picture: RenderableType,
    draw: Callable[[], RenderableType],
    interval_s: float,
    sleep: Callable[[float], None],
) -> None:
    drawn = datetime.now()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        fault: Exception | None = None
        while True:
            foot = Text(f"{drawn:%H:%M:%S}  Ctrl-C ends", style="dim")
            if fault is not None:
                foot = Text(f"As it was at {drawn:%H:%M:%S}. {fault}", style="yellow")
            # Above the picture: a long one is cut below.
            live.update(Group(foot, picture), refresh=True)
            sleep(interval_s)
            try:
                picture, drawn, fault = draw(), datetime.now(), None
            except _PASSING as passing:
                fault = passing


def _in_lines(
    console: Console,
    picture: RenderableType,
    draw: Callable[[], RenderableType],
    interval_s: float,
    sleep: Callable[[float], None],
) -> None:
    shown = said = None
    while True:
        with console.capture() as captured:
            console.print(picture)
        if (text := captured.get()) != shown:
            console.print(picture)
            shown = text
        sleep(interval_s)
        try:
            picture, said = draw(), None
        except _PASSING as fault:
            if str(fault) != said:
                console.print(Text(f"Not read now: {fault}"), soft_wrap=True)
                said = str(fault)
