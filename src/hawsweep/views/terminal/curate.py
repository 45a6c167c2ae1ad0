"""A proposed data set in the terminal."""

from rich.console import Group, RenderableType

from hawsweep.results.curate import Curation
from hawsweep.text import shorten
from hawsweep.views.terminal.fitted_table import make_table
from hawsweep.views.terminal.text import Text

_SHOWN = 3
_WIDEST = 60
_KINDS = {
    "empty": "empty source or reference",
    "copy": "reference copied from the source",
    "direction": "source and reference exchanged",
    "language": "in the language of the other side",
    "length": "unusual length",
    "repeat": "repeats another record",
    "conflict": "same source, worse reference",
    "leak": "in valid or test too",
    "unrelated": "reference does not fit the source",
}


_ORDERED = (
    "It is ordered best first, as train.order: curriculum with train.difficulty: place takes it."
)


def curation_picture(curation: Curation) -> RenderableType:
    """How many records are doubtful for each reason, with examples, and where the proposal is."""
    parts: list[RenderableType] = []
    if curation.removed:
        table = make_table(">records | reason | ~such as", dropped=("such as",))
        for kind, n in curation.counts().items():
            of_it = (each for each in curation.removed if kind in each.reasons)
            plainest = min(of_it, key=lambda each: len(each.reasons))
            table.add_row(f"{n:,}", _KINDS[kind], _example(plainest.source, plainest.reference))
        parts += [table, ""]
    parts += map(Text, curation.sentences())
    if curation.folder is not None:
        folder = curation.folder
        said = f"All records are in {folder}."
        if curation.removed:
            said = f"The proposal is in {folder}; its removed.jsonl holds the others and why."
        parts.append(Text(f"{said} {_ORDERED}" if curation.is_ordered else said))
    return Group(*parts)


def proof_picture(curation: Curation) -> RenderableType:
    """Whether the proposal is better."""
    return Group(*map(Text, curation.proof.sentences() if curation.proof else ()))


def _example(source: str, reference: str) -> str:
    return f"{shorten(source, _WIDEST)} → {shorten(reference, _WIDEST)}"
