"""``hawsweep worker``."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from typing import TYPE_CHECKING

import click

from hawsweep.cli.common import place_options, plain_option, print_json_line
from hawsweep.cli.completion import study_completion
from hawsweep.cli.start import events_on_stdout
from hawsweep.study.place import Place
from hawsweep.views.terminal.console import make_console

if TYPE_CHECKING:
    from hawsweep.running.events import Listener


@click.command()
@click.argument("name", shell_complete=study_completion)
@click.option("--workers", type=click.IntRange(1, 64), help="Default: as many as make it faster.")
@plain_option
@click.option(
    "--json", "as_events", is_flag=True, help="Print a JSON object for each event, a line each."
)
@click.option(
    "--tied",
    is_flag=True,
    help="As `hawsweep start --hosts` runs it: with all values, and ends with its standard input.",
)
@place_options
def worker(
    name: str, workers: int | None, plain: bool, as_events: bool, tied: bool, place: Place
) -> None:
    """Run trials of the study NAME here too, beside the process that started it.

    On another machine, name the shared database with --storage.

    \b
    Example: hawsweep worker lr-rank --workers 2
    """
    from hawsweep.running.start import join_sweep
    from hawsweep.study.storage import open_storage
    from hawsweep.study.study import load_study, spec_of
    from hawsweep.views.terminal.live import SweepDisplay

    join = partial(join_sweep, name, place, workers=workers or "auto")
    if tied:
        with _tied() as listen:
            outcome = join(listen, tied=True)
    elif as_events:
        with events_on_stdout(name) as stream:
            outcome = join(stream)
            stream.end(outcome)
    else:
        n_trials = spec_of(load_study(open_storage(place), name)).trials
        with SweepDisplay(make_console(), n_trials, plain=plain) as display:
            outcome = join(display)
    if outcome.ended == "interrupted":
        sys.exit(130)


@contextmanager
def _tied() -> Iterator["Listener"]:
    """Pass all events on by standard output, a fault among them, and end with standard input."""
    from hawsweep.errors import HawsweepError
    from hawsweep.running.events import Event
    from hawsweep.running.tied import passing_on, tie

    tie()
    listen = passing_on(partial(print_json_line, file=sys.stdout))
    with redirect_stdout(sys.stderr):
        try:
            yield listen
        except HawsweepError as fault:
            listen(Event("error", values={"message": str(fault)}))
            raise
