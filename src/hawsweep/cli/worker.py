"""``hawsweep worker``."""

import sys

import click

from hawsweep.cli.common import place_options, plain_option
from hawsweep.cli.completion import study_completion
from hawsweep.study.place import Place
from hawsweep.views.terminal.console import make_console


@click.command()
@click.argument("name", shell_complete=study_completion)
@click.option("--workers", type=click.IntRange(1, 64), help="Default: as many as make it faster.")
@plain_option
@place_options
def worker(name: str, workers: int | None, plain: bool, place: Place) -> None:
    """Run trials of the study NAME here too, beside the process that started it.

    On another machine, name the shared database with --storage.

    \b
    Example: hawsweep worker lr-rank --workers 2
    """
    from hawsweep.running.start import join_sweep
    from hawsweep.study.storage import open_storage
    from hawsweep.study.study import load_study, spec_of
    from hawsweep.views.terminal.live import SweepDisplay

    n_trials = spec_of(load_study(open_storage(place), name)).trials
    with SweepDisplay(make_console(), n_trials, plain=plain) as display:
        outcome = join_sweep(name, place, display, workers or "auto")
    if outcome.ended == "interrupted":
        sys.exit(130)
