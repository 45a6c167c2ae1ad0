"""What the commands share: where studies are, errors as one message, the console."""

import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hawsweep.errors import HawsweepError

if TYPE_CHECKING:
    from rich.console import Console

Command = Callable[..., Any]


class ErrorGroup(click.Group):
    """Turns hawsweep's errors into one message and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except HawsweepError as fault:
            click.echo(f"{click.style('Error:', fg='red')} {fault}", err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            ctx.exit(130)


def _check_storage(_: click.Context, __: click.Parameter, url: str | None) -> str | None:
    if url:
        from hawsweep.credentials import refuse_shown_password

        refuse_shown_password(url)
    return url


def place_options(command: Command) -> Command:
    """Give a command ``place``, by ``--studies-dir`` and ``--storage``."""

    @click.option(
        "--studies-dir",
        type=click.Path(path_type=Path, file_okay=False),
        help="Where studies are kept: HAWSWEEP_STUDIES_DIR, or studies here, by default.",
    )
    @click.option(
        "--storage",
        metavar="URL",
        callback=_check_storage,
        help="Another database: an Optuna RDB URL, without a password; HAWSWEEP_STORAGE by "
        "default.",
    )
    @wraps(command)
    def with_place(*args: Any, studies_dir: Path | None, storage: str | None, **kwargs: Any) -> Any:
        from hawsweep.study import find_place

        return command(*args, place=find_place(studies_dir, storage), **kwargs)

    return with_place


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def make_console(stderr: bool = False) -> "Console":
    """The terminal, or what takes its place."""
    from rich.console import Console

    # Without a terminal there is no width: tables must not be cut in a log.
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 140
    return Console(stderr=stderr, width=width)
