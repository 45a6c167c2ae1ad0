"""Completion in a shell: names of studies and sweeps, numbers of trials; without large imports."""

import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

_VARIABLE = "_HAWSWEEP_COMPLETE"
# Longer than a person waits for a key.
_BUSY_TIMEOUT_S = 0.5


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes commands, options, studies and trials in a SHELL.

    Evaluate it where the shell starts: in ~/.bashrc or ~/.zshrc the example below with your shell's
    name; for fish write it to ~/.config/fish/completions/hawsweep.fish.

    \b
    Example: hawsweep completion zsh
             eval "$(hawsweep completion zsh)"
    """
    found = get_completion_class(shell)
    assert found is not None
    root = click.get_current_context().find_root().command
    # Not `source`, which runs bash to warn of old versions; those ignore what they do not know.
    script = found(root, {}, "hawsweep", _VARIABLE)
    click.echo(script.source_template % script.source_vars())


@click.command()
@click.argument("command", required=False)
def schema(command: str | None) -> None:
    """Print the JSON Schema of what COMMAND prints with --json; of all commands without COMMAND.

    \b
    Example: hawsweep schema status
    """
    import json

    from hawsweep.outputs import OUTPUTS

    if command is not None and command not in OUTPUTS:
        raise click.UsageError(f"{command!r} has no --json. Known: {', '.join(OUTPUTS)}.")
    found = {name: output.json_schema() for name, output in OUTPUTS.items()}
    click.echo(json.dumps(found if command is None else found[command], indent=2))


def study_completion(
    ctx: click.Context, _: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of studies."""
    asked = "SELECT study_name FROM studies WHERE study_name NOT LIKE '%.confirm'"
    names = (row[0] for row in _ask(ctx, asked))
    return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]


def sweep_completion(
    ctx: click.Context, _: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of sweeps, and files."""
    from hawsweep.sweepfile import sweep_names

    names = [name for name in sorted(sweep_names()) if name.startswith(incomplete)]
    return [*map(CompletionItem, names), CompletionItem(incomplete, type="file")]


def trial_completion(
    ctx: click.Context, _: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Numbers of the trials of the study that the command names, with what they came to."""
    asked = (
        "SELECT number, state FROM trials JOIN studies USING (study_id) "
        "WHERE study_name = ? ORDER BY number"
    )
    # Behind an option that has no value yet, click has not got as far as the name.
    name = ctx.params.get("name") or next(iter(ctx.args), "")
    rows = _ask(ctx, asked, str(name))
    return [
        CompletionItem(str(row[0]), help=row[1].lower())
        for row in rows
        if str(row[0]).startswith(incomplete)
    ]


def _ask(ctx: click.Context, question: str, *values: str) -> Iterable[tuple[str, ...]]:
    """Rows of the SQLite database; of another one, or one that is in the way, none."""
    path = _database(ctx)
    if path is None or not path.is_file():
        return []
    try:
        address = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(address, uri=True, timeout=_BUSY_TIMEOUT_S)) as connection:
            return connection.execute(question, values).fetchall()
    except sqlite3.Error:
        return []


def _database(ctx: click.Context) -> Path | None:
    url = ctx.params.get("storage") or os.environ.get("HAWSWEEP_STORAGE")
    if url:
        scheme, _, path = str(url).partition(":///")
        return Path(path) if scheme == "sqlite" and path else None
    folder = ctx.params.get("studies_dir") or os.environ.get("HAWSWEEP_STUDIES_DIR") or "studies"
    return Path(str(folder)) / "hawsweep.db"
