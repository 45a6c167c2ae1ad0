"""The report in Markdown, and of a study of several models."""

import json
import re
from dataclasses import replace

import pytest
from optuna.trial import create_trial
from pictured_study import BASE
from reported_study import NOW, Page, answers, write_samples

from hawsweep.search.distributions import distributions
from hawsweep.spec.read import check_sweep
from hawsweep.study.baselines import base_dir
from hawsweep.study.place import Place
from hawsweep.study.storage import open_storage
from hawsweep.study.study import create_study
from hawsweep.views.report.content import make_report
from hawsweep.views.report.file import MARKDOWN_MARK
from hawsweep.views.report.page import report_page
from hawsweep.views.report.pull_request import report_markdown


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
    assert "**Groups, test prompts**\n\nNo group lost.\n" in report_markdown(better)
    assert "Groups" not in report_markdown(replace(better, groups=()))


def test_markdown_is_short_and_says_the_same(told):
    _, _, report = told
    text = report_markdown(report)
    assert text.startswith(MARKDOWN_MARK)
    headline = report.headline[:1].upper() + report.headline[1:]
    assert text.splitlines()[2] == f"### {headline}"
    board = text.split("**Best trials")[1].split("**Groups")[0]
    # Head and ruler, the five best trials and two baselines.
    assert sum(line.startswith("|") for line in board.splitlines()) == 2 + 5 + 2
    assert text.count("<details>") == text.count("</details>") == 2
    samples = text.split("<details>")[1]
    assert sum(re.match(r"\| [+-]0", line) is not None for line in samples.splitlines()) == 5
    groups = text.split("**Groups")[1].split("<details>")[0]
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
    assert dict(report.facts)["model"] == "…/big, org/small"
    assert report.translations.labels == {"base": "base small", "trial": "trial 1"}
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
