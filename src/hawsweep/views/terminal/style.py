"""Colours, widths and tables for terminals."""

from collections.abc import Iterable, Sequence

from rich.console import RenderableType
from rich.table import Table

# Characters of a translation in a table: an untuned model may say much.
LONGEST_SAMPLE = 100

STYLES = {
    "complete": "green",
    "paused": "blue",
    "pruned": "yellow",
    "fail": "red",
    "infeasible": "magenta",
    "base": "cyan",
    "running": "blue",
}


def make_grid(rows: Iterable[Sequence[RenderableType]], *styles: str, gap: int = 2) -> Table:
    """Rows below each other, without titles.

    Args:
        styles: Of the columns.
    """
    table, all_rows = Table.grid(padding=(0, gap, 0, 0)), list(rows)
    for style in styles or [""] * max(map(len, all_rows), default=0):
        table.add_column(style=style, overflow="fold")
    for row in all_rows:
        table.add_row(*row)
    return table
