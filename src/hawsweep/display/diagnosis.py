"""What an examination found: of the database, of the machine, of a sweep."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hawsweep.display.text import number

if TYPE_CHECKING:
    from hawsweep.doctor import Diagnosis
    from hawsweep.findings import Finding

_STATES = {"ok": ("OK", "green"), "warning": ("warning", "yellow"), "fault": ("fault", "red")}
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


def machine_picture(findings: Sequence["Finding"]) -> RenderableType:
    """What was found of machine and installation, and how it comes out."""
    n_faults, n_warnings = (
        sum(each.state == state for each in findings) for state in ("fault", "warning")
    )
    if n_faults:
        end = Text(f"{counted(n_faults, 'fault')}, {counted(n_warnings, 'warning')}.", style="red")
    elif n_warnings:
        end = Text(f"Sweeps can run; {counted(n_warnings, 'warning')}.", style="yellow")
    else:
        end = Text("All is well.", style="green")
    return Group("", findings_table(findings), "", end)


def findings_table(findings: Sequence["Finding"]) -> Table:
    """What was examined, a line each, with the remedy below where something is wrong."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for each in findings:
        word, style = _STATES[each.state]
        text = Text(each.text)
        if each.remedy:
            text.append(f"\n{each.remedy}", style="dim")
        table.add_row(Text(word, style=style), Text(each.subject), text)
    return table


def counted(count: int, noun: str) -> str:
    """``1 fault``, ``2 faults``."""
    return f"{count} {noun}{'s' * (count != 1)}"


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
