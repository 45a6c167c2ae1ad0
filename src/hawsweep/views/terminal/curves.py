"""Losses over iterations, drawn with characters: as bars in a line, and as a small plot."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hawsweep.views.terminal.text import Text

Points = Sequence[tuple[int, float]]
_BARS, _ASCII_BARS = "▁▂▃▄▅▆▇█", "_.-=+*%#"
# The dots of a Braille character, by row and column.
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_BRAILLE = 0x2800


def sparkline(
    values: Sequence[float], low: float, high: float, width: int, ascii_only: bool
) -> str:
    """The last ``width`` values as bars between ``low`` and ``high``."""
    bars = _ASCII_BARS if ascii_only else _BARS
    span = high - low

    def bar(value: float) -> str:
        if not math.isfinite(value):
            return "?"
        share = (value - low) / span if span > 0 else 0.0
        return bars[min(len(bars) - 1, max(0, int(share * len(bars))))]

    return "".join(map(bar, values[-width:]))


def loss_at(points: Points, iteration: float) -> float | None:
    """A curve's loss at an iteration, between two evaluations on the line between them; None
    outside.
    """
    before = max((p for p in points if p[0] <= iteration), default=None)
    after = min((p for p in points if p[0] >= iteration), default=None)
    if before is None or after is None:
        return None
    if before[0] == after[0]:
        return before[1]
    share = (iteration - before[0]) / (after[0] - before[0])
    return before[1] + share * (after[1] - before[1])


@dataclass(frozen=True)
class Series:
    """One curve of a plot; ``label`` stands at its end, its first letter draws it in ASCII."""

    label: str
    points: Points
    style: str


def plot(series: Sequence[Series], width: int, height: int, ascii_only: bool) -> list[Text]:
    """Lines of a plot, all curves on one scale, later ones above earlier ones; none of fewer
    than two points.

    Args:
        width: In characters, with axis and labels; ``height`` is that of the curves alone.
    """
    shown = [_finite(each) for each in series]
    shown = [each for each in shown if each.points]
    every = [point for each in shown for point in each.points]
    if len(every) < 2:
        return []
    first, last = min(step for step, _ in every), max(step for step, _ in every)
    low, high = min(loss for _, loss in every), max(loss for _, loss in every)
    margin = max(len(f"{end:.3f}") for end in (low, high)) + 2
    n_columns = width - margin - max(len(each.label) for each in shown) - 1
    if n_columns < 10 or last == first:
        return []
    canvas = _Canvas(n_columns, height, (first, last), (low, high), ascii_only)
    for each in shown:
        canvas.draw(each)
    ends = _placed_labels(canvas, shown, height)
    lines = []
    for row in range(height):
        loss = high - (high - low) * row / (height - 1)
        axis = f"{loss:>{margin - 2}.3f} " if row in (0, height // 2, height - 1) else ""
        line = Text.assemble((f"{axis:>{margin - 1}}" + ("|" if ascii_only else "│"), "dim"))
        line.append_text(canvas.line(row))
        if row in ends:
            line.append(f" {ends[row].label}", style=ends[row].style)
        lines.append(line)
    feet = f"{first}{f'{last} iterations':>{n_columns - len(str(first))}}"
    return [*lines, Text(f"{'':{margin}}{feet}"[:width], style="dim")]


def _finite(series: Series) -> Series:
    points = sorted((step, loss) for step, loss in series.points if math.isfinite(loss))
    return Series(series.label, points, series.style)


def _placed_labels(canvas: "_Canvas", series: Sequence[Series], height: int) -> dict[int, Series]:
    """Write each label where its curve ends, where nothing else is; give those for the margin, by
    row, each as near its curve's end as it can be.
    """
    rows: dict[int, Series] = {}
    for each in sorted(series, key=lambda one: -one.points[-1][1]):
        if canvas.write_at_end(each):
            continue
        at = canvas.row_of(each.points[-1][1])
        free = [row for row in range(height) if row not in rows]
        if free:
            rows[min(free, key=lambda row: (abs(row - at), -row))] = each
    return rows


class _Canvas:
    """Characters with dots in them, eight to a character, or one letter in ASCII."""

    def __init__(
        self,
        n_columns: int,
        height: int,
        steps: tuple[int, int],
        losses: tuple[float, float],
        ascii_only: bool,
    ) -> None:
        self._n_columns, self._height = n_columns, height
        self._steps, self._losses, self._ascii = steps, losses, ascii_only
        self._dots: dict[tuple[int, int], int] = {}
        self._styles: dict[tuple[int, int], str] = {}
        self._letters: dict[tuple[int, int], str] = {}
        self._texts: dict[tuple[int, int], str] = {}

    def draw(self, series: Series) -> None:
        """Draw a curve, with lines between its points."""
        first, last = self._steps
        most, before = self._n_columns * 2 - 1, None
        begins, ends = (
            round(most * (step - first) / (last - first))
            for step in (series.points[0][0], series.points[-1][0])
        )
        for x in range(begins, ends + 1):
            step = first + (last - first) * x / most
            inside = min(max(step, series.points[0][0]), series.points[-1][0])
            y = self._dot_of(loss_at(series.points, inside) or 0.0)
            steep = range(min(before, y), max(before, y)) if before is not None else ()
            for each in (*steep, y):
                self._set(x, each, series)
            before = y

    def write_at_end(self, series: Series) -> bool:
        """Write a curve's label behind its last point; False where there is no room for it."""
        first, last = self._steps
        step, loss = series.points[-1]
        column = round((self._n_columns * 2 - 1) * (step - first) / (last - first)) // 2
        row, text = self.row_of(loss), f" {series.label}"
        cells = [(row, column + 1 + n) for n in range(len(text))]
        if cells[-1][1] >= self._n_columns or any(cell in self._letters for cell in cells):
            return False
        for cell, letter in zip(cells, text, strict=True):
            self._texts[cell], self._styles[cell] = letter, series.style
            self._letters[cell] = letter
        if len(series.points) == 1:
            self._texts[row, column] = series.label[0] if self._ascii else "●"
        return True

    def row_of(self, loss: float) -> int:
        """The row of characters a loss is in."""
        return self._dot_of(loss) // 4

    def line(self, row: int) -> Text:
        """A row of characters."""
        text = Text()
        for column in range(self._n_columns):
            at = (row, column)
            dots = self._dots.get(at, 0)
            if at in self._texts:
                letter = self._texts[at]
            elif dots:
                letter = self._letters[at] if self._ascii else chr(_BRAILLE + dots)
            else:
                letter = " "
            text.append(letter, style=self._styles.get(at, ""))
        return text

    def _dot_of(self, loss: float) -> int:
        low, high = self._losses
        share = (high - loss) / (high - low) if high > low else 0.5
        return min(self._height * 4 - 1, int(share * self._height * 4))

    def _set(self, x: int, y: int, series: Series) -> None:
        at = (y // 4, x // 2)
        self._dots[at] = self._dots.get(at, 0) | _DOTS[y % 4][x % 2]
        self._styles[at], self._letters[at] = series.style, series.label[0]
