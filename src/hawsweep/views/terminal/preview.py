"""Records as the model sees them, in the terminal."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding

from hawsweep.prepare.preview import Preview, RecordView
from hawsweep.text import counted
from hawsweep.views.terminal.style import make_grid
from hawsweep.views.terminal.text import Text


def preview_picture(found: Preview) -> RenderableType:
    """The records one below the other, then what holds for all of them."""
    parts: list[RenderableType] = []
    for record in found.records:
        parts += [_record(record), ""]
    return Group(*parts, make_grid(_facts(found), "bold", "", gap=3))


def _record(record: RecordView) -> RenderableType:
    n_learned = sum(end - start for start, end in record.learned)
    head = Text.assemble((record.where, "bold cyan"), f"  {record.split}, ")
    head.append(f"{counted(len(record.tokens), 'token')}, {n_learned} learned")
    rows: list[tuple[str, RenderableType]] = []
    if record.prompt_text is not None:
        rows.append(("prompt", _lines(record.prompt_text, "dim")))
    if record.dropped is None:
        rows.append(("learned", _lines(record.learned_markup, "green")))
    else:
        rows.append(("dropped", Text(record.dropped, style="yellow")))
    if record.n_cut:
        rows.append(
            ("cut", Text(f"{counted(record.n_cut, 'token')} beyond max_seq_length", style="yellow"))
        )
    return Group(head, Padding(make_grid(rows, "bold", "", gap=3), (0, 2)))


def _lines(text: str, style: str) -> RenderableType:
    """The lines of a record, in its column: its line breaks are those of the template too."""
    return Group(*(Text(line, style=style) for line in text.rstrip("\n").split("\n")))


def _facts(found: Preview) -> Iterator[tuple[str, Text]]:
    for name, count in found.splits.items():
        text = f"{counted(count.n_records, 'record')}, {count.n_used} used"
        yield name, Text(f"{text}, {count.n_cut} cut" if count.n_cut else text)
    if found.columns:
        used = ", ".join(f"{use} {name!r}" for use, name in found.columns.items())
        yield "columns", Text(used)
    yield "end", Text(f"{found.end_of_turn_text} ends an answer")
    for repair in found.repairs:
        yield "template", Text(repair)
    for warning in found.warnings:
        yield "warning", Text(f"{warning}.", style="yellow")
