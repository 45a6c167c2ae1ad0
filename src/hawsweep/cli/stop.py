"""``hawsweep stop``."""

import click

from hawsweep.cli.common import place_options
from hawsweep.cli.completion import study_completion
from hawsweep.study.place import Place
from hawsweep.views.terminal.console import make_console


@click.command()
@click.argument("name", shell_complete=study_completion)
@click.option("--now", is_flag=True, help="Do not wait for the current evaluation to end.")
@place_options
def stop(name: str, now: bool, place: Place) -> None:
    """Stop the study NAME. `hawsweep start` goes on with it.

    \b
    Example: hawsweep stop lr-rank
    """
    from hawsweep.running.start import ask_to_stop

    console = make_console()
    with console.status("stopping: the trials save their state") as spinner:
        was_run = ask_to_stop(name, place, spinner.update, now=now)
    console.print(
        f"Stopped. To go on: hawsweep start {name}"
        if was_run
        else f"No process on this machine runs study {name!r}. On other machines it stops shortly.",
        highlight=False,
    )
