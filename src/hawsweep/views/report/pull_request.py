"""A study's report in short, as Markdown for a pull request."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hawsweep.markdown import plain, render, table
from hawsweep.results.translations import Translation
from hawsweep.views.report.content import Report
from hawsweep.views.report.file import MARKDOWN_MARK
from hawsweep.views.terminal.plain_tables import Cells

_TEMPLATE = Path(__file__).parent / "pages" / "pull_request.md.j2"
_N_ROWS, _N_GROUPS, _N_ITEMS = 5, 10, 5
_SYSTEMS = ("base", "trial")
# Sentences may be longer than cells.
_LONG = 400
# Most numbers and sentences contain no Markdown, and are easier to read without backslashes.
_UNMARKED = re.compile(
    r"(?!.*www\.)(?!\d+[.)] )[+-]?[0-9A-Za-z(][0-9A-Za-z .,:;+%()'-]*", re.IGNORECASE
)


def report_markdown(report: Report) -> str:
    """The report in Markdown: verdict, best trials, test, groups, translations, reproduction."""
    answers = report.translations
    items = [] if answers is None else _items(answers.rows)
    labels = () if answers is None else [answers.labels[system] for system in _SYSTEMS]
    titles = ("gain", "source", "reference", *map(plain, labels))
    return render(
        _TEMPLATE,
        mark=MARKDOWN_MARK,
        report=report,
        best=_best(report),
        lost=_lost(report) if report.groups else None,
        n_items=len(items),
        items=table(titles, map(_item, items), right=(0,)) if items else None,
        commands="\n".join(f"# {title}\n{command}" for title, command in report.reproduce),
        sentence=_sentence,
        table=_table,
        text=_text,
    )


def _best(report: Report) -> Cells:
    """The best trials and the baselines."""
    titles = report.board.titles
    pairs = list(zip(report.board.rows, report.states, strict=True))
    best = [row for row, state in pairs if state == "complete"][:_N_ROWS]
    shown = [row for row, state in pairs if row in best or state in ("base", "reference")]
    left = [n for n in range(len(titles)) if any(row[n] for row in shown)]  # no empty columns
    return Cells(
        tuple(titles[n] for n in left),
        tuple(report.board.are_numbers[n] for n in left),
        tuple(tuple(row[n] for n in left) for row in shown),
    )


def _lost(report: Report) -> Cells:
    """The groups in which the trial scores lower than the base beyond chance."""
    pairs = zip(report.groups, report.group_cells.rows, strict=True)
    rows = tuple(cells for group, cells in pairs if group.gain.high < 0)[:_N_GROUPS]
    return replace(report.group_cells, rows=rows)


def _items(rows: Sequence[Translation]) -> list[Translation]:
    """The largest gains and losses."""
    harmed = [row for row in rows[::-1] if row.gain < 0][: _N_ITEMS // 2]
    improved = [row for row in rows if row.gain > 0][: _N_ITEMS - len(harmed)]
    return [*improved, *harmed]


def _item(row: Translation) -> list[str]:
    texts = (row.source, row.reference, *(row.answers[system].output for system in _SYSTEMS))
    return [f"{row.gain:+.3f}", *(plain(text) or "(empty)" for text in texts)]


def _table(cells: Cells) -> str:
    right = [number for number, is_number in enumerate(cells.are_numbers) if is_number]
    rows = [[_text(cell) for cell in row] for row in cells.rows]
    return table([_text(title) for title in cells.titles], rows, right=right)


def _sentence(text: str) -> str:
    """A sentence that begins as one."""
    return _text(text[:1].upper() + text[1:])


def _text(text: str) -> str:
    is_unmarked = len(text) <= _LONG and _UNMARKED.fullmatch(text)
    return text if is_unmarked else plain(text, _LONG)
