"""The numbers of a leaderboard as texts; and a recommendation and a leaderboard as plain HTML, for
notebooks.
"""

from collections.abc import Callable, Sequence
from html import escape

from hawsweep.results.leaderboard import TrialRow
from hawsweep.spec.space import MODEL
from hawsweep.spec.sweep import short_names
from hawsweep.text import clock, number, score_range, setting, short_name, visible_line

Cell = Callable[[TrialRow], str]
# By the titles of their columns; empty where a row has no value.
NUMBERS: dict[str, Cell] = {
    "val loss": lambda row: number(row.val_loss, "{:.3f}"),
    "at": lambda row: number(row.best_iteration, "{}"),
    "score": lambda row: number(row.score, "{:.4f}"),
    "95 %": lambda row: score_range(row.low, row.high, is_short=False),
    "confirmed": lambda row: number(row.confirmed, "{:.4f}"),
    "chrF": lambda row: number(row.chrf, "{:.1f}"),
    "tok/s": lambda row: number(row.tokens_per_s, "{:.0f}"),
    "peak GB": lambda row: number(row.peak_memory_bytes, "{:.2f}", 1e-9),
    "time": lambda row: number(row.time_s, "{}") and clock(row.time_s or 0.0),
}


def results_html(recommendation: str, rows: Sequence[TrialRow], use: int | None) -> str:
    """A sentence and a table below it, all texts escaped; columns without a value are left out.

    Args:
        use: The number of the trial to use, whose row is bold; None for none.
    """
    keys = dict.fromkeys(key for row in rows for key in row.settings)
    models = short_names({row.settings[MODEL] for row in rows if MODEL in row.settings})

    def setting_of(key: str) -> Cell:
        def cell(row: TrialRow) -> str:
            value = row.settings.get(key)
            return models[value] if key == MODEL and value else setting(value)

        return cell

    columns: dict[str, Cell] = {
        "trial": lambda row: row.label,
        "state": lambda row: "use" if row.label == str(use) else row.state,
        **{short_name(key): setting_of(key) for key in keys},
        **NUMBERS,
    }
    filled = {title: cell for title, cell in columns.items() if any(map(cell, rows))}
    lines = [_line("th", filled)]
    for row in rows:
        tag = "th" if row.label == str(use) else "td"
        lines.append(_line(tag, [cell(row) for cell in filled.values()]))
    table = "".join(lines) if rows else ""
    return f"<p><b>{_text(recommendation)}</b></p><table>{table}</table>"


def _line(tag: str, texts: Sequence[str] | dict[str, Cell]) -> str:
    return f"<tr>{''.join(f'<{tag}>{_text(text)}</{tag}>' for text in texts)}</tr>"


def _text(text: str) -> str:
    return escape(visible_line(text))
