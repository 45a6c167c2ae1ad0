"""``hawsweep worker``."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hawsweep.cli.common import place_options, plain_option, print_json_line
from hawsweep.cli.completion import study_completion
from hawsweep.cli.start import events_on_stdout, events_option
from hawsweep.study.place import Place
from hawsweep.views.terminal.console import make_console

if TYPE_CHECKING:
    from hawsweep.running.events import Listener

_PATH = click.Path(exists=True, path_type=Path)


@click.command()
@click.argument("name", shell_complete=study_completion)
@click.option(
    "--model", type=_PATH, help="Where the model is on this machine, if not where the sweep says."
)
@click.option(
    "--data", type=_PATH, help="Where the data is on this machine, if not where the sweep says."
)
@click.option("--workers", type=click.IntRange(1, 64), help="Default: as many as make it faster.")
@plain_option
@events_option
@click.option(
    "--tied",
    is_flag=True,
    help="As `hawsweep start --hosts` runs it: with all values, and ends with its standard input.",
)
@place_options
def worker(
    name: str,
    model: Path | None,
    data: Path | None,
    workers: int | None,
    plain: bool,
    as_events: bool,
    tied: bool,
    place: Place,
) -> None:
    """Run trials of the study NAME here too, beside the process that started it.

    On another machine, name the shared database with --storage: postgresql+psycopg://USER@HOST/NAME
    or another, or grpc://HOST:PORT of its proxy. There it waits until the study is started, and
    runs trials only with the same data, model, metric and versions of libraries.

    \b
    Example: hawsweep worker lr-rank --workers 2
    """
    from hawsweep.running.start import join_sweep
    from hawsweep.study.storage import open_storage
    from hawsweep.study.study import await_study, load_study, spec_of
    from hawsweep.views.terminal.live import SweepDisplay

    join = partial(
        join_sweep, name, place, workers=workers or "auto", model=model, data=data, tied=tied
    )
    is_shared = place.storage_url is not None
    if tied:
        with _tied() as listen:
            outcome = join(listen)
    elif as_events:
        with events_on_stdout(name) as stream:
            if is_shared:
                await_study(open_storage(place), name, partial(click.echo, err=True))
            outcome = join(stream)
            stream.end(outcome)
    else:
        console, storage = make_console(), open_storage(place)
        study = await_study(storage, name, console.say) if is_shared else load_study(storage, name)
        with SweepDisplay(console, spec_of(study).trials, plain=plain) as display:
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
