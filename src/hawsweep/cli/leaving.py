"""Commands that lead out of a study: the export, the dashboard, the diagnosis."""

import json
import sys
from typing import TYPE_CHECKING

import click

from hawsweep.cli.common import json_option, make_console, place_options

if TYPE_CHECKING:
    from hawsweep.study import Place


@click.command()
@click.argument("name")
@click.option("--trial", "trial_number", type=int, metavar="N", help="Instead of the best trial.")
@click.option("--fuse", is_flag=True, help="Also write the fused model.")
@click.option("--force", is_flag=True, help="Replace an earlier export.")
@json_option
@place_options
def export(
    name: str, trial_number: int | None, fuse: bool, force: bool, place: "Place", as_json: bool
) -> None:
    """Write the best adapter of the study NAME, checked by its translations.

    \b
    Example: hawsweep export lr-rank --fuse
    """
    from hawsweep.export import export_trial
    from hawsweep.study import load_study, open_storage

    console = make_console(stderr=as_json)
    with console.status("exporting") as spinner:
        opened = load_study(open_storage(place), name)
        exported = export_trial(
            opened,
            place,
            trial_number=trial_number,
            fuse=fuse,
            force=force,
            progress=spinner.update,
        )
    if as_json:
        click.echo(json.dumps({**vars(exported), "folder": str(exported.folder)}, indent=2))
        return
    from hawsweep.display.tables import export_text

    console.print(export_text(exported, opened.user_attrs["spec"]["model"]), soft_wrap=True)


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), help="8080 by default, or a free one.")
@click.option(
    "--host",
    metavar="HOST",
    default="127.0.0.1",
    show_default=True,
    help="Where others reach it, it asks for a token: HAWSWEEP_DASHBOARD_TOKEN or a new one.",
)
@click.option("--no-token", is_flag=True, help="Let everybody in who reaches HOST.")
@place_options
def dashboard(port: int | None, host: str, no_token: bool, place: "Place") -> None:
    """Serve optuna-dashboard over the studies, on this machine only without --host.

    \b
    Example: hawsweep dashboard --port 8081
    """
    from hawsweep.dashboard import choose_token, is_loopback, serve

    if no_token and not is_loopback(host):
        click.echo(
            f"Warning: without a token anybody on the network who reaches {host} can change and "
            "delete the studies.",
            err=True,
        )
    token = None if no_token else choose_token(host)
    serve(
        place,
        host,
        port,
        token,
        lambda address: click.echo(f"optuna-dashboard: {address}  (Ctrl-C ends it)"),
    )


@click.command()
@click.option(
    "--rebuild",
    is_flag=True,
    help="Make a new database out of the studies' folders, beside one that is lost.",
)
@click.option("--quick", is_flag=True, help="Measure nothing, and train nothing.")
@json_option
@place_options
def doctor(rebuild: bool, quick: bool, place: "Place", as_json: bool) -> None:
    """Examine this machine, the installation and the database, and train a few steps.

    Says what the studies' folders could give back of the database. Exit code 1 where something is
    wrong, not for warnings.

    \b
    Example: hawsweep doctor --quick
             hawsweep doctor --rebuild
    """
    from hawsweep import doctor
    from hawsweep.findings import Finding, worst

    found = doctor.examine_and_rebuild(place) if rebuild else doctor.examine(place)
    machine: list[Finding] = []
    console = make_console()
    if not rebuild:
        from hawsweep.examination import examine_machine

        with make_console(stderr=True).status("looking") as spinner:
            made_with = doctor.versions_of_studies(place, found.database)
            machine = examine_machine(place, made_with, quick=quick, progress=spinner.update)
    is_fine = worst(machine) != "fault" and (found.is_fine or bool(found.rebuilt))
    if as_json:
        examined = [each.to_plain() for each in machine]
        click.echo(json.dumps({**found.to_plain(), "machine": examined}, indent=2))
    else:
        from hawsweep.display.diagnosis import diagnosis_picture, machine_picture

        console.print(diagnosis_picture(found), soft_wrap=True)
        if machine:
            console.print(machine_picture(machine))
    if not is_fine:
        sys.exit(1)
