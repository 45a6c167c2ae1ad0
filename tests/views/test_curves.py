import io
import math

import pytest
from rich.console import Console

from hawsweep.views.terminal.curves import Series, loss_at, plot, sparkline


@pytest.mark.parametrize(("ascii_only", "bars"), [(False, "▁▄█"), (True, "_=#")])
def test_bars_are_as_high_as_their_values(ascii_only, bars):
    # Of eight heights, the middle of the range begins the fifth; just below it is the fourth.
    assert sparkline([1.0, 1.99, 3.0], 1.0, 3.0, 9, ascii_only) == bars


def test_bars_are_those_of_the_last_values_and_say_what_is_no_number():
    assert sparkline([3.0, 1.0, math.nan], 1.0, 3.0, 2, False) == "▁?"
    assert sparkline([2.0, 2.0], 2.0, 2.0, 8, False) == "▁▁"
    assert sparkline([9.0, -9.0], 1.0, 2.0, 8, False) == "█▁"  # outside of the scale


def test_loss_between_evaluations_is_on_the_line_between_them():
    points = [(20, 3.0), (40, 2.0)]
    assert [loss_at(points, at) for at in (20, 25, 40)] == [3.0, 2.75, 2.0]
    assert [loss_at(points, at) for at in (10, 50)] == [None, None]
    assert loss_at([], 20) is None


FALLING = Series("val", [(0, 4.0), (100, 2.0)], "yellow")
RISING = Series("train", [(0, 2.0), (100, 4.0)], "blue")


@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("width", [40, 80])
def test_plot_has_the_width_asked_for_its_scale_and_labels_at_their_curves_ends(width, ascii_only):
    lines = [line.plain for line in plot([FALLING, RISING], width, 8, ascii_only)]
    assert len(lines) == 9
    assert max(map(len, lines)) <= width
    assert lines[0].startswith("4.000")
    assert lines[7].startswith("2.000")
    assert lines[0].endswith("train")
    assert lines[7].endswith("val")
    assert lines[8].split() == ["0", "100", "iterations"]
    assert all(ord(letter) < 128 for letter in "".join(lines)) is ascii_only


def test_plot_goes_down_where_the_loss_does():
    lines = plot([FALLING], 60, 8, ascii_only=True)
    at = [line.plain.split("|")[1].find("v") for line in lines[:8]]
    assert at == sorted(at)  # each row lower begins further right
    assert at[0] == 0


def test_curve_that_ends_early_is_labelled_where_it_ends():
    short = Series("short", [(0, 2.5), (20, 2.25)], "red")
    lines = [line.plain for line in plot([FALLING, short], 80, 12, ascii_only=False)]
    (row,) = [line for line in lines if "short" in line]
    assert row.index("short") < 40


def test_plot_of_one_evaluation_marks_it_and_of_nothing_is_empty():
    one = Series("val", [(0, 3.0)], "yellow")
    assert any("● val" in line.plain for line in plot([FALLING, one], 60, 8, False))
    assert plot([], 60, 8, False) == []
    assert plot([one], 60, 8, False) == []
    assert plot([Series("val", [(0, math.nan), (5, math.inf)], "")], 60, 8, False) == []
    assert plot([FALLING], 12, 8, False) == []  # no room


def test_colours_are_those_of_the_curves_and_none_where_none_are_wanted():
    def printed(**options):
        console = Console(file=io.StringIO(), width=60, force_terminal=True, **options)
        console.print(*plot([FALLING], 60, 8, False))
        return console.file.getvalue()

    assert "\x1b[33m" in printed(color_system="standard")
    assert "\x1b[33m" not in printed(no_color=True)
