"""``hawsweep completion`` and ``hawsweep schema``, and the names that a shell completes."""

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click
from click.shell_completion import CompletionItem, get_completion_class

from hawsweep.cli.common import print_json
from hawsweep.study.place import (
    DEFAULT_STUDIES_DIR,
    STORAGE_VARIABLE,
    STUDIES_DIR_VARIABLE,
    Place,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna.storages import BaseStorage


T = TypeVar("T")
_VARIABLE = "_HAWSWEEP_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes commands, options, studies and trials in a SHELL.

    Evaluate it when the shell starts: put the example below into ~/.bashrc or ~/.zshrc, with your
    shell's name. For fish, write the script to ~/.config/fish/completions/hawsweep.fish.

    \b
    Example: hawsweep completion zsh
             eval "$(hawsweep completion zsh)"
    """
    found = get_completion_class(shell)
    assert found is not None
    root = click.get_current_context().find_root().command
    # Not click's `source`: it runs bash to warn of old versions, and those ignore unknown lines.
    script = found(root, {}, "hawsweep", _VARIABLE)
    click.echo(script.source_template % script.source_vars())


@click.command()
@click.argument("command", required=False)
def schema(command: str | None) -> None:
    """Print the JSON Schema of COMMAND's --json output. Without COMMAND, print all schemas.

    \b
    Example: hawsweep schema status
    """

    from hawsweep.views.json_schema import OUTPUTS, STREAMS

    known = OUTPUTS | STREAMS
    if command is not None and command not in known:
        raise click.UsageError(f"{command!r} has no --json. Known: {', '.join(known)}.")
    found = {name: output.json_schema() for name, output in known.items()}
    print_json(found if command is None else found[command])


def study_completion(
    ctx: click.Context, _: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of studies."""
    from hawsweep.study.storage import study_names

    names = _read(ctx, study_names) or []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def sweep_completion(
    ctx: click.Context, _: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of sweeps, and files."""
    from hawsweep.spec.read import sweep_names

    names = [name for name in sorted(sweep_names()) if name.startswith(incomplete)]
    return [*map(CompletionItem, names), CompletionItem(incomplete, type="file")]


def trial_completion(
    ctx: click.Context, _: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Numbers of the trials of the study that the command names, with their states."""
    from hawsweep.study.study import load_study

    # After an option without a value, click has not parsed the name yet.
    name = str(ctx.params.get("name") or next(iter(ctx.args), ""))
    study = _read(ctx, lambda storage: load_study(storage, name))
    return [
        CompletionItem(str(trial.number), help=trial.state.name.lower())
        for trial in ([] if study is None else study.get_trials(deepcopy=False))
        if str(trial.number).startswith(incomplete)
    ]


def _read(ctx: click.Context, read: "Callable[[BaseStorage], T]") -> T | None:
    """Read from the SQLite database; None if it is another database, or cannot be read."""
    from hawsweep.errors import StudyError
    from hawsweep.study.storage import STORAGE_FAULTS, open_storage

    place = _place(ctx)
    with suppress(StudyError, *STORAGE_FAULTS):
        if (path := place.database_path) is not None and path.is_file():
            return read(open_storage(place))
    return None


def _place(ctx: click.Context) -> Place:
    """As ``find_place`` finds it, but without looking for a password."""
    url = ctx.params.get("storage") or os.environ.get(STORAGE_VARIABLE)
    folder = ctx.params.get("studies_dir") or os.environ.get(STUDIES_DIR_VARIABLE)
    return Place(Path(folder or DEFAULT_STUDIES_DIR), url or None)
