"""Runs a study beside another, for the commands that need one."""

import sys
from typing import TYPE_CHECKING

import click

from hawsweep.study.place import Place
from hawsweep.views.terminal.console import make_console

if TYPE_CHECKING:  # its import takes a second
    import optuna

    from hawsweep.spec.sweep import SweepSpec


def run_companion(
    spec: "SweepSpec",
    study_name: str,
    place: Place,
    *,
    plain: bool,
    as_json: bool,
    differs: str,
    again: str,
) -> "optuna.Study":
    """Run it, or go on with it; the process ends where it is interrupted.

    Args:
        as_json: The picture then goes to standard error.
        differs: What to say of a study of that name that was made otherwise.
        again: The command that goes on.

    Raises:
        SpecChangedError: There is a study of that name that was made otherwise.
    """
    from hawsweep.errors import SpecChangedError
    from hawsweep.running.start import run_sweep
    from hawsweep.views.terminal.live import SweepDisplay

    with SweepDisplay(make_console(stderr=as_json), spec.trials, plain=plain) as display:
        try:
            outcome = run_sweep(
                spec,
                study_name,
                studies_dir=place.studies_dir,
                storage=place.storage_url,
                on_event=display,
            )
        except SpecChangedError as fault:
            raise SpecChangedError(f"{differs} {fault}") from fault
    if outcome.ended == "interrupted":
        click.echo(f"Interrupted. Go on: {again}", err=True)
        sys.exit(130)
    return outcome.study
