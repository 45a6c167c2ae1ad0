"""Tables of studies and trials, and the picture at the end of a start."""

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from hawsweep.layout import ADAPTER_DIR
from hawsweep.results.html_table import NUMBERS, Cell
from hawsweep.spec.space import MODEL
from hawsweep.spec.sweep import short_names
from hawsweep.study.baselines import prompt_text, score_of
from hawsweep.study.place import printable
from hawsweep.text import (
    counted,
    duration,
    number,
    opened_text,
    score_range,
    setting,
    short_name,
    shorten,
)
from hawsweep.views.terminal.fitted_table import make_table
from hawsweep.views.terminal.price import price_parts
from hawsweep.views.terminal.style import STYLES
from hawsweep.views.terminal.text import Text
from hawsweep.views.terminal.verdict import (
    confirmation_lines,
    insight_picture,
    judged_groups_parts,
    scale_lines,
    self_check_lines,
    verdict_lines,
)

if TYPE_CHECKING:
    from hawsweep.results.leaderboard import StudyRow, TrialRow
    from hawsweep.results.study_results import EndOfStudy
    from hawsweep.results.verdict import Verdict
    from hawsweep.results.what_is_left import Remaining
    from hawsweep.running.status import Status


# The most lines of a leaderboard without --all.
MOST_ROWS = 30

# The smallest width of the column of models.
_MODEL_LEAST = 9
# Between columns: with their titles, and with short ones.
_GAPS = (2, 1)
# The short titles of columns that go where room is short, the first first; then settings, from the
# last. Trial, state and score stay.
_DROPPED = ("tok/s", "chrF", "GB", "time", "at", "accum", "val", "95 %", "conf.", "/byte")
# The columns of numbers, in their order; their short titles; and those that only some studies have.
_NUMBERS: dict[str, Cell] = {
    "val loss": NUMBERS["val loss"],
    "per byte": lambda row: number(row.nats_per_byte, "{:.3f}"),
    **NUMBERS,
}
_SHORT = {"val loss": "val", "per byte": "/byte", "confirmed": "conf.", "peak GB": "GB"}
_IF_ANY = ("per byte", "confirmed")

# The meanings of columns, by their titles; a narrow table has the shorter ones.
_SEEDS = "mean score with new seeds"
_MEANINGS = {
    "accum": "grad_accumulation_steps",
    "per byte": "validation loss in nats per byte",
    "/byte": "validation loss in nats per byte",
    "at": "iteration of the best evaluation",
    "95 %": "interval of the score",
    "confirmed": _SEEDS,
    "conf.": _SEEDS,
    "tok/s": "tokens trained per second",
}


@dataclass(frozen=True)
class _Column:
    """A column of the leaderboard, with a shorter title and shorter cells for where room is short.

    Attributes:
        least: The width that it must have; None for that of its longest cell. Only names of models
            may have less, which then take several lines.
    """

    title: str
    short: str
    cells: Sequence[str]
    short_cells: Sequence[str]
    is_number: bool = True
    least: int | None = None

    def width(self, *, is_short: bool) -> int:
        """The characters that it takes."""
        if is_short and self.least is not None:
            return self.least
        title, cells = (self.short, self.short_cells) if is_short else (self.title, self.cells)
        return max(map(cell_len, (title, *cells)))


def leaderboard_table(rows: Sequence["TrialRow"], width: int, use: int | None = None) -> Table:
    """The trials, one a line. Where all columns do not fit, titles are shorter; where that is not
    enough, whole columns go, in the order of ``_DROPPED``. No cell is cut.

    Args:
        use: The number of the trial to use, whose state is that.
    """
    columns = _columns(rows, use)
    is_short = _table_width(columns, is_short=False) > width
    if is_short:
        columns = _fitting(columns, width)
    gap = _GAPS[is_short]
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, gap, 0, 0))
    for each in columns:
        table.add_column(
            each.short if is_short else each.title,
            justify="right" if each.is_number else "left",
            no_wrap=each.least is None,
            overflow="fold",
            min_width=each.least,
        )
    cells = [each.short_cells if is_short else each.cells for each in columns]
    for row, texts in zip(rows, zip(*cells, strict=True), strict=True):
        is_used = use is not None and row.label == str(use)
        style = "bold green" if is_used else STYLES.get(row.state, "")
        table.add_row(*map(escape, texts), style=style)
    if any(row.state == "reference" for row in rows):
        table.caption = "elsewhere: not measured here; perhaps a score on other items"
        table.caption_justify = "left"
    return table


def _columns(rows: Sequence["TrialRow"], use: int | None) -> list[_Column]:
    """All columns that have something to say."""
    keys = list(dict.fromkeys(key for row in rows for key in row.settings))
    keys.sort(key=lambda key: key != MODEL)
    models = short_names({row.settings[MODEL] for row in rows if MODEL in row.settings})

    def column(title: str, short: str, cell: Callable[["TrialRow"], str], **more: Any) -> _Column:
        cells = [cell(row) for row in rows]
        return _Column(title, short, cells, more.pop("short_cells", cells), **more)

    def state(row: "TrialRow") -> str:
        if use is not None and row.label == str(use):
            return "use"
        return {"base": "", "reference": "elsewhere"}.get(row.state, row.state)

    def key_column(key: str) -> _Column:
        name = short_name(key)
        least = {"least": _MODEL_LEAST} if key == MODEL else {}
        return column(name, name, lambda row: _setting(row, key, models), **least)

    ranges = [score_range(row.low, row.high, is_short=True) for row in rows]
    shorter = {"95 %": {"short_cells": ranges}}
    return [
        column("trial", "trial", lambda row: _label(row, models)),
        column("state", "state", state, is_number=False),
        *map(key_column, keys),
        *(
            column(title, _SHORT.get(title, title), cell, **shorter.get(title, {}))
            for title, cell in _NUMBERS.items()
            if title not in _IF_ANY or any(map(cell, rows))
        ),
    ]


def _fitting(columns: Sequence[_Column], width: int) -> list[_Column]:
    """The columns that fit, with short titles."""
    left = [each for each in columns if any(each.short_cells)]
    # The loss per token cannot be compared between models.
    first = ("val",) if any(each.short == "/byte" for each in left) else ()
    settings = [each.short for each in left[2:] if each.short not in (*_DROPPED, "score")]
    for title in (*first, *_DROPPED, *reversed(settings)):
        if _table_width(left, is_short=True) <= width:
            break
        left = [each for each in left if each.short != title]
    return left


def _table_width(columns: Sequence[_Column], *, is_short: bool) -> int:
    widths = [each.width(is_short=is_short) for each in columns]
    return sum(widths) + _GAPS[is_short] * (len(widths) - 1)


def _board_parts(
    rows: Sequence["TrialRow"], width: int, verdict: "Verdict | None"
) -> list[RenderableType]:
    """A leaderboard, and below it the meanings of its columns."""
    table = leaderboard_table(rows, width, None if verdict is None else verdict.use)
    titles = [str(column.header) for column in table.columns]
    meanings = [f"{title}: {_MEANINGS[title]}" for title in titles if title in _MEANINGS]
    return [table, Text("; ".join(meanings), style="dim")]


def _label(row: "TrialRow", models: Mapping[str, str]) -> str:
    """The row's label, without the model's name, which has a column."""
    name = models.get(row.settings.get(MODEL, ""), "")
    return row.label.removesuffix(f" {name}") if row.state == "base" and name else row.label


def _setting(row: "TrialRow", key: str, models: Mapping[str, str]) -> str:
    value = row.settings.get(key)
    return str(models.get(value, value)) if key == MODEL and value else setting(value)


def samples_table(samples: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> Table:
    """Translations of base and trial side by side: pairs of ``samples.jsonl`` records."""
    table = make_table("~Source | ~Reference | ~Base | ~Trial", lines=True)
    for base, tuned in samples:
        texts = (tuned["source"], tuned["reference"], base["output"], tuned["output"])
        table.add_row(*(escape(shorten(text)) for text in texts))
    return table


def studies_table(studies: Sequence["StudyRow"]) -> Table:
    """The studies, one a line."""
    table = make_table(
        "study | ~trials | use | >score | >base | ~description",
        dropped=("description", "base", "trials"),
    )
    for study in studies:
        states = ", ".join(f"{count} {state}" for state, count in sorted(study.trials.items()))
        table.add_row(
            escape(printable(study.name)),
            states,
            "none yet" if study.use is None else f"trial {study.use}",
            number(study.best_score, "{:.4f}"),
            number(study.base_score, "{:.4f}"),
            escape(study.description),
        )
    return table


def test_text(test: Mapping[str, Any] | None) -> str:
    """The result on the test split, with a warning if it was opened before; empty without one."""
    if test is None:
        return ""
    base, tuned, few_shot = test["base"], test["trial"], test.get("few_shot")
    text = (
        f"Test split ({counted(test['n_prompts'], 'prompt')}): trial {test['trial_number']} "
        f"[bold]{score_of(tuned):.4f}[/bold], untuned {score_of(base):.4f}"
    )
    if few_shot is not None:
        prompt = prompt_text(few_shot) if few_shot.get("instruction") else "examples"
        text += f", with {prompt} {score_of(few_shot):.4f}"
    text += (
        f"; chrF {tuned['chrf']:.1f}, untuned {base['chrf']:.1f}; BLEU {tuned['bleu']:.1f}, "
        f"untuned {base['bleu']:.1f}"
    )
    if warning := opened_text(test["n_opened"]):
        text += f". [yellow]{warning}[/yellow]"
    return text


def status_picture(
    status: "Status", width: int, most_rows: int | None, *, with_left: bool = True
) -> RenderableType:
    """The verdict on a study, its trials, and the work left.

    Args:
        most_rows: Lines of the leaderboard; None for all.
    """
    head = Text.from_markup(f"[bold]{escape(status.study)}[/bold]  {escape(status.description)}")
    rows, n_more = shown_rows(status.rows, most_rows)
    said = [
        *verdict_lines(status.verdict),
        test_text(status.test),
        *confirmation_lines(status.confirmed),
        *scale_lines(status.self_check, status.rows),
    ]
    parts: list[RenderableType] = [head, *(Text.from_markup(text) for text in said if text)]
    parts += [*([""] if len(parts) > 1 else []), *_board_parts(rows, width, status.verdict)]
    if n_more:
        parts.append(Text(f"{counted(n_more, 'more trial')}: --all shows them", style="dim"))
    parts += judged_groups_parts(status.groups, status.test, status.verdict)
    parts += price_parts(status.price, most_rows)
    if status.standing.known:
        parts += ["", Text(f"Known so far: {' '.join(status.standing.known)}", overflow="fold")]
    if status.insight is not None:
        parts += ["", insight_picture(status.insight)]
    return Group(*parts, *(left_lines(status) if with_left else ()))


def shown_rows(rows: Sequence["TrialRow"], most: int | None) -> tuple[list["TrialRow"], int]:
    """The best rows, all baselines and running trials, and the number of rows left out."""
    if most is None or len(rows) <= most:
        return list(rows), 0
    always = ("base", "reference", "running")
    shown = [row for at, row in enumerate(rows) if at < most or row.state in always]
    return shown, len(rows) - len(shown)


def left_lines(status: "Status") -> list[RenderableType]:
    """The work left of a study, its time, and the next command."""
    standing, takes = status.standing, status.seconds_left
    done = f"{standing.finished} of {counted(standing.n_trials, 'trial')} "
    done += "is done" if standing.n_trials == 1 else "are done"
    if standing.n_paused:
        done += f", {standing.n_paused} {'is' if standing.n_paused == 1 else 'are'} paused"
    if standing.is_done:
        lines = [done + "; nothing is left."] if standing.n_trials else []
        next_line = "Next: "
    else:
        to_go = f"{standing.trials_left} to go" if standing.trials_left else ""
        then = then_text(standing)
        rest = ", then ".join(each for each in (to_go, then) if each)
        about = "" if takes is None else f", about {duration(takes)}"
        lines, next_line = [f"{done}; left: {rest}{about}."], "Go on: "
    if status.running is not None:
        who = status.supervisor or {}
        by = f" as process {who['pid']}" if "pid" in who else " on another machine"
        lines.append(f"It runs{by}. Watch it: {status.watch}")
    elif status.command:
        lines.append(f"{next_line}{status.command}")
    return ["", *(Text(line, overflow="fold") for line in lines)] if lines else []


def then_text(standing: "Remaining") -> str:
    """The work after the trials."""
    again_left = standing.again_left
    parts = [f"{counted(again_left, 'run')} with new seeds"] if again_left else []
    parts += ["the test split"] if standing.test_left else []
    parts += ["the questions of retention"] if standing.retention_left else []
    return " and ".join(parts)


def _commands(commands: Iterable[str], options: Sequence[str]) -> list[str]:
    return [shlex.join(["hawsweep", *command.split(), *options]) for command in commands]


def end_picture(end: "EndOfStudy", ended: str, width: int) -> RenderableType:
    """The picture at the end of a start."""
    name = end.name
    rows, n_more = shown_rows(end.rows, MOST_ROWS)
    parts: list[RenderableType] = ["", *_board_parts(rows, width, end.verdict)]
    if n_more:
        (every,) = _commands([f"status {name} --all"], end.options)
        parts.append(Text(f"{counted(n_more, 'more trial')}: {every}", style="dim"))
    parts.append("")
    if text := test_text(end.test):
        parts += [Text.from_markup(text)]
    said = [*verdict_lines(end.verdict), *confirmation_lines(end.confirmed)]
    parts += map(Text.from_markup, said)
    if end.self_check:
        lines = [*scale_lines(end.self_check, end.rows), *self_check_lines(end.self_check)]
        parts += ["", *map(Text.from_markup, lines)]
    parts += [*judged_groups_parts(end.groups or None, end.test, end.verdict), ""]
    if end.samples:
        parts += [samples_table(end.samples), ""]
    if ended != "finished":
        reason = "Interrupted." if ended == "interrupted" else "The time is up."
        parts += [
            Text.from_markup(f"[yellow]{reason}[/yellow] The same command goes on."),
            "",
        ]
    where, nexts = Table.grid(padding=(0, 2)), list[str]()
    where.add_row("Study", str(end.study_dir))
    if end.trial_dir is not None:
        where.add_row("Best adapter", str(end.trial_dir / ADAPTER_DIR))
        shown = f"show {name} {end.best_trial}"
        nexts = [shown, f"report {name} --open"]
        if end.verdict is not None and end.verdict.ships:
            nexts.insert(0, f"export {name} --fuse")
    commands = _commands([*nexts, f"dashboard {name}"], end.options)
    where.add_row("Next", Group(*map(Text, commands)))
    return Group(*parts, where)
