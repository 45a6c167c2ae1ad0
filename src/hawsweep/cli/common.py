"""Shared parts of the commands: the options of every command, errors as messages, the console."""

import csv
import io
import json
import math
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TextIO

import click

from hawsweep.errors import HawsweepError
from hawsweep.machine.output import plain_stream, visible_output
from hawsweep.text import ACTING, visible_line

if TYPE_CHECKING:
    import optuna

    from hawsweep.study.place import Place

Command = Callable[..., Any]
# More characters than any first sentence has: click would cut it.
_LONGEST_HELP = 200
# What a spreadsheet takes for the beginning of a formula, also in full width.
_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")


class ErrorGroup(click.Group):
    """Turns hawsweep's errors into one message and exit code 1; lists commands by their kinds.

    Attributes:
        kinds: The names of commands, by kind.
    """

    kinds: ClassVar[dict[str, list[str]]] = {}

    def add(self, kind: str, *commands: click.Command) -> None:
        """Add commands of a kind."""
        for command in commands:
            self.add_command(command)
        self.kinds[kind] = [str(command.name) for command in commands]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the first sentence of each command's help, by kind."""
        widest = max(map(len, self.commands))
        for kind, names in self.kinds.items():
            with formatter.section(kind):
                formatter.write_dl(
                    (name.ljust(widest), self.commands[name].get_short_help_str(_LONGEST_HELP))
                    for name in names
                )

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with visible_output():
            try:
                return super().invoke(ctx)
            except HawsweepError as fault:
                # The label may be red; the message is visible already.
                text = _wrapped(f"Error: {fault}").removeprefix("Error:")
                click.echo(f"{_error_label()}{text}", file=plain_stream(sys.stderr))
                ctx.exit(1)
            except KeyboardInterrupt:
                ctx.exit(130)


def _wrapped(text: str) -> str:
    """A text for the terminal, its lines broken between words; as it is where there is none."""
    if not sys.stderr.isatty():
        return text
    width = shutil.get_terminal_size().columns
    wrapper = textwrap.TextWrapper(
        width, break_long_words=False, break_on_hyphens=False, replace_whitespace=False
    )
    return "\n".join(map(wrapper.fill, text.split("\n")))


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


def fetch_files(study: "optuna.Study", place: "Place", *numbers: int | None) -> None:
    """Bring what other machines have of the files that a command reads, and say so.

    Args:
        numbers: Of trials, None for the best; without any, all trials whose adapters are kept.
    """
    from hawsweep.errors import TravelError
    from hawsweep.study.artifact_stores import artifacts_url
    from hawsweep.study.clean_up import kept_complete
    from hawsweep.study.confirm import winner
    from hawsweep.study.study import known_spec
    from hawsweep.study.travel import fetch_ended

    if artifacts_url(study) is None or (spec := known_spec(study)) is None:
        return
    best = winner(study)
    named = (best.number if best and each is None else each for each in numbers)
    wanted = {each for each in named if each is not None} or kept_complete(study, spec)
    try:
        fetch_ended(study, place, wanted, _say_aside)
    except TravelError as fault:  # the command goes on with what is here
        _say_aside(str(fault))


def _say_aside(text: str) -> None:
    click.echo(visible_line(text[:1].upper() + text[1:]), err=True)


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON; `hawsweep schema` describes it."
)
csv_option = click.option(
    "--csv", "as_csv", is_flag=True, help="Print the table as CSV, all columns, not rounded."
)
plain_option = click.option(
    "--plain", is_flag=True, help="Print plain lines instead of a live picture."
)
settings_option = click.option(
    "--set", "settings", metavar="KEY=VALUE", multiple=True, help="Set any key of the sweep."
)


def option_that_went(name: str, instead: str, **kind: Any) -> Callable[[Command], Command]:
    """Refuse an option of older versions, and say what replaces it."""

    def refuse(_: click.Context, __: click.Parameter, value: Any) -> None:
        if value:
            raise click.UsageError(f"Instead of {name}, {instead}.")

    return click.option(name, hidden=True, expose_value=False, callback=refuse, **kind)


def print_json(content: Any, *, indent: int | None = 2, file: TextIO | None = None) -> None:
    """Print plain values as JSON, in which what a terminal would obey is escaped. Infinity and NaN
    become null, because JSON has neither.
    """
    how: dict[str, Any] = {"indent": indent, "ensure_ascii": False, "allow_nan": False}
    try:
        text = json.dumps(content, **how)
    except ValueError:
        text = json.dumps(_finite(content), **how)
    click.echo(ACTING.sub(lambda found: f"\\u{ord(found[0]):04x}", text), file=file)


def print_json_line(content: Any, file: TextIO | None = None) -> None:
    """Print plain values as one line of JSON, at once."""
    print_json(content, indent=None, file=file)


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
