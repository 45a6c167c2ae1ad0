"""Pictures of made-up studies, from none to some trials."""

import json
import math

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial
from pictured_study import BASE, SPACE, STEPS, make_study, make_trial

from hawsweep.results.importance import FEWEST_TRIALS
from hawsweep.study.confirm import winner
from hawsweep.views import figures

ALL = (
    figures.learning_curves,
    figures.score_against_loss,
    figures.score_against_price,
    figures.memory_predicted_against_measured,
    figures.history,
    figures.importance,
    figures.parallel_coordinates,
    figures.slices,
    figures.score_intervals,
    figures.loss_by_data,
)


def notes(figure):
    return [each.text for each in figure.layout.annotations]


def names(figure):
    return [trace.name for trace in figure.data]


def axis_titles(figure):
    return figure.layout.xaxis.title.text, figure.layout.yaxis.title.text


@pytest.mark.parametrize("draw", ALL)
@pytest.mark.parametrize("counts", [(0, 0), (1, 0), (2, 0), (0, 2), (9, 3)])
@pytest.mark.parametrize("known", [True, False])
def test_study_in_whatever_state_has_a_figure(draw, counts, known):
    figure = draw(make_study(*counts, has_plan=known, has_base=known))
    assert figure.layout.title.text
    assert figure.layout.paper_bgcolor == "rgba(0,0,0,0)"
    assert json.loads(figure.to_json())["layout"]
    assert figure.data or len(notes(figure)) == 1  # or it says why there is nothing


def test_nothing_to_draw_is_said():
    said = {draw.__name__: notes(draw(make_study(0, has_base=False))) for draw in ALL}
    no_complete = ["No complete trial yet."]
    assert said == {
        "learning_curves": ["No trial was evaluated yet."],
        "score_against_loss": no_complete,
        "score_against_price": ["No complete trial has a known time and memory yet."],
        "memory_predicted_against_measured": [
            "No trial has both a predicted and a measured peak yet."
        ],
        "history": no_complete,
        "importance": [f"Importance needs {FEWEST_TRIALS} complete trials; there are 0."],
        "parallel_coordinates": no_complete,
        "slices": no_complete,
        "score_intervals": no_complete,
        "loss_by_data": ["No data curve: hawsweep data-curve NAME makes it or says why not."],
    }


def test_learning_curves_are_of_all_trials_with_the_best_on_top():
    study = make_study(2, 2)
    figure = figures.learning_curves(study)
    best = winner(study)
    assert names(figure)[:3] == ["pruned", "pruned", "trained whole"]
    assert figure.data[-1].name == f"trial {best.number}, the best"
    assert [trace.line.dash for trace in figure.data] == ["dash", "dash", "solid", "solid"]
    assert [trace.showlegend for trace in figure.data] == [True, False, True, True]
    assert figure.data[-1].line.width > figure.data[0].line.width
    assert figure.data[-1].line.color == figures.BEST
    assert list(figure.data[-1].x) == list(STEPS)
    assert list(figure.data[-1].y) == [-best.intermediate_values[step] for step in STEPS]
    assert axis_titles(figure) == ("iteration", "val loss")
    assert figure.layout.shapes[0].y0 == BASE["val_loss"]
    assert notes(figure) == ["base"]


def test_loss_that_is_no_number_is_left_out_of_the_curve():
    study = make_study(0)
    values = {10: -2.0, 20: float("-inf"), 30: float("nan"), 40: -1.0}
    study.add_trial(
        create_trial(
            value=0.5,
            params={"learning_rate": 1e-4},
            distributions={"learning_rate": SPACE["learning_rate"]},
            intermediate_values=values,
        )
    )
    (curve,) = figures.learning_curves(study).data
    assert dict(zip(curve.x, curve.y, strict=True)) == {10: 2.0, 40: 1.0}


def test_score_is_drawn_against_loss_with_the_base_among_the_trials():
    study = make_study(3, 1)
    figure = figures.score_against_loss(study)
    drawn = {
        label: (x, y)
        for trace in figure.data
        for label, x, y in zip(trace.text, trace.x, trace.y, strict=True)
    }
    expected = {
        str(trial.number): (trial.user_attrs["val_loss"], trial.value)
        for trial in study.trials
        if trial.state == TrialState.COMPLETE
    }
    assert drawn == {**expected, "base": (BASE["val_loss"], BASE["score"])}
    assert names(figure) == ["trials", "best", "base"]
    assert figure.data[1].text == (str(winner(study).number),)
    assert axis_titles(figure) == ("val loss", "semantic similarity")


def test_score_is_drawn_against_hours_and_memory_with_the_front_named():
    study = make_study(0)
    for number, seconds in enumerate((7200.0, 3600.0, 7200.0)):
        study.add_trial(make_trial(number, True, train_time_s=seconds))
    scores = {trial.number: trial.value for trial in study.trials}
    first, second, third = sorted(scores, key=scores.get, reverse=True)
    assert 1 in (first, second)  # it takes half the time, so that only a better one is beside it
    front = [first] if first == 1 else [first, 1]
    others, _, on_front, by_memory = figures.score_against_price(study).data
    assert list(on_front.text) == [str(number) for number in front]
    assert list(on_front.y) == [scores[number] for number in front]
    assert list(on_front.x) == [1.0 if number == 1 else 2.0 for number in front]
    assert by_memory.x[0] == pytest.approx(1.1 + 0.01 * first)
    assert scores[third] in others.y


def test_memory_is_drawn_in_gigabytes_with_the_error_in_percent():
    study = make_study(1, 1)
    study.add_trial(make_trial(2, True, has_plan=False))
    line, complete, pruned = figures.memory_predicted_against_measured(study).data
    assert tuple(line.x) == tuple(line.y)
    assert (complete.x, complete.y) == ((1.122,), (1.1,))
    assert complete.customdata[0] == pytest.approx(100 * (1.122 / 1.1 - 1))
    assert (pruned.x, pruned.y) == ((1.132,), (1.11,))


def test_history_has_the_best_so_far_and_the_base():
    study = make_study(4)
    points, best = figures.history(study).data
    scores = [trial.value for trial in study.trials]
    assert list(points.y) == scores
    assert list(best.y) == [max(scores[: n + 1]) for n in range(4)]
    assert best.name == "best so far"
    assert figures.history(study).layout.shapes[0].y0 == BASE["score"]


def test_history_begins_with_the_first_complete_trial():
    study = make_study(0, 2)
    study.add_trial(make_trial(2, True))
    points, best = figures.history(study).data
    assert list(points.x) == list(best.x) == [2]
    assert all(math.isfinite(y) for y in best.y)


def test_importance_names_the_parameter_that_decides():
    bars = figures.importance(make_study(30)).data[0]
    assert bars.y[-1] == "lr"  # drawn from below
    assert set(bars.y) == {"lr", "rank", "optimizer", "iters"}
    assert max(bars.x) == bars.x[-1] > 0.5


def test_slices_and_parallel_coordinates_have_short_names_and_a_log_axis():
    study = make_study(5, 2)
    sliced = figures.slices(study)
    axes = [sliced.layout[key] for key in ("xaxis", "xaxis2", "xaxis3", "xaxis4")]
    assert [axis.title.text for axis in axes] == ["iters", "lr", "optimizer", "rank"]
    assert [axis.type for axis in axes] == [None, "log", "category", "category"]
    assert axes[3].categoryarray == ("4", "8", "16", "32")
    assert set(sliced.data[2].x) == {"adam", "muon"}
    assert sliced.layout.yaxis.title.text == "semantic similarity"
    assert list(sliced.data[0].text) == list("01234")
    lines = figures.parallel_coordinates(study)
    assert lines.layout.xaxis.ticktext == (
        "semantic similarity",
        "iters",
        "lr",
        "optimizer",
        "rank",
    )
    assert len(lines.data) == 5
    assert lines.data[-1].y[0] == 1  # the best is on top


def test_intervals_are_drawn_to_their_ends_best_first():
    study = make_study(2)
    study.set_user_attr("few_shot", {"n_examples": 4, "score": 0.2, "low": None, "high": None})
    study.set_user_attr("references", {"another": 0.95})
    best, other = sorted(study.trials, key=lambda trial: -trial.value)
    study.set_user_attr(
        "confirm", [{"trial_number": best.number, "selected": best.value, "scores": [0.5, 0.6]}]
    )
    figure = figures.score_intervals(study)
    assert names(figure) == [
        "another",
        f"trial {best.number}",
        f"trial {other.number}",
        "4-shot base",
        "base",
        "with new seeds",
    ]
    drawn = figure.data[1]
    assert drawn.x[0] + drawn.error_x.array[0] == pytest.approx(best.user_attrs["high"])
    assert drawn.x[0] - drawn.error_x.arrayminus[0] == pytest.approx(best.user_attrs["low"])
    assert not figure.data[3].error_x.visible
    assert figure.data[-1].x == (pytest.approx(0.55),)


def test_scores_are_between_chance_and_right():
    study = make_study(2)
    study.set_user_attr("self_check", {"floor": 0.2, "ceiling": 0.98})
    figure = figures.score_intervals(study)
    assert [line.x0 for line in figure.layout.shapes] == [0.2, 0.98]
    assert notes(figure) == ["chance 0.200", "right 0.980"]


def colors(figure):
    """The colours of all lines and points."""
    found = set()
    for trace in figure.data:
        for part in (trace.marker, trace.line):
            if isinstance(part.color, tuple):
                found |= set(part.color)
            elif part.color is not None:
                found.add(part.color)
    return found


@pytest.mark.parametrize(
    "draw", [figures.learning_curves, figures.parallel_coordinates, figures.history]
)
def test_colors_mean_the_best_trial_and_all_others(draw):
    assert colors(draw(make_study(9, 2))) == {figures.BEST, figures.OTHER}


def test_best_trial_is_told_in_slices_and_parallel_coordinates():
    study = make_study(9, 2)
    best = winner(study)
    for trace in figures.slices(study).data:
        marked = zip(trace.text, trace.marker.color, strict=True)
        assert {number for number, color in marked if color == figures.BEST} == {str(best.number)}
    lines = figures.parallel_coordinates(study).data
    assert [line.line.color == figures.BEST for line in lines] == [*[False] * 8, True]


def test_lines_that_ended_early_say_how():
    study = make_study(1, 1)
    for state, values in ((TrialState.COMPLETE, {20: -3.0}), (TrialState.FAIL, {20: -3.1})):
        value = 0.1 if state == TrialState.COMPLETE else None
        study.add_trial(create_trial(state=state, value=value, intermediate_values=values))
    ends = ["fail", "pruned", "complete, shorter", "trial 0, the best"]
    assert sorted(names(figures.learning_curves(study))) == sorted(ends)


def test_of_many_trials_the_best_are_drawn(monkeypatch):
    monkeypatch.setattr(figures, "MOST_LINES", 3)
    study = make_study(4, 2)
    best_first = sorted(study.trials[:4], key=lambda trial: -trial.value)
    curves = names(figures.learning_curves(study))
    assert len(curves) == 3
    assert curves[-1] == f"trial {best_first[0].number}, the best"
    assert "pruned" not in curves
    assert "3 of 6 trials" in notes(figures.learning_curves(study))
    assert "3 of 4 trials" in notes(figures.parallel_coordinates(study))
    worst = figures.parallel_coordinates(study).data[0].customdata[0][1]
    assert len(figures.parallel_coordinates(study).data) == 3
    assert float(worst) == pytest.approx(best_first[2].value, abs=1e-3)


def test_many_trials_are_drawn_up_to_a_number():
    assert len(figures.score_intervals(make_study(80)).data) == 61  # and those with new seeds


@pytest.mark.parametrize("draw", ALL)
def test_texts_of_a_study_are_no_markup_in_a_figure(draw):
    nasty = "<a href='x'>%{y}"
    space = {nasty: CategoricalDistribution([nasty, "b"]), "rate": FloatDistribution(0, 1)}
    study = make_study(0)
    study.set_user_attr("references", {nasty: 0.3})
    for number in range(9):
        params = {nasty: [nasty, "b"][number % 2], "rate": number / 10}
        attributes = {"val_loss": 1 + number, "peak_memory_bytes": 1, "plan": {"peak_bytes": 2}}
        study.add_trial(
            create_trial(
                value=number / 9,
                params=params,
                distributions=space,
                user_attrs=attributes,
                intermediate_values={1: -1.0},
            )
        )
    text = draw(study).to_json()
    assert "<a" not in text.replace("\\u003c", "<")
    assert "href='x'>%{y}" not in text


@pytest.mark.parametrize("draw", ALL)
def test_study_of_another_program_is_drawn_or_said_to_have_nothing(draw):
    study = optuna.create_study(direction="maximize")
    odd = {"plan": [1], "peak_memory_bytes": None, "low": None}
    study.add_trial(create_trial(value=float("inf"), user_attrs=odd))
    study.add_trial(create_trial(value=1.0, user_attrs=odd))
    study.add_trial(create_trial(state=TrialState.FAIL))
    assert draw(study).layout.title.text
