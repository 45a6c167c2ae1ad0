"""A review in the terminal: a sentence with two answers, the keys, the result."""

from typing import TYPE_CHECKING

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.padding import Padding

from hawsweep.text import counted
from hawsweep.views.terminal.style import make_grid
from hawsweep.views.terminal.text import Text

if TYPE_CHECKING:
    from hawsweep.results.review import Question, Review, ReviewSession

MEANINGS = {
    "a": "A is better",
    "b": "B is better",
    "=": "equally good",
    "n": "neither is right",
    "u": "undo",
    "q": "stop",
}


def begin_picture(session: "ReviewSession") -> RenderableType:
    """What is judged, and the keys."""
    from_where = f"the {session.split} prompts"
    if session.split == "validation":
        from_where += ", because the best trial has no answers to test prompts"
    text = (
        f"Two answers to each of {counted(session.n_sentences, 'sentence')}, from {from_where}. "
        "One is the untuned model's. Which one is told at the end. Press a key:"
    )
    keys = [Text.assemble((key, "bold"), f"  {MEANINGS[key]}") for key in MEANINGS]
    return Group(Text(text), "", Padding(Columns(keys, padding=(0, 3)), (0, 2)))


def question_picture(question: "Question", number: int, n_sentences: int) -> RenderableType:
    """A sentence with its reference and both answers."""
    rows = [
        ("source", Text(question.source, overflow="fold")),
        ("reference", Text(question.reference, style="green", overflow="fold")),
        *(
            (name, Text(answer, overflow="fold") if answer.strip() else Text("(empty)", "dim"))
            for name, answer in zip("AB", question.answers, strict=True)
        ),
    ]
    title = Text(f"Sentence {number} of {n_sentences}", style="bold cyan")
    return Group("", title, Padding(make_grid(rows, "bold", gap=2), (0, 0, 0, 2)))


def result_picture(review: "Review") -> RenderableType:
    """The result in sentences."""
    first, *others = review.sentences()
    more = "More sentences: --n N. Begin anew: --again."
    return Group("", Text(first, style="bold"), *map(Text, others), Text(more, style="dim"))
