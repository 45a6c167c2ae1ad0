"""Figures of a study, by plotly, for its report and for the dashboard.

Each takes a study in any state and gives a figure. Without values to draw the figure has the
reason.
"""

import math
from collections.abc import Mapping
from typing import Any

import optuna
import plotly.graph_objects as go
from optuna.trial import FrozenTrial, TrialState
from plotly.subplots import make_subplots

from hawsweep.results.data_curve import known_curve
from hawsweep.results.importance import evaluator_of, find_insight, no_importance
from hawsweep.results.leaderboard import TrialRow, leaderboard
from hawsweep.results.price import prices
from hawsweep.study.attributes import SELF_CHECK
from hawsweep.study.confirm import winner
from hawsweep.study.trials import state_of
from hawsweep.text import duration
from hawsweep.views.figure_style import (
    BASE,
    BEST,
    CLEAR,
    OTHER,
    add_ends,
    add_level,
    bases_of,
    color_of,
    drawable_trials,
    emptied,
    finite_number,
    kind_of,
    loss_of,
    loss_text,
    metric_text,
    names_of,
    new_figure,
    peak_bytes,
    plain_copy,
    say_how_many,
    shown,
    styled,
    trial_text,
)

_GB = 1e9
_BAND = "rgba(128, 128, 128, 0.25)"
# The most lines that a browser draws quickly and a person can tell apart.
MOST_LINES = 300
_MOST_ROWS = 60
_NO_COMPLETE = "No complete trial yet."


def learning_curves(study: optuna.Study) -> go.Figure:
    """Validation losses over iterations, of the base and of trials; the best trial is highlighted.

    Of more trials than ``MOST_LINES``, complete ones and later ones are preferred.
    """
    figure = new_figure("Learning curves", "iteration", loss_text(study))
    best, trials = winner(study), study.get_trials(deepcopy=False)
    drawn = [(trial, losses) for trial in trials if (losses := _losses(trial))]
    drawn.sort(key=lambda each: _layer(each[0], best))
    longest = max((max(losses) for _, losses in drawn), default=0)
    seen = set()
    for trial, losses in drawn[-MOST_LINES:]:
        is_best, end = _is_same(trial, best), _end_of(trial, losses, longest)
        name = f"trial {trial.number}, the best" if is_best else end
        figure.add_scatter(
            x=list(losses),
            y=list(losses.values()),
            name=name,
            legendgroup=name,
            showlegend=name not in seen,
            mode="lines+markers",
            line={
                "color": color_of(trial.number, best),
                "width": 3 if is_best else 1.5,
                "dash": _DASHES.get(end, "dashdot"),
            },
            marker={"size": 7 if is_best else 5},
            hovertemplate=f"{trial_text(trial)}<br>iteration %{{x}}: val loss %{{y:.3f}}"
            "<extra></extra>",
        )
        seen.add(name)
    for label, loss, _ in bases_of(study):
        if drawn and loss is not None:
            add_level(figure, loss, label)
    say_how_many(figure, len(drawn[-MOST_LINES:]), len(drawn))
    figure.update_layout(legend={"traceorder": "reversed"})
    return figure if drawn else emptied(figure, "No trial was evaluated yet.")


def score_against_loss(study: optuna.Study) -> go.Figure:
    """The score of complete trials and of the base over their validation loss."""
    metric = metric_text(study)
    figure = new_figure("Score against validation loss", loss_text(study), metric)
    best = winner(study)
    points: list[tuple[str, str, str, float, float]] = []
    for trial in drawable_trials(study):
        loss, score = loss_of(trial.user_attrs), finite_number(trial.value)
        if loss is not None and score is not None:
            color = color_of(trial.number, best)
            points.append((color, str(trial.number), trial_text(trial), loss, score))
    for label, loss, score in bases_of(study):
        if points and loss is not None and score is not None:
            points.append((BASE, label, label, loss, score))
    for color, name in ((OTHER, "trials"), (BEST, "best"), (BASE, "base")):
        found = [each[1:] for each in points if each[0] == color]
        if found:
            labels, texts, losses, scores = zip(*found, strict=True)
            figure.add_scatter(
                x=losses,
                y=scores,
                name=name,
                mode="markers+text",
                text=labels,
                customdata=texts,
                textposition="top center",
                cliponaxis=False,
                marker={"color": color, "size": 10, "symbol": _SYMBOLS.get(name, "circle")},
                hovertemplate="%{customdata}<br>val loss %{x:.3f}, "
                f"{metric} %{{y:.4f}}<extra></extra>",
            )
    figure.update_layout(showlegend=False)
    return figure if points else emptied(figure, _NO_COMPLETE)


def memory_predicted_against_measured(study: optuna.Study) -> go.Figure:
    """The measured peak memory of trials over what their plan had predicted."""
    figure = new_figure("Memory: predicted and measured", "predicted peak, GB", "measured peak, GB")
    trials, best = study.get_trials(deepcopy=False), winner(study)
    points = [
        (trial, peaks[0] / _GB, peaks[1] / _GB) for trial in trials if (peaks := peak_bytes(trial))
    ]
    if not points:
        return emptied(figure, "No trial has both a predicted and a measured peak yet.")
    points.sort(key=lambda each: _is_same(each[0], best))  # the legend has the first one's colour
    ends = [value for _, *values in points for value in values]
    room = 0.05 * (max(ends) - min(ends)) or 0.05 * max(ends)
    both = [max(0.0, min(ends) - room), max(ends) + room]
    dotted = {"color": OTHER, "dash": "dot", "width": 1.5}
    figure.add_scatter(x=both, y=both, mode="lines", line=dotted, name="equal", hoverinfo="skip")
    for state, name in (
        ("complete", "complete"),
        ("pruned", "paused or pruned, until then"),
        ("other",) * 2,
    ):
        found = [each for each in points if kind_of(each[0]) == state]
        if found:
            figure.add_scatter(
                x=[predicted for _, predicted, _ in found],
                y=[measured for _, _, measured in found],
                mode="markers",
                marker={
                    "color": [color_of(trial.number, best) for trial, *_ in found],
                    "size": 9,
                    "symbol": "circle" if state == "complete" else "x",
                },
                name=name,
                text=[trial_text(trial) for trial, *_ in found],
                customdata=[100 * (predicted / measured - 1) for _, predicted, measured in found],
                hovertemplate="%{text}<br>predicted %{x:.2f} GB, measured %{y:.2f} GB "
                "(%{customdata:+.1f} %)<extra></extra>",
            )
    figure.update_xaxes(range=both)
    figure.update_yaxes(range=both)
    return figure


def score_against_price(study: optuna.Study) -> go.Figure:
    """The score of complete trials over their hours of training, and over their peak memory; those
    on the Pareto front of all three are marked and named.
    """
    rows, best = prices(leaderboard(study)), winner(study)
    metric = metric_text(study)
    if not rows:
        empty = new_figure("Price", "hours of training", metric)
        return emptied(empty, "No complete trial has a known time and memory yet.")
    figure = make_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.04)
    trials = study.get_trials(deepcopy=False)
    for is_on_front, name in ((False, "not on the front"), (True, "on the front")):
        found = [row for row in rows if row.is_on_front == is_on_front]
        for column, values in enumerate(
            (
                [row.train_time_s / 3600 for row in found],
                [row.peak_memory_bytes / _GB for row in found],
            ),
            1,
        ):
            figure.add_scatter(
                row=1,
                col=column,
                x=values,
                y=[row.score for row in found],
                name=name,
                legendgroup=name,
                showlegend=column == 1,
                mode="markers+text",
                text=[str(row.trial) if is_on_front else "" for row in found],
                textposition="top center",
                cliponaxis=False,
                customdata=[
                    f"{trial_text(trials[row.trial])}<br>{duration(row.train_time_s)}, "
                    f"{row.peak_memory_bytes / _GB:.2f} GB"
                    for row in found
                ],
                marker={
                    "color": [color_of(row.trial, best) for row in found],
                    "size": 11 if is_on_front else 8,
                    "symbol": "diamond" if is_on_front else "circle-open",
                },
                hovertemplate=f"%{{customdata}}<br>{metric} %{{y:.4f}}<extra></extra>",
            )
    figure.update_xaxes(title_text="hours of training", col=1)
    figure.update_xaxes(title_text="peak memory, GB", col=2)
    figure.update_yaxes(title_text=metric, col=1)
    return styled(figure, "Price")


def loss_by_data(study: optuna.Study) -> go.Figure:
    """The validation loss of the best settings by the number of training examples, with the fitted
    curve and its interval, up to about half as many examples more.
    """
    figure = new_figure("Data", "training examples", loss_text(study))
    curve = known_curve(study)
    if curve is None:
        return emptied(figure, "No data curve: hawsweep data-curve NAME makes it or says why not.")
    sizes = [row.size for row in curve.rows]
    reached = [*sizes, sizes[-1] + curve.more]
    fits = [*(row.fitted_loss for row in curve.rows), curve.expected_loss]
    figure.add_scatter(
        x=[*reached, *reversed(reached)],
        y=[*(fit.high for fit in fits), *(fit.low for fit in reversed(fits))],
        name="95 % interval of the curve",
        fill="toself",
        mode="none",
        fillcolor=_BAND,
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=reached,
        y=[fit.mean for fit in fits],
        name="curve",
        mode="lines",
        line={"color": OTHER, "dash": "dash"},
        hovertemplate="%{x:,} examples: %{y:.4f}<extra></extra>",
    )
    figure.add_scatter(
        x=sizes,
        y=[row.val_loss for row in curve.rows],
        name="runs",
        mode="markers",
        marker={"color": BEST, "size": 9},
        hovertemplate="%{x:,} examples: %{y:.4f}<extra></extra>",
    )
    figure.update_xaxes(type="log", tickvals=reached, ticktext=[f"{each:,}" for each in reached])
    return figure


def history(study: optuna.Study) -> go.Figure:
    """The score of each complete trial, the best so far, and the base's as a line."""
    figure = new_figure("History", "trial", metric_text(study))
    if not drawable_trials(study):
        return emptied(figure, _NO_COMPLETE)
    best = winner(study)
    drawn = optuna.visualization.plot_optimization_history(study, target_name="trial")
    for trace in drawn.data:
        points = [(x, y) for x, y in zip(trace.x, trace.y, strict=True) if math.isfinite(y)]
        if not points:
            continue
        name = "best so far" if trace.mode == "lines" else "trial"
        trace.update(x=[x for x, _ in points], y=[y for _, y in points], name=name)
        trace.update(hovertemplate=f"{name} %{{x}}: %{{y:.4f}}<extra></extra>")
        if trace.mode == "lines":
            trace.update(line={"color": OTHER, "width": 1.5, "shape": "hv"})
        else:
            trace.update(marker={"color": [color_of(each, best) for each in trace.x], "size": 9})
        figure.add_trace(trace)
    for label, _, score in bases_of(study):
        if score is not None:
            add_level(figure, score, label)
    figure.update_xaxes(tickformat="d")
    return figure


def importance(study: optuna.Study) -> go.Figure:
    """The importance of each parameter for the score, by PED-ANOVA."""
    figure = new_figure("Importance", "share, by PED-ANOVA", "")
    insight = find_insight(study)
    if not insight.importance:
        return emptied(figure, no_importance(insight))
    drawn = optuna.visualization.plot_param_importances(
        study,
        evaluator=evaluator_of(insight.n_trials),
        params=list(insight.importance),
    )
    names = names_of(insight.importance)
    for bar in drawn.data:
        bar.update(y=[names[each] for each in bar.y], marker={"color": OTHER})
        bar.update(hovertemplate="%{y}: %{x:.0%}<extra></extra>", name="importance")
        figure.add_trace(bar)
    most = max(insight.importance.values())
    figure.update_xaxes(tickformat=".0%", range=[0, 1.2 * most])  # with room for the numbers
    figure.update_layout(showlegend=False)
    return figure


def parallel_coordinates(study: optuna.Study) -> go.Figure:
    """Complete trials, the best ``MOST_LINES``, as lines through their score and settings."""
    figure = new_figure("Parallel coordinates", "", "")
    plain = plain_copy(study, MOST_LINES)
    if not any(trial.params for trial in drawable_trials(plain)):
        return emptied(figure, _NO_COMPLETE)
    drawn = optuna.visualization.plot_parallel_coordinate(plain, target_name=metric_text(study))
    lines = [trace for trace in drawn.data if trace.mode == "lines" and trace.x[0] is not None]
    scores, best = [trial.value or 0.0 for trial in drawable_trials(plain)], winner(study)
    # A line has its score as a share of the axis, and no number of its trial.
    span = max(scores) - min(scores)
    at = ((best.value or 0.0) - min(scores)) / span if best is not None and span else 1.0
    for trace in sorted(lines, key=lambda each: (math.isclose(each.y[0], at), each.y[0])):
        is_best = len(lines) == 1 or math.isclose(trace.y[0], at)
        trace.update(line={"color": BEST if is_best else OTHER, "width": 3 if is_best else 1.5})
        trace.update(opacity=0.85)
        figure.add_trace(trace)
    axis = drawn.layout.xaxis
    figure.update_xaxes(tickmode="array", tickvals=axis.tickvals, ticktext=axis.ticktext)
    figure.update_xaxes(range=axis.range, showgrid=False, showline=False)
    figure.update_yaxes(range=drawn.layout.yaxis.range, visible=False, fixedrange=True)
    figure.update_layout(shapes=drawn.layout.shapes, annotations=drawn.layout.annotations)
    figure.update_annotations(bgcolor=CLEAR, font={"size": 11, "color": None})
    say_how_many(figure, len(lines), len(drawable_trials(study)))
    figure.update_layout(showlegend=False, hovermode="closest")
    return figure


def slices(study: optuna.Study) -> go.Figure:
    """The score of complete trials over each parameter."""
    best = winner(study)
    plain, metric = plain_copy(study), metric_text(study)
    if not any(trial.params for trial in drawable_trials(plain)):
        return emptied(new_figure("Slices", "", metric), _NO_COMPLETE)
    drawn = optuna.visualization.plot_slice(plain, target_name=metric)
    for trace in drawn.data:
        numbers = list(trace.marker.color)
        colors = [color_of(each, best) for each in numbers]
        trace.update(
            x=[_unquoted(each) for each in trace.x],
            text=numbers,
            marker={"color": colors, "size": 9, "line": {"width": 0}},
            hovertemplate="trial %{text}<br>%{x}: %{y:.4f}<extra></extra>",
        )
    drawn.update_traces(marker={"showscale": False})
    drawn.for_each_xaxis(_tidy_axis)
    drawn.update_layout(width=None)
    return styled(drawn, "Slices")


def score_intervals(study: optuna.Study) -> go.Figure:
    """Scores with their 95 % intervals, best first: trials, baselines, scores from elsewhere; and
    the mean scores of confirming runs.
    """
    figure = new_figure("Scores", metric_text(study), "")
    rows = [row for row in leaderboard(study) if finite_number(row.score) is not None][:_MOST_ROWS]
    if not rows:
        return emptied(figure, _NO_COMPLETE)
    best = winner(study)
    for row in rows:
        name = _row_name(row)
        is_best = best is not None and name == f"trial {best.number}"
        color = BEST if is_best else BASE if row.state == "base" else OTHER
        figure.add_scatter(
            x=[row.score],
            y=[name],
            name=name,
            mode="markers",
            marker={"color": color, "size": 10, "symbol": _SYMBOLS.get(row.state, "circle")},
            error_x=_error(row, color),
            hovertemplate=f"{name}: %{{x:.4f}}{_range_text(row)}<extra></extra>",
        )
    again = [row for row in rows if row.confirmed is not None]
    figure.add_scatter(
        x=[row.confirmed for row in again],
        y=[_row_name(row) for row in again],
        name="with new seeds",
        mode="markers",
        marker={"color": OTHER, "size": 11, "symbol": "diamond-open", "line": {"width": 2}},
        hovertemplate="%{y} with new seeds: %{x:.4f}<extra></extra>",
    )
    figure.update_yaxes(autorange="reversed", type="category", showgrid=False, dtick=1)
    if check := study.user_attrs.get(SELF_CHECK):
        add_ends(figure, check)
    figure.update_layout(showlegend=False, height=120 + 26 * len(rows))
    return figure


_SYMBOLS = {"base": "diamond", "reference": "x"}


def _error(row: TrialRow, color: str) -> dict[str, Any]:
    low, high = finite_number(row.low), finite_number(row.high)
    if row.score is None or low is None or high is None:
        return {"visible": False}
    return {
        "type": "data",
        "symmetric": False,
        "array": [max(0.0, high - row.score)],
        "arrayminus": [max(0.0, row.score - low)],
        "color": color,
        "thickness": 2,
        "width": 5,
    }


def _range_text(row: TrialRow) -> str:
    low, high = finite_number(row.low), finite_number(row.high)
    return "" if low is None or high is None else f" (95 % {low:.3f} to {high:.3f})"


def _row_name(row: TrialRow) -> str:
    return shown(row.label) if row.state in ("base", "reference") else f"trial {row.label}"


def _losses(trial: FrozenTrial) -> dict[int, float]:
    """Validation loss by iteration, in the unit of ``loss_text``."""
    known = sorted(trial.intermediate_values.items())
    return {step: -value for step, value in known if math.isfinite(value)}


def _is_same(trial: FrozenTrial, best: FrozenTrial | None) -> bool:
    return best is not None and trial.number == best.number


_WHOLE, _SHORTER = "trained whole", "complete, shorter"
_DASHES = {_WHOLE: "solid", _SHORTER: "longdash", "pruned": "dash", "paused": "dot"}


def _end_of(trial: FrozenTrial, losses: Mapping[int, float], longest: int) -> str:
    """How a trial's line ends, in words."""
    if trial.state != TrialState.COMPLETE:
        return state_of(trial)
    return _WHOLE if max(losses) == longest else _SHORTER


def _layer(trial: FrozenTrial, best: FrozenTrial | None) -> tuple[bool, bool, int]:
    """Order the traces: later ones are drawn above."""
    return _is_same(trial, best), trial.state == TrialState.COMPLETE, trial.number


def _unquoted(value: Any) -> Any:
    """A choice in Optuna's form on an axis, without its quotes."""
    is_quoted = isinstance(value, str) and len(value) > 1 and value[0] == value[-1] == "'"
    return value[1:-1] if is_quoted else value


def _tidy_axis(axis: Any) -> None:
    if labels := axis.categoryarray:
        axis.update(categoryarray=[_unquoted(each) for each in labels])
    if axis.type == "log":
        axis.update(exponentformat="e", dtick="D2")  # only 2 and 5 between powers of ten
