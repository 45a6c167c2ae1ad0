"""``hawsweep review``."""

import sys
from typing import TYPE_CHECKING

import click

from hawsweep.cli.common import json_option, place_options, print_json
from hawsweep.cli.completion import study_completion
from hawsweep.study.place import Place
from hawsweep.views.terminal.console import make_console

if TYPE_CHECKING:
    from hawsweep.results.review import Question, ReviewSession, Said
    from hawsweep.views.terminal.console import Console


@click.command()
@click.argument("name", shell_complete=study_completion)
@click.option(
    "--n",
    "n_sentences",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="Sentences to judge.",
)
@click.option("--again", is_flag=True, help="Begin anew; the earlier review is kept as a file.")
@json_option
@place_options
def review(name: str, n_sentences: int, again: bool, place: Place, as_json: bool) -> None:
    """Judge translations of the study NAME: the best trial's and the untuned model's, blind.

    One key for each sentence. A review that is stopped goes on at the next call. --json prints the
    result so far and asks nothing.

    \b
    Example: hawsweep review lr-rank
             hawsweep review lr-rank --n 40
    """
    if as_json and again:
        raise click.UsageError("--json prints the result so far: leave out --again.")
    from hawsweep.results.review import ReviewSession, review_of
    from hawsweep.study.storage import open_storage
    from hawsweep.study.study import load_study

    if not as_json and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError(
            "A review asks for keys, so it needs a terminal. --json prints the result so far."
        )
    study = load_study(open_storage(place), name)
    if as_json:
        found = review_of(study, place)
        print_json(None if found is None else found.to_plain())
        return
    from hawsweep.views.terminal.review import begin_picture, result_picture

    session, console = ReviewSession(study, place, n_sentences, again=again), make_console()
    if session.question() is not None:
        console.print(begin_picture(session))
    while (question := session.question()) is not None:
        if not _ask(console, session, question):
            command = place.command("review", name)
            console.print()
            judged = f"{session.n_judged} of {session.n_sentences} sentences are judged."
            console.say(f"{judged} Go on: {command}")
            return
    console.print(result_picture(session.result()))


def _ask(console: "Console", session: "ReviewSession", question: "Question") -> bool:
    """Show a sentence and take its key; False to stop."""
    from hawsweep.views.terminal.review import MEANINGS, question_picture

    console.print(question_picture(question, session.n_judged + 1, session.n_sentences))
    first, second = question.systems
    said: dict[str, Said] = {"a": first, "b": second, "=": "equal", "n": "neither"}
    while (key := _read_key()) != "q":
        meaning = f"  {MEANINGS.get(key, '')}"
        if key in said:
            session.say(question, said[key])
        elif key == "u":
            meaning = "  undone" if session.undo() else "  There is nothing to undo."
        else:
            console.print(f"  The keys are {', '.join(MEANINGS)}.", style="yellow")
            continue
        console.print(meaning, style="dim")
        return True
    return False


def _read_key() -> str:
    """A key in lower case; ``q`` where the terminal is gone. An arrow is several characters."""
    try:
        return (click.getchar() or "q").lower()
    except EOFError:
        return "q"
