"""Shared parts of the commands: the options of every command, errors as messages, the console."""

import csv
import io
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import click

from hawsweep.errors import HawsweepError
from hawsweep.machine.output import plain_stream, visible_output
from hawsweep.text import ACTING, visible_line

Command = Callable[..., Any]
# What a spreadsheet takes for the beginning of a formula, also in full width.
_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")


class ErrorGroup(click.Group):
    """Turns hawsweep's errors into one message and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with visible_output():
            try:
                return super().invoke(ctx)
            except HawsweepError as fault:
                # The label may be red; the message is visible already.
                click.echo(f"{_error_label()} {fault}", file=plain_stream(sys.stderr))
                ctx.exit(1)
            except KeyboardInterrupt:
                ctx.exit(130)


def _error_label() -> str:
    """Click ignores NO_COLOR; https://no-color.org asks for no colours if it is set."""
    return "Error:" if os.environ.get("NO_COLOR") else click.style("Error:", fg="red")


def _check_storage(_: click.Context, __: click.Parameter, url: str | None) -> str | None:
    if url:
        from hawsweep.study.credentials import refuse_shown_password

        refuse_shown_password(url)
    return url


def place_options(command: Command) -> Command:
    """Give a command ``place``, by ``--studies-dir`` and ``--storage``."""

    @click.option(
        "--studies-dir",
        type=click.Path(path_type=Path, file_okay=False),
        help="The folder of studies; by default HAWSWEEP_STUDIES_DIR, else ./studies.",
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
        from hawsweep.study.place import find_place

        return command(*args, place=find_place(studies_dir, storage), **kwargs)

    return with_place


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON; `hawsweep schema` describes it."
)
csv_option = click.option(
    "--csv", "as_csv", is_flag=True, help="Print the table as CSV, all columns, not rounded."
)
plain_option = click.option(
    "--plain", is_flag=True, help="Print plain lines instead of a live picture."
)


def option_that_went(name: str, instead: str, **kind: Any) -> Callable[[Command], Command]:
    """Refuse an option of older versions, and say what replaces it."""

    def refuse(_: click.Context, __: click.Parameter, value: Any) -> None:
        if value:
            raise click.UsageError(f"Instead of {name}, {instead}.")

    return click.option(name, hidden=True, expose_value=False, callback=refuse, **kind)


def print_json(content: Any) -> None:
    """Print plain values as JSON, in which what a terminal would obey is escaped. Infinity and NaN
    become null, because JSON has neither.
    """
    how: dict[str, Any] = {"indent": 2, "ensure_ascii": False, "allow_nan": False}
    try:
        text = json.dumps(content, **how)
    except ValueError:
        text = json.dumps(_finite(content), **how)
    click.echo(ACTING.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def _finite(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(each) for each in content]
    return content


def print_csv(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print records as CSV with a header, a line each. Missing values are empty, nested ones JSON.

    A text that a spreadsheet would run begins with an apostrophe, as OWASP advises. Control
    characters and line breaks are written out. Numbers stay numbers, also below 0.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_cell, columns))
    writer.writerows([_cell(row.get(key)) for key in columns] for row in rows)
    click.echo(text.getvalue(), nl=False)


def _cell(value: Any) -> Any:
    if isinstance(value, Mapping | list | tuple):
        value = json.dumps(_finite(value), ensure_ascii=False)
    if isinstance(value, str):
        quote = "'" if value.startswith(_FORMULA) else ""
        return f"{quote}{visible_line(value)}"
    return "" if _finite(value) is None else value
