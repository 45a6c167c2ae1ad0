"""How often the test split was opened, and that every surface says so."""

import json

import pytest
from click.testing import CliRunner
from reported_study import make_reported_study

from hawsweep.cli import main
from hawsweep.export.model_card import card
from hawsweep.notes.note import study_note
from hawsweep.results.study_results import end_of_study
from hawsweep.running.status import StatusReader
from hawsweep.study.trials import n_test_opened, read_test, record_test_opened
from hawsweep.text import opened_text
from hawsweep.views.report.content import make_report
from hawsweep.views.report.pull_request import report_markdown
from hawsweep.views.terminal.tables import test_text as text_of_test


@pytest.fixture
def opened(tmp_path):
    """A study of an earlier version, which opened the test split once, and its place."""
    return make_reported_study(tmp_path)


def test_opening_is_counted_before_there_are_scores(opened):
    study, _ = opened
    study.set_user_attr("test", None)
    assert (n_test_opened(study), read_test(study)) == (0, None)
    record_test_opened(study)
    assert (n_test_opened(study), read_test(study)) == (1, None)


def test_study_of_an_earlier_version_has_its_count(opened):
    study, _ = opened
    assert read_test(study) == study.user_attrs["test"]
    assert n_test_opened(study) == 1


def test_opening_whose_worker_died_counts_with_those_that_are_recorded(opened):
    study, _ = opened
    record_test_opened(study)  # and the worker dies
    assert n_test_opened(study) == 2
    assert read_test(study) == {**study.user_attrs["test"], "n_opened": 2}
    record_test_opened(study)
    assert n_test_opened(study) == 3


@pytest.mark.parametrize("n_opened", [0, 1])
def test_test_split_that_was_opened_once_has_no_warning(n_opened):
    assert opened_text(n_opened) == ""


def test_every_surface_says_that_the_test_split_was_opened_twice(opened):
    study, place = opened
    record_test_opened(study)
    best = study.trials[read_test(study)["trial_number"]]
    report, sentence = make_report(study, place), "The test split was opened 2 times"
    command = ["status", "rates", "--json", f"--studies-dir={place.studies_dir}"]
    said = CliRunner().invoke(main, command, catch_exceptions=False).output
    assert json.loads(said)["test"]["n_opened"] == 2
    shown = CliRunner().invoke(main, [each for each in command if each != "--json"]).output
    texts = {
        "status": " ".join(shown.replace("\u2502", "").split()),
        "end": text_of_test(end_of_study(study, place).test),
        "watch": text_of_test(StatusReader(place, "rates").look().test),
        "note": study_note(study, place, ended=True).body,
        "report": " ".join(report.said),
        "pull request": report_markdown(report),
        "card": card(study, place, best),
    }
    assert [name for name, text in texts.items() if sentence not in text] == []
