"""``hawsweep dashboard``."""

import click

from hawsweep.cli.common import option_that_went, place_options
from hawsweep.cli.completion import study_completion
from hawsweep.study.place import Place


@click.command()
@click.argument("name", required=False, shell_complete=study_completion)
@click.option("--port", type=click.IntRange(1, 65535), help="8080 by default, or a free one.")
@option_that_went("--host", "use ssh -L 8080:127.0.0.1:8080 MACHINE where the browser is")
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@place_options
def dashboard(name: str | None, port: int | None, no_browser: bool, place: Place) -> None:
    """Serve optuna-dashboard, and open it in the browser, at the note on the study NAME.

    It listens on this machine only. From another machine use ssh -L 8080:127.0.0.1:8080 MACHINE.
    While it runs it updates the notes, files and plots of the studies.

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
