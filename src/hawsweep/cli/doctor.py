"""``hawsweep doctor``."""

import sys

import click

from hawsweep.cli.common import json_option, place_options, print_json
from hawsweep.study.place import Place
from hawsweep.views.terminal.console import make_console


@click.command()
@click.option("--rebuild", is_flag=True, hidden=True)
@click.option("--quick", is_flag=True, help="Check without measuring or training.")
@json_option
@place_options
def doctor(rebuild: bool, quick: bool, place: Place, as_json: bool) -> None:
    """Examine this machine, the installation and the database, and train a few steps.

    If the database is damaged, the command that restores its backup is shown. The exit code is 1
    if there is a fault; warnings do not change it.

    \b
    Example: hawsweep doctor --quick
    """
    if rebuild:
        raise click.UsageError(
            "--rebuild is gone: the database has a backup beside it; `hawsweep doctor` gives the "
            "command that puts it back."
        )
    from hawsweep.planning.calibration import kept_calibrations
    from hawsweep.prepare.examine_database import examine, versions_of_studies
    from hawsweep.prepare.examine_machine import examine_machine
    from hawsweep.prepare.finding import worst

    found = examine(place)
    with make_console(stderr=True).status("looking") as spinner:
        made_with = versions_of_studies(place, found.database)
        machine = examine_machine(place, made_with, quick=quick, progress=spinner.update)
    if as_json:
        examined = [each.to_plain() for each in machine]
        print_json({**found.to_plain(), "machine": examined, "calibrations": kept_calibrations()})
    else:
        from hawsweep.views.terminal.doctor import diagnosis_picture, machine_picture

        console = make_console()
        console.print(diagnosis_picture(found), soft_wrap=True)
        console.print(machine_picture(machine))
    if not found.is_fine or worst(machine) == "fault":
        sys.exit(1)
