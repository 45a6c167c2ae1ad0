"""``hawsweep status``."""

from typing import TYPE_CHECKING

import click

from hawsweep.cli.common import (
    csv_option,
    fetch_files,
    json_option,
    place_options,
    plain_option,
    print_csv,
    print_json,
)
from hawsweep.cli.completion import study_completion
from hawsweep.cli.csv_columns import trial_records
from hawsweep.study.place import Place
from hawsweep.views.terminal.console import make_console

if TYPE_CHECKING:
    from hawsweep.running.status import StatusReader
    from hawsweep.views.terminal.console import Console, RenderableType


@click.command()
@click.argument("name", required=False, shell_complete=study_completion)
@click.option("--why", is_flag=True, help="Also show which settings mattered.")
@click.option("--groups", "by_group", is_flag=True, help="Also compare base and winner by group.")
@click.option("--price", is_flag=True, help="Also show what each score costs in time and memory.")
@click.option("--all", "show_all", is_flag=True, help="Show all trials, not only the best 30.")
@click.option("--watch", is_flag=True, help="Keep the picture up to date until Ctrl-C.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Seconds between two updates of --watch.",
)
@plain_option
@json_option
@csv_option
@place_options
def status(
    name: str | None,
    why: bool,
    by_group: bool,
    price: bool,
    show_all: bool,
    watch: bool,
    interval: float,
    plain: bool,
    place: Place,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Show the trials of the study NAME, best first, and the work left.

    Without NAME the newest study is shown.

    \b
    Example: hawsweep status lr-rank --why
             hawsweep status --watch
    """
    if watch and (as_json or as_csv):
        raise click.UsageError("--watch shows a picture: leave out --json and --csv.")
    from hawsweep.running.status import StatusReader

    fetch = None if watch else fetch_files
    onlooker = StatusReader(place, name, why=why, by_group=by_group, price=price, fetch=fetch)
    if as_json:
        print_json(onlooker.look().to_plain())
        return
    if as_csv:
        print_csv(trial_records(onlooker.look().rows))
        return
    console = make_console()
    if watch:
        _watch(console, onlooker, place, interval, plain=plain)
        return
    from hawsweep.views.terminal.tables import MOST_ROWS, status_picture

    most = None if show_all else MOST_ROWS
    console.print(status_picture(onlooker.look(), console.width, most))


def _watch(
    console: "Console", onlooker: "StatusReader", place: Place, interval: float, *, plain: bool
) -> None:
    from hawsweep.prepare.examine_database import check_readable
    from hawsweep.views.terminal.watch import watch_status, watched_picture

    is_screen = console.is_terminal and not plain

    def draw() -> "RenderableType":
        check_readable(place)
        return watched_picture(onlooker.look(), console, is_screen=is_screen)

    watch_status(console, draw, interval, plain=plain)
