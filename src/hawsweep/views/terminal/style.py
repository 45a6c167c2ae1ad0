"""Colours, widths and tables for terminals."""

from collections.abc import Iterable, Sequence

from rich.console import RenderableType
from rich.table import Table

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
    table = Table.grid(padding=(0, gap, 0, 0))
    for style in styles:
        table.add_column(style=style)
    for row in rows:
        table.add_row(*row)
    return table
