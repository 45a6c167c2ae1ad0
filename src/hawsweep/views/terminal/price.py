"""What scores cost, in the terminal."""

from collections.abc import Sequence

from rich.console import RenderableType

from hawsweep.results.price import TOLERANCE, PriceRow
from hawsweep.text import clock, number, score_range
from hawsweep.views.terminal.fitted_table import FittedTable, make_table
from hawsweep.views.terminal.text import Text

FRONT_TEXT = (
    "On the front is a trial if no other one scores higher without taking more time or memory "
    f"(differences below {TOLERANCE:.0%} count as none). gain/h: gain over the untuned model in an "
    "hour of training."
)


def price_parts(rows: Sequence[PriceRow] | None, most: int | None) -> list[RenderableType]:
    """The prices of trials; nothing where ``rows`` is None.

    Args:
        most: Rows of the table; None for all.
    """
    if not rows:
        said = "No trial is complete whose time and memory are known."
        return [] if rows is None else ["", Text(said, overflow="fold")]
    title = Text("Price of each score", style="bold")
    return ["", title, price_table(rows, most), Text(FRONT_TEXT, style="dim", overflow="fold")]


def price_table(rows: Sequence[PriceRow], most: int | None) -> FittedTable:
    """Complete trials, best first, with the Pareto front of score, time and memory marked. Those on
    the front are always shown.
    """
    table = make_table(
        ">trial | >score | front | >training | >peak GB | >adapter MB | >gain/h | >tok/s | >95 %",
        dropped=("95 %", "tok/s", "adapter MB", "gain/h"),
    )
    for at, row in enumerate(rows):
        if most is not None and at >= most and not row.is_on_front:
            continue
        table.add_row(
            str(row.trial),
            f"{row.score:.4f}",
            "front" if row.is_on_front else "",
            clock(row.train_time_s),
            f"{row.peak_memory_bytes / 1e9:.2f}",
            number(row.adapter_bytes, "{:.1f}", 1e-6),
            number(row.gain_per_hour, "{:+.2f}"),
            number(row.tokens_per_s, "{:.0f}"),
            score_range(row.low, row.high, is_short=False),
            style="bold" if row.is_on_front else "",
        )
    return table
