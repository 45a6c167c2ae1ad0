"""A study's report as one page that works without a network."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import jinja2
import optuna
import plotly.offline

from hawsweep.text import visible
from hawsweep.views.figures import (
    history,
    importance,
    learning_curves,
    memory_predicted_against_measured,
    parallel_coordinates,
    score_against_loss,
    score_intervals,
    slices,
)
from hawsweep.views.report.content import Report
from hawsweep.views.report.file import PAGE_MARK

_FOLDER = Path(__file__).parent / "pages"
_MOST_ROWS, _N_SHOWN = 200, 5
_DRAWN = {
    "scores": score_intervals,
    "curves": learning_curves,
    "history": history,
    "importance": importance,
    "parallel": parallel_coordinates,
    "slices": slices,
    "agreement": score_against_loss,
    "memory": memory_predicted_against_measured,
}
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
    library, script = plotly.offline.get_plotlyjs(), _own("report.js")
    drawn, empty = _drawn(study)
    items = () if report.compared is None else report.compared.items
    return environment.get_template("report.html.j2").render(
        report=report,
        policy=_policy(library, script),
        mark=PAGE_MARK,
        style=_own("report.css"),
        library=library,
        script=script,
        data=script_json(drawn),
        empty=empty,
        harmed=[item for item in items[:_N_SHOWN] if item.gain < 0],
        improved=[item for item in items[::-1][:_N_SHOWN] if item.gain > 0],
        every_item=items[:_MOST_ROWS],
        most=_MOST_ROWS,
    )


def script_json(value: Any) -> str:
    """JSON for a script, escaped so that it cannot end the script."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False).translate(_UNSAFE)


def _visible(value: Any) -> Any:
    """A text with the characters written out that would turn round what stands beside it."""
    return visible(value) if type(value) is str else value


def _drawn(study: optuna.Study) -> tuple[dict[str, Any], dict[str, str]]:
    """The figures with values, and the reasons why the others are empty."""
    found, empty = {}, {}
    for name, draw in _DRAWN.items():
        figure = draw(study)
        if not figure.data:
            empty[name] = " ".join(each.text for each in figure.layout.annotations)
            continue
        figure.update_layout(title=None, margin={"l": 50, "r": 10, "t": 30, "b": 40})
        found[name] = json.loads(figure.to_json())
    return found, empty


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
