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
    from hawsweep.study.storage import open_storage

    path = place.database_path
    studies = [] if path is not None and not path.exists() else list_studies(open_storage(place))
    sweeps = {name: str(path) for name, path in sweep_names().items()}
    if as_json:
        print_json({"studies": [vars(study) for study in studies], "sweeps": sweeps})
        return
    if as_csv:
        print_csv([vars(study) for study in studies])
        return
    from hawsweep.views.terminal.tables import studies_table

    console = make_console()
    console.print(
        studies_table(studies) if studies else "No studies yet. Start one: hawsweep start lr-rank"
    )
    console.print(f"Sweeps: {', '.join(sorted(sweeps))}", style="dim")
