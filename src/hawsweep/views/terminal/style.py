"""Colours, widths and tables for terminals."""

from collections.abc import Iterable, Sequence

from rich.console import JustifyMethod, RenderableType
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


def make_table(header: str, *, no_wrap: bool = False) -> Table:
    """A table without lines.

    Args:
        header: Titles between ``|``; columns of those that begin with ``>`` are set to the right.
        no_wrap: Keep what is set to the right in one line.
    """
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for title in map(str.strip, header.split("|")):
        is_right = title.startswith(">")
        justify: JustifyMethod = "right" if is_right else "left"
        table.add_column(title.lstrip(">"), justify=justify, no_wrap=no_wrap and is_right)
    return table


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
