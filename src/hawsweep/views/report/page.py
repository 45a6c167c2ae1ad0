"""A study's report as one page that works without a network."""

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import optuna
import plotly.offline

from hawsweep.results.importance import FEWEST_TRIALS
from hawsweep.results.translations import Translation, Translations, spread
from hawsweep.text import counted, visible
from hawsweep.views.figure_style import drawable_trials
from hawsweep.views.figures import (
    history,
    importance,
    learning_curves,
    loss_by_data,
    memory_predicted_against_measured,
    parallel_coordinates,
    score_against_loss,
    score_against_price,
    score_intervals,
    slices,
)
from hawsweep.views.report.content import Report
from hawsweep.views.report.file import PAGE_MARK
from hawsweep.views.report.scale import system_name

_FOLDER = Path(__file__).parent / "pages"
_MOST_ROWS, _N_SHOWN = 200, 20
_DRAWN = {
    "scores": score_intervals,
    "curves": learning_curves,
    "history": history,
    "importance": importance,
    "parallel": parallel_coordinates,
    "slices": slices,
    "price": score_against_price,
    "data": loss_by_data,
    "agreement": score_against_loss,
    "memory": memory_predicted_against_measured,
}
# Those that say little of few trials.
_OF_MANY = ("history", "parallel", "slices")
# Characters in JSON that could end or confuse a script are escaped.
_UNSAFE = {ord(char): f"\\u{ord(char):04x}" for char in "<>&"}


def report_page(report: Report, study: optuna.Study) -> str:
    """The page, with its figures, styles and scripts in it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        finalize=_visible,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["counted"] = counted
    library, script = plotly.offline.get_plotlyjs(), _own("report.js")
    drawn, answers = _drawn(study), report.translations
    rows = () if answers is None else spread(answers.rows, _MOST_ROWS)
    return environment.get_template("report.html.j2").render(
        report=report,
        policy=_policy(library, script),
        mark=PAGE_MARK,
        style=_own("report.css"),
        library=library,
        script=script,
        drawn=drawn.keys(),
        n_scored=len(drawable_trials(study)),
        data=script_json(drawn),
        rows=rows,
        first=spread(rows, _N_SHOWN),
        groups=sorted({row.group for row in rows if row.group is not None}),
        marked=script_json(None if answers is None else _to_mark(report.name, answers, rows)),
        system_name=system_name,
        most=_MOST_ROWS,
    )


def _to_mark(name: str, answers: Translations, rows: Sequence[Translation]) -> dict[str, Any]:
    """The answers that a person can mark, as the file of marks names them."""
    asked = [{"source": row.source, "output": row.answers["trial"].output} for row in rows]
    return {"study": name, "trial": answers.trial, "split": answers.split, "rows": asked}


def script_json(value: Any) -> str:
    """JSON for a script, escaped so that it cannot end the script."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False).translate(_UNSAFE)


def _visible(value: Any) -> Any:
    """A text with the characters written out that would turn round what stands beside it."""
    return visible(value) if type(value) is str else value


def _drawn(study: optuna.Study) -> dict[str, Any]:
    """The figures that have something to show."""
    found, are_few = {}, len(drawable_trials(study)) < FEWEST_TRIALS
    for name, draw in _DRAWN.items():
        figure = draw(study)
        if not figure.data or (are_few and name in _OF_MANY):
            continue
        figure.update_layout(title=None, margin={"l": 50, "r": 10, "t": 30, "b": 40})
        found[name] = json.loads(figure.to_json())
    return found


def _policy(*scripts: str) -> str:
    """The policy of the page: it runs its own scripts only, and loads no other file."""
    digests = (hashlib.sha256(each.encode()).digest() for each in scripts)
    allowed = " ".join(f"'sha256-{base64.b64encode(each).decode()}'" for each in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _own(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
