"""A data curve in the terminal."""

from rich.console import Group, RenderableType

from hawsweep.results.data_curve import DataCurve
from hawsweep.results.data_sources import DataSources
from hawsweep.views.terminal.fitted_table import FittedTable, make_table
from hawsweep.views.terminal.text import Text


def curve_picture(curve: DataCurve) -> RenderableType:
    """Sizes with their losses and scores, and what the curve says."""
    base = f"The untuned model has a validation loss of {curve.base_loss:.4f}."
    said = [Text(each) for each in (*curve.sentences(), base)]
    return Group(curve_table(curve), "", *said)


def sources_picture(found: DataSources) -> RenderableType:
    """The curve of each source, and what they are worth."""
    parts: list[RenderableType] = []
    for each in found.sources:
        if each.curve is not None:
            parts += ["", Text(f"{each.name} alone", style="bold"), curve_table(each.curve)]
    return Group(*parts, "", *map(Text, found.sentences()))


def curve_table(curve: DataCurve) -> FittedTable:
    """Sizes with their losses and scores."""
    table = make_table(
        ">examples | >runs | >val loss | >at | >score | >of the gain | >95 %",
        dropped=("at", "runs", "95 %"),
    )
    for row in curve.rows:
        share = row.share
        table.add_row(
            f"{row.size:,}",
            str(row.n_seeds),
            f"{row.val_loss:.4f}",
            str(row.best_iteration or ""),
            f"{row.score:.4f}",
            f"{share.mean:.0%}",
            "" if share.low == share.high else f"{share.low:.0%} to {share.high:.0%}",
        )
    return table
