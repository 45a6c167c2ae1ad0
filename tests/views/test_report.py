"""The report of a made-up study: what it tells, what it keeps to itself, where it is written."""

import json
import re
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import optuna
import pytest
from click.testing import CliRunner
from optuna.trial import TrialState, create_trial
from pictured_study import BASE, make_trial
from reported_study import (
    HOST,
    N_PROMPTS,
    NASTY,
    SPEC,
    answers,
    make_reported_study,
    write_samples,
)

from hawsweep import __version__
from hawsweep.cli import main
from hawsweep.errors import ExportError
from hawsweep.machine.processes import supervising
from hawsweep.search.distributions import distributions
from hawsweep.spec.read import check_sweep, read_sweep
from hawsweep.study.baselines import base_dir
from hawsweep.study.place import Place
from hawsweep.study.storage import open_storage
from hawsweep.study.study import create_study, load_study
from hawsweep.views.report.content import make_report
from hawsweep.views.report.file import MARKDOWN_MARK, PAGE_MARK, write_report
from hawsweep.views.report.page import report_page, script_json
from hawsweep.views.report.pull_request import report_markdown
from hawsweep.views.report.redaction import Redaction

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


class Page(HTMLParser):
    """What a browser would make of a page, roughly: its texts, its scripts, its addresses."""

    def __init__(self, text):
        super().__init__()
        self.texts, self.scripts, self.addresses, self.tags = [], [], [], []
        self._inside = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._inside = tag
        if tag == "script":
            self.scripts.append([dict(attrs), ""])
        self.addresses += [v for k, v in attrs if k in ("src", "href", "action", "srcset", "data")]

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1][1] += data
        elif self._inside != "style":
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    study, place = make_reported_study(tmp_path_factory.mktemp("reported"))
    return study, place, make_report(study, place, NOW)


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
    said = " ".join(report.said)
    assert f"Test split ({N_PROMPTS} prompts): trial {number} 0.6100, untuned 0.1200" in said
    assert f"With 2 new seeds, trial {number} scores 0.6100" in said
    assert "[bold]" not in said


def test_most_important_numbers_are_those_of_winner_and_base(told):
    study, _, report = told
    best = best_of(study)
    numbers = {each.title: (each.value, each.detail) for each in report.numbers}
    low, high = best.user_attrs["low"], best.user_attrs["high"]
    assert numbers[f"trial {best.number}"] == (f"{best.value:.4f}", f"95 % {low:.3f}-{high:.3f}")
    assert numbers["base"] == ("0.1100", "95 % 0.070-0.150")
    assert numbers["gain on the test split"] == ("+0.4900", "over the base")  # 0.61 - 0.12
    assert numbers["val loss"] == (f"{best.user_attrs['val_loss']:.3f}", "base 3.700")
    assert numbers["trials"] == ("12", "9 complete, 1 fail, 1 infeasible, 1 pruned")


def test_leaderboard_is_the_terminal_s_with_the_base_in_it(told):
    study, _, report = told
    labels = [row[0] for row in report.board.rows]
    assert labels[0] == str(best_of(study).number)
    assert {"base", "4-shot base"} < set(labels)
    assert len(labels) == len(report.states) == 12 + 2
    assert report.states[labels.index("base")] == "base"
    assert report.board.titles[:2] == ("trial", "state")
    assert {"lr", "rank", "val loss", "score", "95 %", "confirmed", "peak GB"} < set(
        report.board.titles
    )


def test_of_a_long_leaderboard_the_best_and_the_base_are_told(told, monkeypatch):
    study, place, _ = told
    monkeypatch.setattr("hawsweep.views.report.content._MOST_ROWS", 3)
    report = make_report(study, place, NOW)
    assert len(report.board.rows) == 3 + 2
    assert report.board.rows[-1][0] == "base"
    assert report.n_more == 12 - 3
    assert "9 more trials: hawsweep status rates --all" in Page(report_page(report, study)).text


def test_translations_are_compared_with_the_harmed_ones_first(told):
    study, _, report = told
    compared = report.compared
    assert compared.labels == ("base", f"trial {best_of(study).number}")
    assert compared.items[0].outputs[1] == NASTY
    assert (compared.n_better, compared.n_worse) == (N_PROMPTS - 1, 1)


def test_groups_with_losses_are_named(told):
    _, _, report = told
    assert [row.group for row in report.groups] == ["verbs", "possession"]
    assert report.losses[0].startswith("It scores lower in verbs (-0.0")
    assert [row[0] for row in report.group_cells.rows] == ["verbs", "possession"]


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
    assert len(parsed.scripts) == 3
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
    assert parsed.text.count("document.title='stolen'") == 3  # harmed, every prompt, failed trial
    assert "Rates & <ranks>." in parsed.text
    figures = json.loads(parsed.scripts[0][1])
    assert set(figures) == {
        *("scores", "curves", "history", "importance", "parallel", "slices", "agreement", "memory"),
    }


def test_json_in_a_script_ends_no_script():
    text = script_json({"</script><!--": "&\u2028ʻ"})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"</script><!--": "&\u2028ʻ"}


def test_no_group_that_lost_is_said_in_markdown(told):
    _, _, report = told
    gained = [n for n, row in enumerate(report.groups) if row.gain.mean > 0]
    rows = tuple(report.group_cells.rows[n] for n in gained)
    better = replace(
        report,
        groups=tuple(report.groups[n] for n in gained),
        group_cells=replace(report.group_cells, rows=rows),
        losses=(),
    )
    assert "**Groups**\n\nNo group lost.\n" in report_markdown(better)
    assert "Groups" not in report_markdown(replace(better, groups=()))


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
    assert report.not_compared == "Study 'rates' has no complete trial to compare yet."
    text = Page(report_page(report, study)).text
    assert said in text
    assert report.not_compared in text
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
    assert "has not answered the validation prompts" in report.not_compared
    assert "theirs" in Page(report_page(report, study)).text


def test_answers_that_cannot_be_paired_are_said(tmp_path):
    study, place = make_reported_study(tmp_path, is_tested=False)
    write_samples(place.study_dir("rates") / "base" / "samples.jsonl", [])
    report = make_report(study, place)
    assert report.compared is None
    assert "base has not answered the validation prompts." in Page(report_page(report, study)).text


def test_markdown_is_short_and_says_the_same(told):
    _, _, report = told
    text = report_markdown(report)
    assert text.startswith(MARKDOWN_MARK)
    headline = report.headline[:1].upper() + report.headline[1:]
    assert text.splitlines()[2] == f"### {headline}"
    board = text.split("**Best trials")[1].split("**Test split**")[0]
    # Head and ruler, the five best trials and two baselines.
    assert sum(line.startswith("|") for line in board.splitlines()) == 2 + 5 + 2
    assert text.count("<details>") == text.count("</details>") == 2
    samples = text.split("<details>")[1]
    assert sum(re.match(r"\| [+-]0", line) is not None for line in samples.splitlines()) == 5
    groups = text.split("**Groups**")[1].split("<details>")[0]
    assert "It scores lower in verbs" in groups
    assert sum(line.startswith("|") for line in groups.splitlines()) == 2 + 1  # no gain is told
    assert "hawsweep start rates.yaml" in text


def test_texts_of_models_are_texts_in_markdown(told):
    _, _, report = told
    text = report_markdown(report)
    unfenced = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    tags = set(re.findall(r"(?<!\\)<(/?\w+)", unfenced))
    assert tags == {"details", "/details", "summary", "/summary"}
    line = next(line for line in text.splitlines() if "stolen" in line)
    assert len(re.findall(r"(?<!\\)\|", line)) == 6  # five cells
    assert r"\*pipe\*" in line
    assert "\u202e" not in text


@pytest.mark.parametrize("name", ["www.example.com", "# no", "a|b", "*loud*", "1. one", "<b>"])
def test_names_of_groups_are_no_markdown(told, name):
    _, _, report = told
    cells = replace(report.group_cells, rows=((name, "1", "2", "3", "4", "5"),))
    text = report_markdown(replace(report, group_cells=cells, groups=report.groups[:1]))
    assert f"| {name} |" not in text


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


def test_study_of_several_models_names_each_and_its_base(tmp_path):
    big, small = "/home/somebody/models/big", "org/small"
    sweep = {
        "data": "phrasebook",
        "search": {
            "model": {"choices": [big, small]},
            "learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
        },
    }
    spec, place = check_sweep(sweep, "a sweep"), Place(tmp_path / "studies")
    study, _ = create_study(open_storage(place, create=True), place, "models", spec, {})
    measured = {
        model: {"base": {**BASE, "nats_per_byte": loss, "score": score}}
        for model, loss, score in ((big, 0.9, 0.2), (small, 0.8, 0.1))
    }
    study.set_user_attr("bases", measured)
    for model, loss, score in ((big, 0.5, 0.6), (small, 0.4, 0.7)):
        known = {"val_loss": 5 * loss, "nats_per_byte": loss, "targets_per_byte": 0.2}
        trial = create_trial(
            value=score,
            params={"model": model, "learning_rate": 1e-4},
            distributions=distributions(spec.search),
            intermediate_values={10: -loss},
            user_attrs=known,
        )
        study.add_trial(trial)
    for model in (big, small):
        write_samples(base_dir(place, "models", model) / "samples.jsonl", answers(0.1))
    for number in (0, 1):
        write_samples(place.trial_dir("models", number) / "samples.jsonl", answers(0.6))
    report = make_report(study, place, NOW)
    numbers = {each.title: each for each in report.numbers}
    assert numbers["base small"].value == "0.1000"
    assert numbers["val loss"].detail == "base small 3.700"
    assert report.compared.labels == ("base small", "trial 1")
    assert "model org/small" in report.settings
    page = report_page(report, study)
    assert "/home/somebody" not in page
    drawn = json.loads(Page(page).scripts[0][1])
    levels = [shape["y0"] for shape in drawn["curves"]["layout"]["shapes"]]
    assert sorted(levels) == [0.8, 0.9]
    assert drawn["curves"]["layout"]["yaxis"]["title"]["text"] == "val loss per byte"
    assert [trace["y"] for trace in drawn["curves"]["data"]] == [[0.5], [0.4]]
    trials, best, bases = drawn["agreement"]["data"]
    assert (trials["x"], best["x"], bases["x"]) == ([0.5], [0.4], [0.9, 0.8])
    assert bases["text"] == ["base big", "base small"]
    assert "base big" in drawn["scores"]["data"][2]["y"]
