"""``hawsweep extend``."""

import click

from hawsweep.cli.common import place_options
from hawsweep.cli.completion import study_completion
from hawsweep.study.place import Place
from hawsweep.text import duration
from hawsweep.views.terminal.console import make_console


@click.command()
@click.argument("name", shell_complete=study_completion)
@click.option("--trials", metavar="+N", help="Trials to add, such as +5.")
@click.option("--timeout", metavar="+TIME", help="Time to add, such as +2h.")
@click.option("--trial", type=int, metavar="N", help="The trial that --iters is for.")
@click.option(
    "--iters", type=click.IntRange(1), metavar="N", help="Iterations of a trial that goes on."
)
@place_options
def extend(
    name: str,
    trials: str | None,
    timeout: str | None,
    trial: int | None,
    iters: int | None,
    place: Place,
) -> None:
    """Give the study NAME more trials or more time, or one of its trials more iterations, while it
    runs or for its next start.

    \b
    Example: hawsweep extend lr-rank --trials +5
             hawsweep extend lr-rank --timeout +2h
             hawsweep extend lr-rank --trial 3 --iters 3000
    """
    if (trial is None) != (iters is None):
        raise click.UsageError("Give --trial and --iters together.")
    if trials is None and timeout is None and trial is None:
        raise click.UsageError("Give --trials, --timeout, or --trial and --iters.")
    if trial is not None and iters is not None:
        _lengthen(name, place, trial, iters)
    if trials is not None or timeout is not None:
        _extend(name, place, trials, timeout)


def _lengthen(name: str, place: Place, number: int, iters: int) -> None:
    from hawsweep.running.steer import lengthen

    lengthen(name, place, number, iters)
    said = f"Trial {number} of study {name}: {iters} iterations, from its next evaluation on."
    make_console().say(said)


def _extend(name: str, place: Place, trials: str | None, timeout: str | None) -> None:
    from hawsweep.machine.processes import supervisor_of
    from hawsweep.running.status import start_command
    from hawsweep.running.steer import extend as add

    spec = add(name, place, trials, timeout)
    time = "" if spec.timeout is None else f", {duration(spec.timeout)} from its start"
    console = make_console()
    console.say(f"Study {name}: {spec.trials} trials{time}.")
    if (gain := spec.stop_when.expected_gain) is not None:
        console.say(
            f"stop_when ends it earlier, once another hour is expected to bring less than {gain}."
        )
    if supervisor_of(place.study_dir(name)) is None:
        console.print(f"To go on: {start_command(name, spec, place)}", markup=False, soft_wrap=True)
