"""``hawsweep extend``."""

import click

from hawsweep.cli.common import option_that_went, place_options
from hawsweep.cli.completion import study_completion
from hawsweep.study.place import Place
from hawsweep.text import duration
from hawsweep.views.terminal.console import make_console

# Trials of different lengths could not be compared, nor confirmed by equal ones.
_LONGER = (
    "start another study, all of whose trials are longer: hawsweep start SWEEP --study NAME-long "
    "--set train.iters=N. Then enqueue the trial's setting there"
)


@click.command()
@click.argument("name", shell_complete=study_completion)
@click.option("--trials", metavar="+N", help="Trials to add, such as +5.")
@click.option("--timeout", metavar="+TIME", help="Time to add, such as +2h.")
@option_that_went("--trial", _LONGER)
@option_that_went("--iters", _LONGER)
@place_options
def extend(name: str, trials: str | None, timeout: str | None, place: Place) -> None:
    """Give the study NAME more trials or more time, while it runs or for its next start.

    \b
    Example: hawsweep extend lr-rank --trials +5
             hawsweep extend lr-rank --timeout +2h
    """
    if trials is None and timeout is None:
        raise click.UsageError("Give --trials, --timeout or both.")
    from hawsweep.machine.processes import supervisor_of
    from hawsweep.running.status import start_command
    from hawsweep.running.steer import extend as add

    spec = add(name, place, trials, timeout)
    time = "" if spec.timeout is None else f", {duration(spec.timeout)} from its start"
    console = make_console()
    console.print(f"Study {name}: {spec.trials} trials{time}.", highlight=False, markup=False)
    if (gain := spec.stop_when.expected_gain) is not None:
        console.print(
            f"stop_when ends it earlier, once another hour is expected to bring less than {gain}.",
            highlight=False,
        )
    if supervisor_of(place.study_dir(name)) is None:
        console.print(f"To go on: {start_command(name, spec, place)}", markup=False, soft_wrap=True)
