"""What the commands that look at a study print, on a recorded one."""

import io
import re

import pytest
from reported_study import make_reported_study

from hawsweep.results.compare_trials import compare
from hawsweep.results.leaderboard import list_studies
from hawsweep.results.one_trial import describe_trial
from hawsweep.running.status import StatusReader
from hawsweep.study.storage import open_storage
from hawsweep.views.terminal.tables import status_picture, studies_table
from hawsweep.views.terminal.text import Console
from hawsweep.views.terminal.trial import trial_picture
from hawsweep.views.terminal.verdict import comparison_picture

WIDTHS = (40, 80, 90, 100, 110, 120, 140)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return make_reported_study(tmp_path_factory.mktemp("recorded"))


def printed(picture, width):
    console = Console(file=io.StringIO(), width=width)
    console.print(picture)
    return console.file.getvalue()


def pictures(study, place, width):
    status = StatusReader(place, "rates", why=True, by_group=True, price=True).look()
    return {
        "status": status_picture(status, width, None),
        "show": trial_picture(describe_trial(study, place, 4), width),
        "compare": comparison_picture(compare(study, place, 0, 4), 5),
        "list": studies_table(list_studies(open_storage(place), place)),
    }


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_terminal_and_no_number_is_cut(recorded, width):
    wide = {name: printed(each, 400) for name, each in pictures(*recorded, 400).items()}
    for name, picture in pictures(*recorded, width).items():
        text = printed(picture, width)
        assert max(map(len, text.splitlines())) <= width, name
        assert not re.search(r"[\w.]…", text.replace("\n", " ")), name
        scores = {word for word in text.split() if re.fullmatch(r"0\.\d{4}", word)}
        assert scores <= set(wide[name].split()), name
        assert scores or name == "compare" or width < 80, name


def test_status_says_the_verdict_before_the_trials(recorded):
    text = printed(pictures(*recorded, 100)["status"], 100)
    assert text.index("Use trial 4") < text.index("Test split") < text.index("lr rank")


def test_compared_trials_are_said_to_differ_in_their_settings(recorded):
    study, place = recorded
    assert compare(study, place, None, 4).differing == {}
    found = compare(study, place, 0, 4).differing
    one, other = study.trials[0].params, study.trials[4].params
    assert found == {key: (one[key], other[key]) for key in one if one[key] != other[key]}
    assert "learning_rate" in found
    text = printed(comparison_picture(compare(study, place, 0, 4), 1), 120)
    assert f"trial 4 has lr {other['learning_rate']:.2e} (not {one['learning_rate']:.2e})" in text


def test_shown_trial_has_the_untuned_answers_beside_its_own(recorded):
    text = printed(pictures(*recorded, 140)["show"], 140)
    assert "The first validation prompts" in text
    assert "Untuned" in text
    assert text.count("the king reads the book 0") == 2
