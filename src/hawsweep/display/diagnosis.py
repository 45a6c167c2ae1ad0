"""What the doctor found."""

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hawsweep.display.text import number

if TYPE_CHECKING:
    from hawsweep.doctor import Diagnosis

_ADVICE = {
    "missing": "Start a sweep: hawsweep start NAME",
    "locked": "Another process keeps it from being read. Wait for it, or end it.",
    "not readable": "Correct its permissions, or its address.",
    "foreign": "Move it away, or choose another --studies-dir.",
}


def diagnosis_picture(found: "Diagnosis") -> RenderableType:
    """The database, the studies, and what to do."""
    database = found.database
    style = "green" if found.is_fine else "red"
    head = Text.assemble(f"{database.where}: ", (database.state, style))
    if database.detail:
        head.append(f": {database.detail}")
    parts: list[RenderableType] = [head]
    if database.studies or found.recoverable:
        parts += ["", _studies_table(found)]
    return Group(*parts, *map(Text, _advice(found)))


def _studies_table(found: "Diagnosis") -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("study")
    table.add_column("in the database")
    for title in ("folders", "recorded", "unreadable", "again", "adapters", "best"):
        table.add_column(title, justify="right")
    table.add_column("last")
    kept = {each.name: each for each in found.recoverable}
    # Runs with new seeds are counted with the study they confirm.
    studies = {name for name in found.database.studies if not name.endswith(".confirm")}
    for name in sorted(studies | {*kept}):
        states = found.database.studies.get(name, {})
        counted = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        each = kept.get(name)
        if each is None:
            table.add_row(name, counted)
            continue
        counts = (each.n_trials, each.n_records, each.n_unreadable, each.n_confirming)
        table.add_row(
            name,
            counted,
            *map(str, (*counts, each.n_adapters)),
            number(each.best_score, "{:.4f}"),
            "" if each.last is None else f"{each.last:%Y-%m-%d %H:%M}",
        )
    table.caption = "recorded, again: trials, and runs with new seeds, that can be rebuilt"
    table.caption_justify = "left"
    return table


def _advice(found: "Diagnosis") -> list[str]:
    state = found.database.state
    if state == "fine":
        return []
    if found.rebuilt is not None:
        intro = f"{found.rebuilt} is made of what was recorded. To take it into use:"
        return ["", intro, *(f"  {command}" for command in found.commands)]
    if state in ("missing", "not SQLite", "damaged", "foreign") and any(
        each.n_records for each in found.recoverable
    ):
        return ["", "To make a new database of what was recorded: the same command with --rebuild"]
    restore = "Restore it from a backup, or move it away: adapters and translations stay."
    return ["", _ADVICE.get(state, restore)]
