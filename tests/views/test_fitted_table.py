import io

import pytest
from rich.console import Console

from hawsweep.planning.sweep_plan import plan_models
from hawsweep.planning.sweep_time import time_plan
from hawsweep.results.groups import GroupRow
from hawsweep.results.leaderboard import StudyRow
from hawsweep.scoring.intervals import Interval
from hawsweep.spec.read import find_sweep, read_sweep
from hawsweep.views.terminal.fitted_table import make_table
from hawsweep.views.terminal.plan import plans_picture
from hawsweep.views.terminal.tables import samples_table, studies_table
from hawsweep.views.terminal.verdict import groups_table

WIDTHS = (40, 80, 90, 100, 110, 120, 140)


def printed(picture, width):
    console = Console(file=io.StringIO(), width=width)
    console.print(picture)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert "..." not in "".join(lines)  # the ellipsis of a console without Unicode
    return lines


def test_columns_go_whole_in_their_order_and_none_goes_with_room():
    table = make_table("name | >one | >two", dropped=("two", "one"))
    table.add_row("abcdefgh", "1234", "5678")
    assert printed(table, 20) == ["name       one   two", "abcdefgh  1234  5678"]
    assert [line.rstrip() for line in printed(table, 19)] == ["name       one", "abcdefgh  1234"]
    assert [line.rstrip() for line in printed(table, 13)] == ["name", "abcdefgh"]


def test_text_wraps_at_words_before_a_column_goes():
    table = make_table("~text | >number", dropped=("number",))
    table.add_row("some words here", "1234567")
    assert [line.rstrip() for line in printed(table, 17)] == [
        "text       number",
        "some      1234567",
        "words",
        "here",
    ]


def test_short_text_leaves_its_room_to_long_text():
    table = make_table("~a | ~b")
    table.add_row("one two", "three four five six seven")
    assert [line.rstrip() for line in printed(table, 24)] == [
        "a        b",
        "one two  three four five",
        "         six seven",
    ]


@pytest.mark.parametrize("width", WIDTHS)
def test_names_and_scores_of_studies_are_whole_at_any_width(width):
    row = StudyRow(
        name="hawaiian-gemma-3-4b",
        description="Learning rate and rank on twelve thousand pairs of sentences.",
        trials={"complete": 1204, "infeasible": 12, "pruned": 3310},
        best_trial=1187,
        best_score=0.6834,
        base_score=0.1071,
        use=1187,
    )
    text = "\n".join(printed(studies_table([row]), width))
    for name in ("hawaiian-gemma-3-4b", "trial", "1187"):
        assert name in text
    if width >= 80:
        for name in ("trial 1187", "0.6834", "0.1071", "infeasible"):
            assert name in text


@pytest.mark.parametrize("width", WIDTHS)
def test_gains_of_groups_are_whole_at_any_width(width):
    row = GroupRow("proverbs and sayings", 1204, 0.5, 0.4, Interval(-0.1, -0.15, -0.05))
    text = "\n".join(printed(groups_table([row]), width))
    for cell in ("proverbs and sayings", "1204", "-0.100"):
        assert cell in text
    assert ("-0.150 to -0.050" in text) is (width >= 80)


@pytest.mark.parametrize("width", WIDTHS)
def test_words_of_samples_are_whole(width):
    base = {"output": "He understood."}
    tuned = {"source": "Ua maopopo iā ia", "reference": "She understood it", "output": "It rains"}
    words = {
        word for line in printed(samples_table([(base, tuned)]), width) for word in line.split()
    }
    if width >= 80:
        assert {"understood.", "understood", "maopopo", "rains"} <= words


@pytest.mark.parametrize("width", WIDTHS)
def test_plan_has_every_number_whole(width):
    overrides = {"model": "smollm2-135m-instruct"}
    spec, _ = read_sweep(find_sweep("lr-rank"), overrides).trained_longest()
    timed = [(each, time_plan(each, None)) for each in plan_models(spec, ram="8GB")]
    wide = {
        word for line in printed(plans_picture(timed, show_all=True), 200) for word in line.split()
    }
    lines = printed(plans_picture(timed, show_all=True), width)
    peak = f"{timed[0][0].largest.plan.peak_bytes / 1e9:.2f}"
    assert peak in " ".join(lines)
    numbers = {word for line in lines for word in line.split() if word[0].isdigit()}
    assert numbers <= wide
