"""``hawsweep list``."""

import click

from hawsweep.cli.common import csv_option, json_option, place_options, print_csv, print_json
from hawsweep.study.place import Place
from hawsweep.views.terminal.console import make_console


@click.command("list")
@json_option
@csv_option
@place_options
def list_studies(place: Place, as_json: bool, as_csv: bool) -> None:
    """List the studies and the sweeps that can be started.

    \b
    Example: hawsweep list --json
    """
    from hawsweep.results.leaderboard import list_studies
    from hawsweep.spec.read import sweep_names
    from hawsweep.study.backup import folders_without_study, tell_what_is_left
    from hawsweep.study.storage import open_storage

    path = place.database_path
    is_there = path is None or path.exists()
    studies = list_studies(open_storage(place), place) if is_there else []
    sweeps = {name: str(path) for name, path in sweep_names().items()}
    known = [study.name for study in studies]
    if as_json:
        folders = folders_without_study(place, known)
        listed = [vars(study) for study in studies]
        print_json({"studies": listed, "folders_without_study": folders, "sweeps": sweeps})
        return
    if as_csv:
        print_csv([vars(study) for study in studies])
        return
    from hawsweep.views.terminal.tables import studies_table

    console = make_console()
    left = tell_what_is_left(place, known)
    if studies:
        console.print(studies_table(studies))
    elif not left:
        console.print("No studies yet. Start one: hawsweep start lr-rank")
    if left:
        console.say(left, soft_wrap=True)
    console.print(f"Sweeps: {', '.join(sorted(sweeps))}", style="dim", markup=False)
