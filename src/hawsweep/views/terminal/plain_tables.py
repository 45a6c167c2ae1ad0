"""Plain texts of the terminal's tables and lines, for pages, which show the same words."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from rich.table import Table
from rich.text import Text as RichText

from hawsweep.views.terminal.text import Text


@dataclass(frozen=True)
class Cells:
    """A table as plain texts.

    Attributes:
        are_numbers: For each column, whether it is aligned right.
        rows: Of texts, as many as titles.
    """

    titles: tuple[str, ...]
    are_numbers: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""

    def changed(self, change: Callable[[str], str]) -> "Cells":
        """The same with every text of a row changed."""
        return replace(self, rows=tuple(tuple(map(change, row)) for row in self.rows))


def cells_of(table: Table) -> Cells:
    """The plain texts of a table."""
    columns = [[plain_text(cell) for cell in column.cells] for column in table.columns]
    return Cells(
        tuple(plain_text(column.header) for column in table.columns),
        tuple(column.justify == "right" for column in table.columns),
        tuple(zip(*columns, strict=True)),
        plain_text(table.caption or ""),
    )


def plain_text(marked: object) -> str:
    """A line for a terminal without its markup."""
    return marked.plain if isinstance(marked, RichText) else Text.from_markup(str(marked)).plain
