"""The findings on the database, the machine, and a sweep."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table

from hawsweep.text import counted
from hawsweep.views.terminal.fitted_table import make_table
from hawsweep.views.terminal.text import Text

if TYPE_CHECKING:
    from hawsweep.prepare.examine_database import Diagnosis
    from hawsweep.prepare.finding import Finding


_STATES = {"ok": ("OK", "green"), "warning": ("warning", "yellow"), "fault": ("fault", "red")}
_ADVICE = {
    "missing": "Start a sweep: hawsweep start NAME",
    "locked": "Another process has locked it. Wait for that process, or end it.",
    "not readable": "Correct its permissions, or its address.",
    "foreign": "Move it away, or choose another --studies-dir.",
}


def diagnosis_picture(found: "Diagnosis") -> RenderableType:
    """The database, the studies, and the remedy."""
    database = found.database
    style = "green" if found.is_fine else "red"
    head = Text.assemble(f"{database.where}: ", (database.state, style))
    if database.detail:
        head.append(f": {database.detail}")
    parts: list[RenderableType] = [head]
    if (backup := found.backup) is not None:
        made = "" if found.backup_made is None else f", made {found.backup_made:%Y-%m-%d %H:%M:%S}"
        said = f": {backup.detail}" if backup.detail else ""
        parts.append(Text(f"{backup.where}: {backup.state}{made}{said}"))
    if database.studies or (backup is not None and backup.studies):
        parts += ["", _studies_table(found)]
    return Group(*parts, *map(Text, _advice(found)))


def machine_picture(findings: Sequence["Finding"]) -> RenderableType:
    """The findings on machine and installation, and a summary."""
    n_faults, n_warnings = (
        sum(each.state == state for each in findings) for state in ("fault", "warning")
    )
    if n_faults:
        end = Text(f"{counted(n_faults, 'fault')}, {counted(n_warnings, 'warning')}.", style="red")
    elif n_warnings:
        end = Text(f"Sweeps can run; {counted(n_warnings, 'warning')}.", style="yellow")
    else:
        end = Text("No faults found.", style="green")
    return Group("", findings_table(findings), "", end)


def findings_table(findings: Sequence["Finding"]) -> Table:
    """The findings, one a line, each fault with its remedy below."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for each in findings:
        word, style = _STATES[each.state]
        # The lines of an error come after spaces, which nothing that it quotes can begin a line by.
        lines = [Text(line) for line in each.text.split("\n")]
        lines += [Text(each.remedy, style="dim")] if each.remedy else []
        table.add_row(Text(word, style=style), Text(each.subject), Group(*lines))
    return table


def _studies_table(found: "Diagnosis") -> Table:
    table = make_table("study | ~in the database | ~in its backup")
    studies = [found.database.studies, {} if found.backup is None else found.backup.studies]
    # Confirming runs are counted with the study they confirm.
    names = {name for each in studies for name in each if not name.endswith(".confirm")}
    for name in sorted(names):
        table.add_row(name, *(_counts(each.get(name)) for each in studies))
    return table


def _counts(states: Mapping[str, int] | None) -> str:
    if states is None:
        return "-"
    return ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "no trials"


def _advice(found: "Diagnosis") -> list[str]:
    if found.is_fine and found.database.state == "fine":
        return []
    if found.restore is not None:
        intro = "To restore the backup, end all processes that use the database, then run:"
        return ["", intro, f"  {found.restore}"]
    lost = "There is no usable backup of it. Adapters and translations in the folders stay."
    if found.database.state == "missing" and not found.is_fine:
        return ["", lost]
    return ["", _ADVICE.get(found.database.state, f"{lost} Move it away.")]
