"""The style of a study's figures, and their texts about trials.

Backgrounds are transparent and colours of middle lightness, for light pages and dark ones.
"""

import math
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

import optuna
import plotly.graph_objects as go
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from hawsweep.spec.space import MODEL
from hawsweep.spec.sweep import short_names
from hawsweep.study.attributes import BASES, NATS_PER_BYTE, PEAK_MEMORY_BYTES, PLAN, VAL_LOSS
from hawsweep.study.baselines import baselines
from hawsweep.study.trials import state_of
from hawsweep.text import setting, short_name, visible

# Of the best trial, of the untuned model, and of everything else.
BEST, BASE, OTHER = "#e8690b", "#0f9d8a", "#7f8794"
CLEAR = "rgba(0,0,0,0)"
_TEXT, _LINES = "#7a808a", "rgba(128,134,144,0.25)"


def new_figure(title: str, x: str, y: str) -> go.Figure:
    """A figure without traces.

    Args:
        x: The axis's title.
        y: The axis's title.
    """
    figure = go.Figure()
    figure.update_xaxes(title_text=x)
    figure.update_yaxes(title_text=y)
    return styled(figure, title)


def styled(figure: go.Figure, title: str) -> go.Figure:
    """The figure in the common style."""
    figure.update_layout(
        template="none",
        title={"text": title, "x": 0.01, "xanchor": "left", "y": None, "yref": None},
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        font={"color": _TEXT, "family": "system-ui, -apple-system, sans-serif", "size": 13},
        margin={"l": 60, "r": 20, "t": 50, "b": 50},
        hoverlabel={"align": "left"},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 1, "xanchor": "right"},
    )
    axes = {"gridcolor": _LINES, "zeroline": False, "linecolor": _LINES, "automargin": True}
    figure.update_xaxes(**axes)
    figure.update_yaxes(**axes)
    return figure


def emptied(figure: go.Figure, reason: str) -> go.Figure:
    """The figure without axes, with the reason why it is empty."""
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    figure.add_annotation(
        text=reason, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False, font={"size": 14}
    )
    return figure


def say_how_many(figure: go.Figure, n_drawn: int, n: int) -> None:
    """Write above the figure that not all trials are drawn, if so."""
    if n_drawn < n:
        place = {"xref": "paper", "yref": "paper", "x": 0, "y": 1, "yshift": 18}
        figure.add_annotation(text=f"{n_drawn:,} of {n:,} trials", showarrow=False, **place)


def add_level(figure: go.Figure, level: float, name: str) -> None:
    """Draw a line across, such as the base's."""
    figure.add_hline(
        y=level,
        line={"color": BASE, "dash": "dash", "width": 1.5},
        annotation={"text": name, "font": {"color": BASE}},
        annotation_position="top right",
    )


def add_ends(figure: go.Figure, check: Mapping[str, Any]) -> None:
    """Draw the scores of chance and of right answers as lines from below."""
    for level, name in ((check["floor"], "chance"), (check["ceiling"], "right")):
        figure.add_vline(
            x=level,
            line={"color": OTHER, "dash": "dot", "width": 1.5},
            annotation={"text": f"{name} {level:.3f}", "yshift": 18},
            annotation_position="top left" if name == "right" else "top right",
        )


def finite_number(value: Any) -> float | None:
    """A number that can be drawn; None for other values in a database."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def drawable_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The trials with a score that can be drawn."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [trial for trial in trials if finite_number(trial.value) is not None]


def kind_of(trial: FrozenTrial) -> str:
    """``complete``, ``pruned``, as also paused ones are drawn, or ``other``."""
    known = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned"}
    return "pruned" if state_of(trial) == "paused" else known.get(trial.state, "other")


def color_of(number: int, best: FrozenTrial | None) -> str:
    """The colour of the trial of a number."""
    return BEST if best is not None and number == best.number else OTHER


def trial_text(trial: FrozenTrial) -> str:
    """A trial and its settings, for the box beside the pointer."""
    params = {key: _named(key, value) for key, value in trial.params.items()}
    settings = (f"{short_name(key)} {setting(value)}" for key, value in params.items())
    lines = [f"<b>trial {trial.number}</b>, {state_of(trial)}", *map(shown, settings)]
    return "<br>".join(lines)


def shown(text: str) -> str:
    """A text escaped for plotly's markup and templates."""
    return escape(visible(text)).replace("{", "&#123;")


def metric_text(study: optuna.Study) -> str:
    """The words for the score."""
    names = study.metric_names or ()
    return shown(names[0]) if names else "score"


def loss_text(study: optuna.Study) -> str:
    """The words for the validation loss; per byte for several models."""
    return "val loss per byte" if BASES in study.user_attrs else "val loss"


def loss_of(values: Mapping[str, Any]) -> float | None:
    """The validation loss of a trial or a base, in the unit of ``loss_text``."""
    return finite_number(values.get(NATS_PER_BYTE, values.get(VAL_LOSS)))


def bases_of(study: optuna.Study) -> list[tuple[str, float | None, float | None]]:
    """The untuned models: label, validation loss and score."""
    return [
        (shown(each.label), loss_of(each.values), finite_number(each.score))
        for each in baselines(study)
        if each.kind == "base"
    ]


def names_of(keys: Iterable[str]) -> dict[str, str]:
    """Short names of keys; whole names if two short ones are equal."""
    keys = list(keys)
    short = [short_name(key) for key in keys]
    return {
        key: shown(name if short.count(name) == 1 else key)
        for key, name in zip(keys, short, strict=True)
    }


def plain_copy(study: optuna.Study, most: int | None = None) -> optuna.Study:
    """The complete trials with the same numbers, but with short names and escaped texts.

    Args:
        most: At most this many, the best; None for all.
    """
    trials = study.get_trials(deepcopy=False)
    names = names_of(dict.fromkeys(name for trial in trials for name in trial.params))
    best_first = sorted(drawable_trials(study), key=lambda trial: -(trial.value or 0.0))
    complete = {trial.number for trial in best_first[:most]}
    copy = _quiet_study()
    for trial in trials:
        if trial.number not in complete:
            copy.add_trial(optuna.trial.create_trial(state=TrialState.FAIL))
            continue
        distributions = {
            names[name]: _shown_choices(name, each) for name, each in trial.distributions.items()
        }
        params = {names[name]: _shown_value(name, each) for name, each in trial.params.items()}
        copy.add_trial(
            optuna.trial.create_trial(value=trial.value, params=params, distributions=distributions)
        )
    return copy


def _quiet_study() -> optuna.Study:
    said = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would log the new study
    try:
        return optuna.create_study(storage=optuna.storages.InMemoryStorage(), direction="maximize")
    finally:
        optuna.logging.set_verbosity(said)


def _shown_choices(name: str, distribution: BaseDistribution) -> BaseDistribution:
    if not isinstance(distribution, CategoricalDistribution):
        return distribution
    return CategoricalDistribution([_shown_value(name, each) for each in distribution.choices])


def _shown_value(name: str, value: Any) -> Any:
    return shown(_named(name, value)) if isinstance(value, str) else value


def _named(name: str, value: Any) -> Any:
    """A model without its folder or organisation."""
    return short_names([value])[value] if name == MODEL and isinstance(value, str) else value


def peak_bytes(trial: FrozenTrial) -> tuple[float, float] | None:
    """The peak memory a trial's plan predicted and the measured one; None without both."""
    plan = trial.user_attrs.get(PLAN)
    predicted = finite_number(plan.get("peak_bytes")) if isinstance(plan, Mapping) else None
    measured = finite_number(trial.user_attrs.get(PEAK_MEMORY_BYTES))
    return (predicted, measured) if predicted and measured else None
