"""``hawsweep dashboard``."""

import click

from hawsweep.cli.common import option_that_went, place_options
from hawsweep.study.place import Place


@click.command()
@click.argument("name", required=False)
@click.option("--port", type=click.IntRange(1, 65535), help="8080 by default, or a free one.")
@option_that_went("--host", "use ssh -L 8080:127.0.0.1:8080 MACHINE where the browser is")
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@place_options
def dashboard(name: str | None, port: int | None, no_browser: bool, place: Place) -> None:
    """Serve optuna-dashboard over the studies, and open it in the browser, on the study NAME.

    On this machine alone; from another, by ssh -L 8080:127.0.0.1:8080 MACHINE. Notes, files and
    plots of the studies are kept up to date while it runs.

    \b
    Example: hawsweep dashboard lr-rank
    """
    from hawsweep.views.dashboard.browser import open_address
    from hawsweep.views.dashboard.serve import serve

    def ready(address: str) -> None:
        click.echo(f"optuna-dashboard: {address}  (Ctrl-C ends it)")
        if not no_browser:
            open_address(address)

    serve(place, port, ready, name=name)
