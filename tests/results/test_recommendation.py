"""One recommendation, in the same words wherever a study is looked at."""

import json
import re

import pytest
from click.testing import CliRunner
from optuna.trial import TrialState, create_trial
from reported_study import SELF_CHECK, answers, write_samples

from hawsweep.cli import main
from hawsweep.markdown import plain
from hawsweep.notes.note import study_note
from hawsweep.results.study_results import end_of_study, open_study
from hawsweep.results.verdict import judge_study
from hawsweep.search.distributions import distributions
from hawsweep.spec.read import check_sweep
from hawsweep.spec.space import MODEL
from hawsweep.study.baselines import base_dir
from hawsweep.study.place import Place
from hawsweep.study.storage import open_storage
from hawsweep.study.study import create_study
from hawsweep.views.report.content import make_report
from hawsweep.views.report.pull_request import report_markdown
from hawsweep.views.terminal.console import make_console
from hawsweep.views.terminal.tables import end_picture

SEARCH = {
    "learning_rate": {"low": 1e-5, "high": 2e-3, "log": True},
    "lora_parameters.rank": {"choices": [4, 8, 16]},
}
# The scores of three trials, and what new seeds gave of two; of the base.
STUDIES = {
    "clear": ((0.4, 0.62, 0.5), {1: 0.6, 2: 0.5}, 0.11),
    "tie": ((0.600, 0.601, 0.599), {0: 0.61, 1: 0.6}, 0.11),
    "nothing": ((0.11, 0.12, 0.1), {1: 0.115, 0: 0.11}, 0.12),
    "models": ((0.4, 0.62, 0.5), {1: 0.6, 2: 0.5}, 0.11),
}
USED = {"clear": 1, "tie": 0, "nothing": None, "models": 1}


@pytest.fixture(scope="module", params=STUDIES)
def recorded(request, tmp_path_factory):
    """A finished study: its kind, itself, its place."""
    kind = request.param
    place = Place(tmp_path_factory.mktemp("recorded") / "studies")
    return kind, record(kind, place), place


def record(kind, place):
    scores, again, base_score = STUDIES[kind]
    models = ("some/one", "some/two") if kind == "models" else ("",)
    search = {"model": {"choices": models}} if kind == "models" else {}
    content = {"model": "some/one", "data": "phrasebook", "search": {**SEARCH, **search}}
    if search:
        del content["model"]
    spec = check_sweep({**content, "trials": len(scores)}, "a sweep")
    study, _ = create_study(open_storage(place, create=True), place, "rates", spec, {"data": "a"})
    base = {"score": base_score, "similarity": base_score, "val_loss": 3.0}
    study.set_user_attr("base", base)
    study.set_user_attr("self_check", SELF_CHECK)
    if search:
        study.set_user_attr("bases", {model: {"base": base} for model in models})
    for model in models:
        folder = base_dir(place, "rates", model)
        for split in ("", "test_"):
            write_samples(folder / f"{split}samples.jsonl", answers(base_score))
    space = distributions(spec.search)
    for number, score in enumerate(scores):
        model = {MODEL: models[number % 2]} if search else {}
        rank = (16, 4, 8)[number]
        peak = (3 - number) * 10**9
        attributes = {
            "score": score,
            "val_loss": 1.0,
            "plan": {"peak_bytes": peak, "text": "whole"},
        }
        rate = 10.0 ** -(3 + number / 2)
        trial = create_trial(
            state=TrialState.COMPLETE,
            value=score,
            params={"learning_rate": rate, "lora_parameters.rank": rank, **model},
            distributions=space,
            user_attrs=attributes,
        )
        study.add_trial(trial)
        write_samples(place.trial_dir("rates", number) / "samples.jsonl", unsteady(score, number))
    confirmed = [
        {"trial_number": number, "selected": scores[number], "scores": [score]}
        for number, score in again.items()
    ]
    study.set_user_attr("confirm", confirmed)
    best = confirmed[0]["trial_number"]
    write_samples(place.trial_dir("rates", best) / "test_samples.jsonl", answers(scores[best]))
    known = {"chrf": 44.0, "bleu": 20.0, "similarity": 0.5}
    study.set_user_attr(
        "test",
        {
            "trial_number": best,
            "n_prompts": 16,
            "n_opened": 1,
            "base": {**known, "score": base_score},
            "trial": {**known, "score": scores[best]},
        },
    )
    return study


def unsteady(score, trial):
    """Answers of which some are better than another trial's, and some worse."""
    made = answers(score)
    for at, each in enumerate(made):
        each["score"] += 0.01 * (at * (trial + 2) % 5 - 2)
    return made


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
