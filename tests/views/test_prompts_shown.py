"""The prompts of the untuned model as a person sees them, on a recorded study."""

import io
import json

import pytest
from click.testing import CliRunner
from reported_study import answers, make_reported_study, write_samples

from hawsweep.cli import main
from hawsweep.results.one_trial import describe_base
from hawsweep.results.verdict import judge_study
from hawsweep.views.json_schema import OUTPUTS
from hawsweep.views.report.content import make_report
from hawsweep.views.terminal.events import event_lines
from hawsweep.views.terminal.text import Console
from hawsweep.views.terminal.trial import base_picture

INSTRUCTIONS = ["Say it in [bold]English[/bold].", "{prompt} In English:"]
ENDS = {"low": 0.1, "high": 0.2}
TRIED = [
    {"n_examples": 4, "score": 0.14, **ENDS},
    {"n_examples": 0, "instruction": 1, "score": 0.1, **ENDS},
    {"n_examples": 4, "instruction": 2, "score": 0.19, **ENDS},
]


@pytest.fixture(scope="module")
def prompted(tmp_path_factory):
    study, place = make_reported_study(tmp_path_factory.mktemp("prompted"))
    spec = study.user_attrs["spec"]
    asked = {"examples": [0, 4], "instructions": INSTRUCTIONS}
    spec["scoring"]["prompt"] = asked
    study.set_user_attr("spec", spec)
    study.set_user_attr("few_shot", {**TRIED[2], "similarity": 0.19, "tried": TRIED})
    for split in ("", "test_"):
        path = place.study_dir("rates") / "base" / f"{split}few_shot_samples.jsonl"
        write_samples(path, answers(0.19))
    return study, place


def run(place, *arguments):
    done = CliRunner().invoke(main, [*arguments, f"--studies-dir={place.studies_dir}"])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_best_prompt_is_a_row_and_the_verdict_is_against_it(prompted):
    study, place = prompted
    labels = [each.label for each in judge_study(study, place).baselines]
    assert labels == ["base", "4-shot base, instruction 2"]
    told = "it is better than the untuned model with 4 examples and instruction 2"
    text = " ".join(run(place, "status", "rates").split())
    assert told in text
    assert "4-shot base, instruction 2" in text


def test_each_prompt_is_shown_with_its_score(prompted):
    study, place = prompted
    console = Console(file=io.StringIO(), width=80)
    console.print(base_picture(describe_base(study)))
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line.split("  ")[0].strip() for line in lines if "0.1" in line]
    best, *others = rows
    assert best.startswith("4-shot base, instruction 2")
    assert [each.split(" 0.")[0] for each in others] == [
        "4-shot base", "base", "base, instruction 1",
    ]  # fmt: skip
    assert sum("baseline" in line for line in lines) == 1
    assert any("[bold]English[/bold]" in line for line in lines)
    found = json.loads(run(place, "show", "rates", "base", "--json"))
    OUTPUTS["show"].validate_python(found)
    assert [each["is_chosen"] for each in found["prompts"]] == [True, False, False, True]


def test_report_says_which_prompt_was_the_best_of_how_many(prompted):
    facts = dict(make_report(*prompted).facts)
    assert facts["untuned prompt"] == (
        "4 examples and instruction 2, the best of 3 by the validation prompts: "
        "{prompt} In English:"
    )


def test_end_of_the_base_says_the_prompt():
    values = {"base": {"val_loss": 3.0, "score": 0.1}, "self_check": CHECK}
    many = {**TRIED[2], "tried": TRIED}
    (_, line), (_, plain) = (
        [str(each) for each in event_lines("base_end", {**values, "few_shot": each})[:2]]
        for each in (many, TRIED[0])
    )
    said = "with 4 examples and instruction 2 in its prompt, the best of 3 prompts: score 0.1900"
    assert line.endswith(said)
    assert plain.endswith("with 4 examples in its prompt: score 0.1400")


CHECK = {
    "floor": 0.1,
    "ceiling": 1.0,
    "base": 0.1,
    "n_prompts": 16,
    "detectable": 0.01,
    "wanted": 0.02,
    "n_needed": 10,
    "warnings": [],
}


def test_base_has_neither_training_examples_nor_tokens(prompted):
    given = ["show", "rates", "base", "--examples", f"--studies-dir={prompted[1].studies_dir}"]
    done = CliRunner().invoke(main, given)
    assert done.exit_code == 2
    assert "--examples and --tokens are of a trial" in done.output
