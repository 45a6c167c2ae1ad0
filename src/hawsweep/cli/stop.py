"""``hawsweep stop``."""

import click

from hawsweep.cli.common import place_options
from hawsweep.cli.completion import study_completion, trial_completion
from hawsweep.study.place import Place
from hawsweep.views.terminal.console import make_console


@click.command()
@click.argument("name", shell_complete=study_completion)
@click.option(
    "--trial",
    type=int,
    metavar="N",
    shell_complete=trial_completion,
    help="End this trial at its next evaluation; the sweep goes on.",
)
@click.option("--now", is_flag=True, help="Do not wait for the current evaluation to end.")
@place_options
def stop(name: str, trial: int | None, now: bool, place: Place) -> None:
    """Stop the study NAME, or one of its trials. `hawsweep start` goes on with the study.

    \b
    Example: hawsweep stop lr-rank
             hawsweep stop lr-rank --trial 7
    """
    if trial is not None and now:
        raise click.UsageError("--now stops the whole study: leave out --trial.")
    from hawsweep.running.steer import stop_trial
    from hawsweep.running.stop import ask_to_stop

    console = make_console()
    if trial is not None:
        has_ended = stop_trial(name, place, trial)
        when = "has ended." if has_ended else "ends at its next evaluation; the sweep goes on."
        console.say(f"Trial {trial} {when}")
        return
    with console.status("stopping: the trials save their state") as spinner:
        goes_on = ask_to_stop(name, place, spinner.update, now=now)
    if goes_on is None:
        said = "Stopped while it prepared: there is no study yet. `hawsweep start` begins it."
    elif goes_on:
        said = f"Stopped. To go on: {goes_on}"
    else:
        here = f"No process on this machine runs study {name!r}."
        said = f"{here} On other machines it stops shortly."
    console.say(said, soft_wrap=True)
