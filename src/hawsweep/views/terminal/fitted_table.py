"""A table that is measured where it is printed: no number and no name is cut or broken."""

from collections.abc import Sequence

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table

# Between columns, without lines and with them, and what lines take at both edges.
_GAPS = (2, 3)
_EDGES = 4
# The most that a text asks for where room is short; a longer word is then broken.
_LEAST_TEXT = 16


class FittedTable(Table):
    """A table whose texts wrap at words, and whose columns go whole where room is short.

    Columns that may be wrapped (``no_wrap`` false) are texts. All others are as wide as their
    longest cell.
    """

    dropped: Sequence[str] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table with the columns that fit."""
        widths = [_measure(console, options, column) for column in self.columns]
        shown = list(range(len(self.columns)))
        # The first column stays.
        rest = [column.header for column in self.columns[:0:-1]]
        for title in (None, *self.dropped, *rest):
            shown = [at for at in shown if title is None or self.columns[at].header != title]
            spare = options.max_width - self._taken([widths[at].minimum for at in shown])
            if spare >= 0:
                break
        widths = [widths[at] for at in shown]
        yield self._narrowed(shown, _share(spare, widths), options.max_width, is_wrapped=spare < 0)

    def _narrowed(
        self, shown: Sequence[int], widths: Sequence[int], most: int, *, is_wrapped: bool
    ) -> Table:
        """A plain table of some of the columns, as wide as is said.

        Args:
            most: The characters there are.
            is_wrapped: Whether all cells may be wrapped.
        """
        table = Table(
            title=self.title,
            title_justify=self.title_justify,
            caption=self.caption,
            caption_justify=self.caption_justify,
            box=self.box,
            header_style=self.header_style,
            pad_edge=self.pad_edge,
            padding=self.padding,
            show_lines=self.show_lines,
        )
        columns = [self.columns[at] for at in shown]
        for column, width in zip(columns, widths, strict=True):
            table.add_column(
                column.header,
                justify=column.justify,
                overflow=column.overflow,
                width=max(1, min(width, most)),
                no_wrap=column.no_wrap and not is_wrapped,
            )
        for row, cells in zip(
            self.rows, zip(*(column.cells for column in columns), strict=True), strict=True
        ):
            table.add_row(*cells, style=row.style)
        return table

    def _taken(self, widths: Sequence[int]) -> int:
        has_lines = self.box is not None
        return sum(widths) + _GAPS[has_lines] * (len(widths) - 1) + _EDGES * has_lines


def make_table(header: str, *, dropped: Sequence[str] = (), lines: bool = False) -> FittedTable:
    """A table without lines.

    Args:
        header: Titles between ``|``. Columns of those that begin with ``>`` are set to the right,
            columns of those that begin with ``~`` are texts that wrap.
        dropped: The titles of columns that go where room is short, the first first; then the
            others, from the last to the second.
        lines: Draw lines around all cells.
    """
    table = FittedTable(
        box=box.HEAVY_HEAD if lines else None,
        header_style="bold",
        pad_edge=lines,
        padding=(0, 1) if lines else (0, 2, 0, 0),
        show_lines=lines,
        title_justify="left",
    )
    table.dropped = dropped
    for title in map(str.strip, header.split("|")):
        table.add_column(
            title.lstrip(">~"),
            justify="right" if title.startswith(">") else "left",
            no_wrap=not title.startswith("~"),
            overflow="fold",
        )
    return table


def _measure(console: Console, options: ConsoleOptions, column: Column) -> Measurement:
    """The least and the most characters that a column takes."""
    free = options.update(width=10_000)
    found = [Measurement.get(console, free, each) for each in (column.header, *column.cells)]
    most = max(each.maximum for each in found)
    least = min(most, _LEAST_TEXT, max(each.minimum for each in found))
    return Measurement(most if column.no_wrap else least, most)


def _share(spare: int, widths: Sequence[Measurement]) -> list[int]:
    """Give the spare width to the columns that need more, equally as far as they need it."""
    given = [each.minimum for each in widths]
    order = sorted(range(len(widths)), key=lambda at: widths[at].span)
    for place, at in enumerate(order):
        more = max(0, min(widths[at].span, spare // (len(order) - place)))
        given[at] += more
        spare -= more
    return given
