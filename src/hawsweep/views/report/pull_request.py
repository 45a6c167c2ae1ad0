"""A study's report in short, as Markdown for a pull request."""

import re
from dataclasses import replace

from hawsweep.markdown import fenced, plain, table
from hawsweep.results.compare_trials import Item
from hawsweep.views.report.content import Report
from hawsweep.views.report.file import MARKDOWN_MARK
from hawsweep.views.terminal.plain_tables import Cells

_N_ROWS, _N_GROUPS, _N_ITEMS = 5, 10, 5
# Sentences may be longer than cells.
_LONG = 400
# Most numbers and sentences contain no Markdown, and are easier to read without backslashes.
_UNMARKED = re.compile(
    r"(?!.*www\.)(?!\d+[.)] )[+-]?[0-9A-Za-z(][0-9A-Za-z .,:;+%()'-]*", re.IGNORECASE
)


def report_markdown(report: Report) -> str:
    """The report in Markdown: verdict, best trials, test, groups, translations, reproduction."""
    parts = [
        f"{MARKDOWN_MARK} {report.version} -->",
        f"### {_sentence(report.headline)}",
        "" if report.is_final else f"_{_text(report.state)}_",
        "\n".join(f"- {_sentence(each)}" for each in report.said),
        f"Trial {report.winner}: {_text(report.settings)}" if report.settings else "",
        _board(report),
        _section("Test split", "" if report.test is None else _table(report.test)),
        _groups(report),
        _items(report),
        _again(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _board(report: Report) -> str:
    """The best trials and the baselines."""
    titles = report.board.titles
    pairs = list(zip(report.board.rows, report.states, strict=True))
    best = [row for row, state in pairs if state == "complete"][:_N_ROWS]
    shown = [row for row, state in pairs if row in best or state in ("base", "reference")]
    left = [n for n in range(len(titles)) if any(row[n] for row in shown)]  # no empty columns
    cells = Cells(
        tuple(titles[n] for n in left),
        tuple(report.board.are_numbers[n] for n in left),
        tuple(tuple(row[n] for n in left) for row in shown),
    )
    return _section(f"Best trials, by {_text(report.metric)}", _table(cells) if shown else "")


def _groups(report: Report) -> str:
    """The groups in which the trial scores lower than the base."""
    if not report.groups:
        return ""
    pairs = zip(report.groups, report.group_cells.rows, strict=True)
    rows = tuple(cells for group, cells in pairs if group.gain.mean < 0)[:_N_GROUPS]
    said = [_sentence(each) for each in report.losses]
    said.append(_table(replace(report.group_cells, rows=rows)) if rows else "No group lost.")
    return _section("Groups", "\n\n".join(said))


def _items(report: Report) -> str:
    """The largest losses and gains, folded up."""
    if report.compared is None:
        return ""
    items = report.compared.items
    harmed = [item for item in items[:_N_ITEMS] if item.gain < 0][: _N_ITEMS // 2]
    improved = [item for item in items[::-1] if item.gain > 0][: _N_ITEMS - len(harmed)]
    titles = ("gain", "source", "reference", *map(plain, report.compared.labels))
    rows = [_item(item) for item in (*improved, *harmed)]
    text = (
        f"{len(rows)} of {len(items)} translations: the largest gains and losses "
        f"(better on {report.compared.n_better}, worse on {report.compared.n_worse})"
    )
    return _folded(text, table(titles, rows, right=(0,))) if rows else ""


def _item(item: Item) -> list[str]:
    texts = (item.source, item.reference, *item.outputs)
    return [f"{item.gain:+.3f}", *(plain(text) or "(empty)" for text in texts)]


def _again(report: Report) -> str:
    commands = "\n".join(f"# {title}\n{command}" for title, command in report.reproduce)
    text = f"{fenced(commands, 'sh')}\n\n{fenced(report.spec.rstrip(), 'yaml')}"
    made = "\n".join(f"- {_text(title)}: {_text(value)}" for title, value in report.made_with)
    return _folded("How to reproduce it", f"{text}\n\n{made}")


def _table(cells: Cells) -> str:
    right = [number for number, is_number in enumerate(cells.are_numbers) if is_number]
    rows = [[_text(cell) for cell in row] for row in cells.rows]
    return table([_text(title) for title in cells.titles], rows, right=right)


def _section(title: str, text: str) -> str:
    return f"**{title}**\n\n{text}" if text else ""


def _folded(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def _sentence(text: str) -> str:
    """A sentence that begins as one."""
    return _text(text[:1].upper() + text[1:])


def _text(text: str) -> str:
    is_unmarked = len(text) <= _LONG and _UNMARKED.fullmatch(text)
    return text if is_unmarked else plain(text, _LONG)
