"""``hawsweep validate``."""

import shlex
import sys

import click

from hawsweep.cli.common import json_option, place_options, print_json, settings_option
from hawsweep.cli.completion import sweep_completion
from hawsweep.cli.start import asked_again, overrides_of, study_option
from hawsweep.study.place import Place
from hawsweep.views.terminal.console import make_console


@click.command()
@click.argument("name", shell_complete=sweep_completion)
@click.option("--model", metavar="REF", help="Check with this model instead of the sweep's.")
@click.option("--data", metavar="REF", help="Check with this data instead of the sweep's.")
@study_option
@settings_option
@json_option
@place_options
def validate(
    name: str,
    study_name: str | None,
    settings: tuple[str, ...],
    place: Place,
    as_json: bool,
    **given: str | None,
) -> None:
    """Check the sweep NAME, or a file: its keys, data, model, memory and time. Nothing is trained.

    It lists all faults at once. The exit code is 1 if `start` would fail.

    \b
    Example: hawsweep validate lr-rank
             hawsweep validate gemma-lr-rank --data pairs.csv --json
    """
    from hawsweep.errors import HawsweepError
    from hawsweep.prepare.finding import Finding, worst
    from hawsweep.prepare.validate import validate_sweep
    from hawsweep.spec.read import find_sweep, read_sweep, study_name_of

    console = make_console(stderr=as_json)
    try:
        path = find_sweep(name)
        spec = read_sweep(path, overrides_of(settings, given))
    except HawsweepError as fault:
        if not as_json:
            raise
        found = [Finding("sweep", "fault", str(fault))]
    else:
        with console.status("looking") as spinner:
            found = validate_sweep(spec, study_name or study_name_of(path), place, spinner.update)
    state = worst(found)
    if as_json:
        plain = [each.to_plain() for each in found]
        print_json({"is_valid": state != "fault", "findings": plain})
    else:
        from hawsweep.views.terminal.sweep_file import verdict_picture

        asked = asked_again(settings, given)
        named = [f"--study={study_name}"] * bool(study_name)
        start = place.command("start", name, *named, *asked)
        preview = shlex.join(["hawsweep", "preview", name, *asked])
        console.print(verdict_picture(found, start, preview))
    if state == "fault":
        sys.exit(1)
