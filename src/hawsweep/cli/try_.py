"""``hawsweep try``."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hawsweep.cli.common import fetch_files, json_option, place_options, print_json_line
from hawsweep.cli.completion import study_completion, trial_completion
from hawsweep.study.place import Place
from hawsweep.views.terminal.console import make_console

if TYPE_CHECKING:
    from hawsweep.data.records import Record
    from hawsweep.trial.answers import SideBySide


@click.command("try")
@click.argument("name", shell_complete=study_completion)
@click.option(
    "--trial",
    "number",
    type=int,
    metavar="N",
    help="This trial instead of the recommended one.",
    shell_complete=trial_completion,
)
@click.option(
    "--checkpoint",
    type=click.IntRange(min=1),
    metavar="I",
    help="The kept checkpoint of iteration I instead of the trial's best.",
)
@click.option(
    "--few-shot",
    is_flag=True,
    help="Also ask the untuned model with the study's examples in its prompt.",
)
@click.option("--prompt", "prompts", metavar="TEXT", multiple=True, help="Ask this; repeatable.")
@click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Ask each line of FILE; of a .jsonl file each record.",
)
@json_option
@place_options
def try_(
    name: str,
    number: int | None,
    checkpoint: int | None,
    few_shot: bool,
    prompts: tuple[str, ...],
    file: Path | None,
    place: Place,
    as_json: bool,
) -> None:
    """Ask the untuned model and a trial of the study NAME your own prompts, side by side.

    Without --prompt and --file, type the prompts; an empty line or Ctrl-D ends. Prompts have the
    format of the study's data. --json prints a JSON object for each prompt, a line each.

    \b
    Example: hawsweep try lr-rank --prompt "Aloha kakahiaka."
             hawsweep try lr-rank --trial 3 --few-shot --file sentences.txt
    """
    if prompts and file is not None:
        raise click.UsageError("Give --prompt or --file, not both.")
    from hawsweep.results.verdict import recommended_or_best
    from hawsweep.study.storage import open_storage
    from hawsweep.study.study import load_study, read_trials
    from hawsweep.trial.answers import SideBySide

    study = read_trials(load_study(open_storage(place), name))
    fetch_files(study, place, *(() if number is None else (number,)))
    said = ""
    if number is None:
        number, is_recommended = recommended_or_best(study, place)
        said = "" if is_recommended else " No trial is recommended; this one scores best."
    with make_console(stderr=as_json).status("reading the data") as spinner:
        asked = SideBySide(
            study, place, number, checkpoint, few_shot=few_shot, progress=spinner.update
        )
        records = asked.read(file) if file is not None else [*map(asked.prompt, prompts)]
        asked.load(spinner.update)
    if not records and file is None:
        is_typed = sys.stdin.isatty() and sys.stdout.isatty()
        texts = _typed() if is_typed else filter(None, map(str.strip, sys.stdin))
        todo: Iterable[Record] = map(asked.prompt, texts)
    else:
        is_typed, todo = False, records
    if as_json:
        _print(asked, todo, {"study": name, "trial": number, "checkpoint": checkpoint})
        return
    at = "" if checkpoint is None else f" at iteration {checkpoint}"
    head = f"Trial {number} of {name}{at}, and the untuned {asked.model}.{said}"
    _show(asked, todo, head, with_source=not is_typed)


def _typed() -> Iterator[str]:
    """The prompts that a person types, up to an empty line."""
    with suppress(ImportError):  # lets arrow keys edit the line
        import readline  # noqa: F401
    with suppress(EOFError):
        while text := input("> ").strip():
            yield text
        return
    click.echo()  # Ctrl-D leaves the cursor behind the prompt


def _print(asked: "SideBySide", records: Iterable["Record"], about: dict[str, object]) -> None:
    for record in records:
        whole = dict(asked.answers(record))
        answers = {
            system: {"output": each.text, "fault": each.cut} for system, each in whole.items()
        }
        print_json_line({**about, "source": record.source, "answers": answers})


def _show(
    asked: "SideBySide", records: Iterable["Record"], head: str, *, with_source: bool
) -> None:
    from hawsweep.views.terminal.answers import show_answers

    console = make_console()
    console.say(head)
    for record in records:
        if with_source:
            console.print()
        source = record.source if with_source else None
        show_answers(console, source, asked.labels, asked.answers(record), asked.max_tokens)
        if not with_source:
            console.print()
