"""``hawsweep worker``."""

import sys
from functools import partial
from pathlib import Path

import click

from hawsweep.cli.common import place_options, plain_option
from hawsweep.cli.completion import study_completion
from hawsweep.study.place import Place
from hawsweep.views.terminal.console import make_console

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
@place_options
def worker(
    name: str,
    model: Path | None,
    data: Path | None,
    workers: int | None,
    plain: bool,
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

    console, storage = make_console(), open_storage(place)
    say = partial(console.print, markup=False, highlight=False)
    is_shared = place.storage_url is not None
    study = await_study(storage, name, say) if is_shared else load_study(storage, name)
    with SweepDisplay(console, spec_of(study).trials, plain=plain) as display:
        outcome = join_sweep(name, place, display, workers or "auto", model=model, data=data)
    if outcome.ended == "interrupted":
        sys.exit(130)
