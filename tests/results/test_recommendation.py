"""One recommendation, in the same words wherever a study is looked at."""

import json
import re

import pytest
from click.testing import CliRunner
from judged_study import STUDIES, record

from hawsweep.cli import main
from hawsweep.markdown import plain
from hawsweep.notes.note import study_note
from hawsweep.results.study_results import end_of_study, open_study
from hawsweep.results.verdict import judge_study
from hawsweep.study.place import Place
from hawsweep.views.report.content import make_report
from hawsweep.views.report.pull_request import report_markdown
from hawsweep.views.terminal.console import make_console
from hawsweep.views.terminal.tables import end_picture

USED = {"clear": 1, "tie": 0, "nothing": None, "models": 1}


@pytest.fixture(scope="module", params=STUDIES)
def recorded(request, tmp_path_factory):
    """A finished study: its kind, itself, its place."""
    kind = request.param
    place = Place(tmp_path_factory.mktemp("recorded") / "studies")
    return kind, record(kind, place), place


def shown(renderable, width=100):
    console = make_console()
    with console.capture() as captured:
        console.print(renderable, width=width)
    return captured.get()


def surfaces(study, place):
    """What is said of a study: by surface."""
    cli = ["--studies-dir", str(place.studies_dir)]

    def run(*arguments):
        done = CliRunner().invoke(main, [*arguments, *cli])
        assert done.exit_code == 0, done.output
        return done.output

    report = make_report(study, place)
    return {
        "end": shown(end_picture(end_of_study(study, place), "finished", 100)),
        "status": run("status", "rates"),
        "json": " ".join(json.loads(run("status", "rates", "--json"))["verdict"]["sentences"]),
        "report": " ".join([report.headline, *(command for _, command in report.reproduce)]),
        "markdown": report_markdown(report),
        "note": study_note(study, place, ended=True).body,
        "python": str(open_study("rates", studies_dir=place.studies_dir)),
    }


def words(text):
    """Without line ends, marks and escapes, which differ from page to page."""
    return re.sub(r"[\s|>*\\]+", " ", text)


def test_every_surface_says_the_same_sentence_first(recorded):
    kind, study, place = recorded
    verdict = judge_study(study, place)
    assert verdict.use == USED[kind]
    sentence = verdict.sentences[0]
    assert sentence.startswith(
        "Use no trial yet: trial 1" if USED[kind] is None else f"Use trial {USED[kind]}: "
    )
    for name, text in surfaces(study, place).items():
        assert words(sentence) in words(text) or words(plain(sentence)) in words(text), name
        assert ("hawsweep export" in text) <= (USED[kind] is not None), name


def test_trial_to_use_is_marked_and_first_and_what_helps_is_said(recorded):
    kind, study, place = recorded
    said = surfaces(study, place)
    rows = [line.split() for line in said["status"].splitlines() if re.match(r" *\d ", line)]
    listed = CliRunner().invoke(main, ["list", "--json", "--studies-dir", str(place.studies_dir)])
    [row] = json.loads(listed.output)["studies"]
    assert row["use"] == USED[kind]
    if USED[kind] is None:
        assert not any(cells[1] == "use" for cells in rows)
        assert "about 900 prompts, which tell 0.017 apart" in words(said["status"])
        assert "more iterations (here 1000) or another model" in words(said["status"])
    else:
        assert rows[0][:2] == [str(USED[kind]), "use"]
        assert f"**{USED[kind]}** (use)" in said["note"]


@pytest.mark.parametrize("content", ["{", '{"source": 3}\n'])
def test_studies_are_listed_where_answers_are_damaged(tmp_path, content):
    place = Place(tmp_path / "studies")
    record("clear", place)
    (place.trial_dir("rates", 1) / "samples.jsonl").write_text(content, encoding="utf-8")
    listed = CliRunner().invoke(main, ["list", "--json", "--studies-dir", str(place.studies_dir)])
    assert listed.exit_code == 0
    [row] = json.loads(listed.output)["studies"]
    assert (row["use"], row["best_trial"]) == (None, 1)


def test_trial_that_is_shown_without_a_number_is_the_winner(recorded):
    kind, _, place = recorded
    shown = CliRunner().invoke(
        main, ["show", "rates", "--json", "--studies-dir", str(place.studies_dir)]
    )
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.output)["label"] == str(1 if USED[kind] is None else USED[kind])


def test_what_takes_less_of_those_not_told_apart_is_said(recorded):
    kind, study, place = recorded
    verdict = judge_study(study, place)
    if kind != "tie":
        assert not verdict.cheaper
        return
    assert verdict.cheaper == "trial 1"
    less = "trial 1 takes less: rank 4, not 16, 1 GB less."
    assert any(each.endswith(less) for each in verdict.sentences)
