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
@click.argument("name", required=False)
@click.option("--port", type=click.IntRange(1, 65535), help="8080 by default, or a free one.")
@click.option(
    "--host",
    metavar="HOST",
    default="127.0.0.1",
    show_default=True,
    help="Where others reach it, it asks for a token: HAWSWEEP_DASHBOARD_TOKEN or a new one.",
)
@click.option("--no-token", is_flag=True, help="Let everybody in who reaches HOST.")
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@place_options
def dashboard(
    name: str | None,
    port: int | None,
    host: str,
    no_token: bool,
    no_browser: bool,
    place: "Place",
) -> None:
    """Serve optuna-dashboard over the studies, and open it in the browser, on the study NAME.

    On this machine only without --host. Notes, files and plots of the studies are kept up to date
    while it runs.

    \b
    Example: hawsweep dashboard lr-rank
    """
    from hawsweep.browser import open_address
    from hawsweep.dashboard import choose_token, is_loopback, serve

    if no_token and not is_loopback(host):
        click.echo(
            f"Warning: without a token anybody on the network who reaches {host} can change and "
            "delete the studies.",
            err=True,
        )
    token = None if no_token else choose_token(host)

    def ready(address: str) -> None:
        click.echo(f"optuna-dashboard: {address}  (Ctrl-C ends it)")
        # Other users of this machine could read the token off the browser's command line.
        if not no_browser and token is None and is_loopback(host):
            open_address(address)

    serve(place, host, port, token, ready, name=name)


@click.command()
@click.option(
    "--rebuild",
    is_flag=True,
    help="Make a new database out of the studies' folders, beside one that is lost.",
)
@json_option
@place_options
def doctor(rebuild: bool, place: "Place", as_json: bool) -> None:
    """Examine the database, and say what the studies' folders could give back.

    Exit code 1 where something is wrong.

    \b
    Example: hawsweep doctor --rebuild
    """
    from hawsweep import doctor

    found = doctor.examine_and_rebuild(place) if rebuild else doctor.examine(place)
    if as_json:
        click.echo(json.dumps(found.to_plain(), indent=2))
    else:
        from hawsweep.display.diagnosis import diagnosis_picture

        make_console().print(diagnosis_picture(found), soft_wrap=True)
    if not (found.is_fine or found.rebuilt):
        sys.exit(1)
