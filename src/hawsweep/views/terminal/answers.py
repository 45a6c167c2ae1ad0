"""Answers of several systems to one prompt, below each other; on a terminal as they grow."""

from collections.abc import Iterable, Iterator, Mapping

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text as RichText

from hawsweep.scoring.score import Answer
from hawsweep.views.terminal.style import make_grid
from hawsweep.views.terminal.text import Console, Text

_STYLES = {"base": "cyan", "few_shot": "cyan", "trial": "green"}


def show_answers(
    console: Console,
    source: str | None,
    labels: Mapping[str, str],
    answers: Iterable[tuple[str, Answer]],
    max_tokens: int,
) -> None:
    """Show the answers as they grow on a terminal; else when all are whole.

    Args:
        source: The prompt; None where it stands above already.
        labels: The names of the systems, in their order.
        answers: What a system has said so far, again and again.
    """
    said: dict[str, Answer] = {}

    def rows() -> Iterator[tuple[RenderableType, RenderableType]]:
        if source is not None:
            yield RichText("source"), _lines(source)
        for system, label in labels.items():
            shown = _answer(said[system], max_tokens) if system in said else RichText()
            yield Text(label, style=_STYLES[system]), shown

    if not console.is_terminal:
        said.update(answers)
        console.print(make_grid(rows(), "bold", ""))
        return
    with Live(console=console, auto_refresh=False) as live:
        for system, answer in answers:
            said[system] = answer
            live.update(make_grid(rows(), "bold", ""), refresh=True)


def _answer(answer: Answer, max_tokens: int) -> RenderableType:
    if answer.cut is None:
        return _lines(answer.text)
    note = Text(f"cut at scoring.max_tokens, {max_tokens}", style="dim")
    return Group(_lines(answer.text), note) if answer.text else note


def _lines(text: str) -> RenderableType:
    return Group(*(Text(line, overflow="fold") for line in text.split("\n")))
