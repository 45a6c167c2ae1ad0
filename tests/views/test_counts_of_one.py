"""Texts that a template makes of a count say one of it in the singular."""

import re
from dataclasses import replace

import pytest
from reported_study import Page, make_reported_study, write_samples

from hawsweep.export.model_card import card
from hawsweep.files import read_json_lines
from hawsweep.notes.note import study_note
from hawsweep.study.attributes import SELF_CHECK, TEST
from hawsweep.study.confirm import winner
from hawsweep.views.report.content import make_report
from hawsweep.views.report.page import report_page
from hawsweep.views.report.pull_request import report_markdown

PLURAL = re.compile(r"(?<![\d.,])\b1 (?:[a-z]+ )?(?:trial|run|prompt|translation|record)s\b")


@pytest.fixture
def told(tmp_path):
    """A study whose sets have one prompt, and its report with one translation."""
    study, place = make_reported_study(tmp_path)
    study.set_user_attr(TEST, {**study.user_attrs[TEST], "n_prompts": 1})
    check = {**study.user_attrs[SELF_CHECK], "n_prompts": 1, "detectable": float("inf")}
    study.set_user_attr(SELF_CHECK, check)
    base = place.study_dir("rates") / "base" / "samples.jsonl"
    write_samples(base, read_json_lines(base)[:1])
    report = make_report(study, place)
    translations = replace(report.translations, rows=report.translations.rows[:1])
    return study, place, replace(report, translations=translations, n_more=1)


def text_of_page(study, place, report):
    return Page(report_page(report, study)).text


def text_of_card(study, place, report):
    return card(study, place, winner(study))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (text_of_page, ("1 prompt.", "1 more trial: hawsweep status")),
        (lambda study, place, report: report_markdown(report), ("of 1 translation of the test",)),
        (
            lambda study, place, report: study_note(study, place, ended=True).body,
            ("Test split (1 prompt)",),
        ),
        (
            text_of_card,
            ("answers to 1 validation prompt of at most", "Test split (1 prompt, opened for"),
        ),
    ],
    ids=["page", "pull request", "note", "model card"],
)
def test_count_of_one_is_singular(told, make, said):
    text = make(*told)
    assert [each for each in said if each not in text] == []
    assert PLURAL.findall(text) == []
