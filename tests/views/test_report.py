"""The report of a made-up study: what it tells, what it keeps to itself, where it is written."""

import json
import re
import shutil
from pathlib import Path

import optuna
import pytest
from click.testing import CliRunner
from optuna.trial import TrialState, create_trial
from pictured_study import make_trial
from reported_study import (
    HOST,
    N_PROMPTS,
    NASTY,
    NOW,
    ODD,
    SPEC,
    Page,
    make_reported_study,
    write_samples,
)

from hawsweep import __version__
from hawsweep.cli import main
from hawsweep.errors import ExportError
from hawsweep.machine.processes import supervising
from hawsweep.spec.read import read_sweep
from hawsweep.study.place import Place
from hawsweep.study.storage import open_storage
from hawsweep.study.study import create_study, load_study
from hawsweep.views.report.content import make_report
from hawsweep.views.report.file import MARKDOWN_MARK, PAGE_MARK, write_report
from hawsweep.views.report.page import report_page, script_json
from hawsweep.views.report.pull_request import report_markdown
from hawsweep.views.report.redaction import Redaction


@pytest.fixture
def place(told, tmp_path):
    """A copy of that study, to write to."""
    shutil.copytree(told[1].studies_dir, tmp_path / "studies")
    return Place(tmp_path / "studies")


@pytest.fixture(scope="module")
def page(told):
    study, _, report = told
    return report_page(report, study)


def run(place, *arguments):
    return CliRunner().invoke(main, ["report", *arguments, f"--studies-dir={place.studies_dir}"])


def best_of(study):
    return max(study.get_trials(states=(TrialState.COMPLETE,)), key=lambda trial: trial.value)


def test_headline_is_the_verdict_and_the_rest_follows(told):
    study, _, report = told
    number = best_of(study).number
    assert report.winner == number
    assert report.headline.startswith(f"Use trial {number}: it is better than the untuned model")
    assert report.headline.endswith(" on the test split.")
    assert report.ships is (report.headline.startswith("Use trial"))
    assert report.tested.startswith(f"{N_PROMPTS} prompts: the winner and the untuned model alone")
    assert [row[1] for row in report.test.rows] == ["0.6100", "0.1500", "0.1200"]
    said = " ".join(report.said)
    assert f"With 2 new seeds, trial {number} scores 0.6100" in said
    assert "[bold]" not in said


def test_model_data_trials_and_time_are_told_first(told):
    study, _, report = told
    facts = dict(report.facts)
    assert (facts["model"], facts["data"]) == ("…/tiny", "phrasebook")
    assert facts["trials"] == "9 of 12 complete"
    last = max(trial.datetime_complete for trial in study.trials)
    assert facts["last trial"] == f"{last:%Y-%m-%d %H:%M}"
    assert list(facts) == ["model", "data", "trials", "time", "last trial"]


def test_leaderboard_is_the_terminal_s_with_the_base_in_it(told):
    study, _, report = told
    labels = [row[0] for row in report.board.rows]
    assert labels[0] == str(best_of(study).number)
    assert {"base", "4-shot base"} < set(labels)
    assert len(labels) == len(report.states) == 12 + 2
    assert report.states[labels.index("base")] == "base"
    assert report.board.titles[:3] == ("trial", "score", "state")
    assert {"lr", "rank", "val loss", "95 %", "confirmed", "peak GB"} < set(report.board.titles)
    assert "tok/s" not in report.board.titles  # no trial has it


def test_of_a_long_leaderboard_the_best_and_the_base_are_told(told, monkeypatch):
    study, place, _ = told
    monkeypatch.setattr("hawsweep.views.report.content._MOST_ROWS", 3)
    report = make_report(study, place, NOW)
    assert len(report.board.rows) == 3 + 2
    assert report.board.rows[-1][0] == "base"
    assert report.n_more == 12 - 3
    assert "9 more trials: hawsweep status rates --all" in Page(report_page(report, study)).text


def test_translations_are_of_the_test_split_with_the_largest_gain_first(told):
    study, _, report = told
    answers = report.translations
    assert (answers.split, answers.trial) == ("test", best_of(study).number)
    gains = [row.gain for row in answers.rows]
    assert gains == sorted(gains, reverse=True)
    assert gains[0] == pytest.approx(1 - 0.12)
    assert answers.rows[0].answers["trial"].kind == "exact"


def test_translations_of_validation_prompts_say_so(tmp_path):
    study, place = make_reported_study(tmp_path, is_tested=False)
    text = Page(report_page(make_report(study, place), study)).text
    assert "Translations of the validation prompts" in text
    assert "The trial was chosen by these prompts; the test split was not opened." in text


def test_page_has_the_answers_to_mark_as_they_are(page, told):
    study, *_ = told
    marked = json.loads(Page(page).scripts[1][1])
    rows = marked.pop("rows")
    assert marked == {"study": "rates", "trial": best_of(study).number, "split": "test"}
    assert {"source": ODD, "output": NASTY} in rows
    assert len(rows) == N_PROMPTS


def test_near_miss_is_flagged_in_a_page(page):
    assert "near miss: another number" in Page(page).text
    assert Page(page).text.count("word for word") == 2  # in the verdict, and of one answer


def test_groups_with_losses_are_named(told):
    _, _, report = told
    assert [row.group for row in report.groups] == ["verbs", "possession"]
    assert report.losses[0].startswith("It scores lower in verbs (-0.0")
    assert [row[0] for row in report.group_cells.rows] == ["verbs", "possession"]
    assert report.groups_split == "test"


def test_predicted_memory_is_compared_in_percent(told):
    _, _, report = told
    # 22 MB too much, of 1.1 GB in the first and 1.18 GB in the ninth complete trial.
    first, last = 100 * 22 / 1100, 100 * 22 / 1180
    assert f"differs from the measured one by +{last:.1f}% to +{first:.1f}%" in report.memory
    assert report.memory.startswith("Of 9 complete trials")
    assert "is 1.18 GB" in report.memory


def test_what_ended_early_is_told_failures_first_and_without_folders(told):
    _, _, report = told
    assert [each.state for each in report.ended] == ["fail", "infeasible", "pruned"]
    assert report.ended[0].reason == f"OSError: …/tiny is gone {NASTY}"
    assert report.ended[1].reason == "needs 40.00 GB, the budget is 30.00 GB"
    assert report.ended[2].reason == "behind the median at iteration 40"


def test_versions_fingerprints_and_commands_are_told(told):
    study, _, report = told
    made = dict(report.made_with)
    assert made["hawsweep"] == __version__
    assert made["model, fingerprint"] == "ab12"
    assert made["sweep, fingerprint"] == SPEC.digest()
    assert made["chrf, as measured"] == "nrefs:1|case:mixed"
    commands = [command for _, command in report.reproduce]
    assert commands[0].startswith("pip install 'mlx==")
    assert "hawsweep start rates.yaml --study rates-again" in commands
    assert (
        f"mlx_lm.lora -c studies/rates/trials/{best_of(study).number:04d}/config.yaml" in commands
    )


def test_spec_of_a_report_is_a_sweep_that_can_be_started(told, tmp_path):
    _, _, report = told
    path = tmp_path / "rates.yaml"
    path.write_text(report.spec.replace("…/tiny", SPEC.model), encoding="utf-8")
    assert read_sweep(path).fingerprint() == SPEC.fingerprint()
    assert read_sweep(path).description == SPEC.description


def test_machine_is_not_told_of(told, page):
    study, place, report = told
    whole = page + report_markdown(report)
    assert "/home/somebody" not in whole
    assert str(place.studies_dir) not in whole
    (start,) = study.user_attrs["starts"]
    assert start["host"] == HOST  # it is known, and not told
    assert HOST not in whole


def test_page_stands_alone_and_runs_only_its_own_scripts(page):
    parsed = Page(page)
    assert page.startswith("<!DOCTYPE html>")
    assert len(parsed.scripts) == 4
    outside = [each for each in parsed.addresses if not each.startswith(("#", "data:"))]
    assert outside == []
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[1]
    assert "default-src &#39;none&#39;" in policy
    assert policy.count("sha256-") == 2
    assert "unsafe-inline" not in policy.split("style-src")[0]
    assert "@import" not in page.split("</style>")[0]


def test_texts_of_models_and_errors_are_texts_in_a_page(page):
    parsed = Page(page)
    assert "img" not in parsed.tags
    assert "i" not in parsed.tags  # of a warning about a text of the data
    assert parsed.text.count("document.title='stolen'") == 2  # a translation, a failed trial
    assert "Rates & <ranks>." in parsed.text
    figures = json.loads(parsed.scripts[0][1])
    assert set(figures) == {
        *("scores", "curves", "history", "importance", "parallel", "slices", "price", "agreement"),
        "memory",
    }


def test_json_in_a_script_ends_no_script():
    text = script_json({"</script><!--": "&\u2028ʻ"})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"</script><!--": "&\u2028ʻ"}


def test_half_a_character_in_a_translation_is_written(told, tmp_path):
    path = tmp_path / "report.html"
    write_report(path, f"{PAGE_MARK} \ud800", PAGE_MARK)
    assert path.read_text(encoding="utf-8") == f"{PAGE_MARK} ?"


@pytest.mark.parametrize("n_trials", [0, 1])
def test_study_without_a_complete_trial_says_so(tmp_path, n_trials):
    place = Place(tmp_path / "studies")
    study, _ = create_study(open_storage(place, create=True), place, "rates", SPEC, {})
    for number in range(n_trials):
        study.add_trial(make_trial(number, False, reason="behind"))
    report = make_report(study, place, NOW)
    said = ["This study has no trials yet.", "No trial is complete yet."][n_trials]
    assert report.headline == said
    assert report.ships is None
    assert not report.is_final
    assert report.translations is None
    text = Page(report_page(report, study)).text
    assert said in text
    assert "Translations" not in text
    assert said in report_markdown(report)


def test_running_study_says_how_far_it_is(tmp_path):
    study, place = make_reported_study(tmp_path, is_tested=False)
    study.set_user_attr("how", {"trials": 30})
    assert make_report(study, place).state == "The study was stopped after 10 of 30 trials."
    with supervising(place.study_dir("rates"), {}):
        report = make_report(study, place)
    assert report.state == "The study is still running: 10 of 30 trials are done."
    assert not report.is_final
    assert report.state in Page(report_page(report, study)).text
    study.set_user_attr("how", {"trials": 10})
    state = make_report(study, place).state
    assert state == "The trials are done; left: 6 runs with new seeds."  # the best 3, 2 each


def test_study_that_is_done_says_so(place):
    study = load_study(open_storage(place), "rates")
    study.set_user_attr("how", {"trials": 10})
    report = make_report(study, place)
    assert report.is_final
    assert report.state == "The study is done: 10 trials."
    assert "What follows is how it stood" not in report_page(report, study)


def test_study_of_another_program_is_reported(tmp_path):
    place = Place(tmp_path / "studies")
    study = optuna.create_study(storage=open_storage(place, create=True), study_name="theirs")
    study.add_trial(create_trial(value=0.5))
    report = make_report(study, place)
    assert report.spec == ""
    assert report.facts == (("trials", "1 of 1 complete"), *report.facts[1:])
    assert report.translations is None
    assert "theirs" in Page(report_page(report, study)).text


def test_answers_that_cannot_be_paired_are_left_out(tmp_path):
    study, place = make_reported_study(tmp_path, is_tested=False)
    write_samples(place.study_dir("rates") / "base" / "samples.jsonl", [])
    report = make_report(study, place)
    assert report.translations is None
    assert "Translations" not in Page(report_page(report, study)).text


def test_report_is_written_into_the_study_s_folder_and_replaced(place):
    path = place.study_dir("rates") / "report.html"
    for _ in range(2):
        done = run(place, "rates")
        assert done.exit_code == 0, done.output
        assert done.output == f"Report  {path}\n"
    assert path.read_text(encoding="utf-8").count("<h1") == 1
    assert sorted(each.name for each in path.parent.glob("*report*")) == ["report.html"]


def test_file_that_is_no_report_is_replaced_only_with_force(place, tmp_path):
    mine = tmp_path / "mine.html"
    mine.write_text("mine")
    done = run(place, "rates", "--output", str(mine))
    assert done.exit_code == 1
    assert f"{mine} is there already and is no report of hawsweep." in done.output
    assert "--force" in done.output
    assert mine.read_text() == "mine"
    assert run(place, "rates", "--output", str(mine), "--force").exit_code == 0
    assert PAGE_MARK in mine.read_text(encoding="utf-8")
    done = run(place, "rates", "--output", str(mine), "--markdown")
    assert done.exit_code == 1  # a page is no Markdown


def test_place_that_cannot_be_written_is_said(tmp_path):
    with pytest.raises(ExportError, match=r"is a folder\. Give a file's path"):
        write_report(tmp_path, "", PAGE_MARK)
    with pytest.raises(ExportError, match=r"cannot be written: No such file or directory\."):
        write_report(tmp_path / "none" / "report.html", "", PAGE_MARK)


def test_markdown_is_printed_or_written(place, tmp_path):
    printed = run(place, "rates", "--markdown")
    assert printed.exit_code == 0
    assert printed.output.startswith(MARKDOWN_MARK)
    path = tmp_path / "report.md"
    for _ in range(2):
        assert run(place, "rates", "--markdown", "--output", str(path)).exit_code == 0
    assert path.read_text(encoding="utf-8").strip() == printed.output.strip()


def test_open_shows_the_page_where_there_is_a_screen(place, monkeypatch):
    opened = []
    screens = iter([True, False])

    def show(address):
        opened.append(address)
        return next(screens)

    monkeypatch.setattr("hawsweep.views.dashboard.browser.open_address", show)
    path = place.study_dir("rates") / "report.html"
    assert run(place, "rates", "--open").output == f"Report  {path}\n"
    assert opened == [path.absolute().as_uri()]
    assert "this machine has no screen" in run(place, "rates", "--open").output
    wrong = run(place, "rates", "--open", "--markdown")
    assert wrong.exit_code == 2
    assert "leave out --markdown" in wrong.output


def test_study_that_is_not_there_is_said(place):
    done = run(place, "others")
    assert done.exit_code == 1
    assert "There is no study 'others'" in done.output


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FileNotFoundError: '/Users/jane/data/pairs.csv'", "FileNotFoundError: '…/pairs.csv'"),
        ("model: /opt/models/tiny", "model: …/tiny"),
        ("in /work/here/studies/a/log.txt", "in studies/a/log.txt"),
        ("see /home/me/.cache/hub, then", "see ~/.cache/hub, then"),
        ("mlx-community/gemma-3-4b-it-4bit", "mlx-community/gemma-3-4b-it-4bit"),
        ("12 tok/s, and/or 3 / 4", "12 tok/s, and/or 3 / 4"),
        ("https://huggingface.co/a/b", "https://huggingface.co/a/b"),
        ("postgresql://ann:s3cret@db.example/x", "postgresql://***@db.example/x"),
        ("host=db password=hunter2", "host=db password=***"),
    ],
)
def test_texts_leave_the_machine_without_its_folders_and_passwords(text, expected):
    place = Place(Path("studies"), "mysql+pymysql://ann:hunter2@db/hawsweep")
    redact = Redaction(place, home=Path("/home/me"), here=Path("/work/here"))
    assert redact(text) == expected


@pytest.mark.parametrize(("n_complete", "is_drawn"), [(7, False), (8, True)])
def test_charts_of_many_trials_are_left_out_for_few(tmp_path, n_complete, is_drawn):
    study, place = make_reported_study(tmp_path, n_complete=n_complete, is_tested=False)
    page = report_page(make_report(study, place), study)
    figures = json.loads(Page(page).scripts[0][1])
    for name in ("history", "parallel", "slices", "importance"):
        assert (name in figures) is is_drawn
        assert (f'id="plot-{name}"' in page) is is_drawn
    assert "scores" in figures
