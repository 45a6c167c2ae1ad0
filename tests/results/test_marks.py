import json

import pytest
from click.testing import CliRunner
from reported_study import write_samples
from reviewed_study import N_SAME, N_SENTENCES, answered, make_reviewed_study

from hawsweep.cli import main
from hawsweep.study.baselines import base_dir
from hawsweep.study.storage import open_storage
from hawsweep.study.study import load_study
from hawsweep.views.json_schema import OUTPUTS


@pytest.fixture
def place(place):
    make_reviewed_study(place)
    return place


def mark(name, number, right):
    sample = answered(name, number, 0)
    return {"source": sample["source"], "output": sample["output"], "right": right}


def write_marks(folder, marks, **others):
    path = folder / "rates-marks.json"
    content = {"study": "rates", "trial": 1, "split": "test", "marks": marks, **others}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def run(place, path, *arguments, code=0):
    given = ["score", "--marks", str(path), *arguments, f"--studies-dir={place.studies_dir}"]
    done = CliRunner().invoke(main, given)
    assert done.exit_code == code, done.output
    return done.output


def test_marks_are_counted_by_system_and_against_the_score(place, tmp_path):
    # Trial 1 scores 0.6, but 0.2 on every fifth prompt; the base 0.3.
    marks = [
        *(mark("trial", number, True) for number in (5, 6, 7)),
        mark("trial", 9, False),
        mark("trial", 14, True),
        *(mark("base", number, False) for number in (5, 6, 7)),
    ]
    path = write_marks(tmp_path, marks)
    found = json.loads(run(place, path, "--json"))
    OUTPUTS["score"].validate_python(found)
    systems = {each["name"]: (each["n_right"], each["n_marked"]) for each in found["systems"]}
    assert systems == {"trial 1": (4, 5), "untuned model": (0, 3)}
    # Of 4 right (0.6 three times, 0.2) against 4 wrong (0.2, 0.3 three times): 12 pairs and a tie.
    assert found["separation"] == (3 * 4 + 0.5) / 16
    shown = " ".join(run(place, path).split())
    assert shown == " ".join(found["sentences"])
    # Wilson's interval of 4 in 5.
    assert "trial 1: 4 of 5 marked test answers are right, 80 % (95 % 38 to 96 %)." in shown
    assert "In 78 % of the pairs of 4 right and 4 wrong answers the right one has" in shown


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ({"n_examples": 4}, "4 examples"),
        ({"n_examples": 0, "instruction": 2}, "instruction 2"),
        ({"n_examples": 4, "instruction": 2}, "4 examples and instruction 2"),
        ({}, "examples"),  # an older study
    ],
)
def test_untuned_model_is_named_with_its_best_prompt(place, tmp_path, prompt, name):
    load_study(open_storage(place), "rates").set_user_attr("few_shot", {"score": 0.4, **prompt})
    samples = [answered("prompted", number, 0.4) for number in range(N_SENTENCES)]
    write_samples(base_dir(place, "rates") / "test_few_shot_samples.jsonl", samples)
    path = write_marks(tmp_path, [mark("prompted", 5, True), mark("prompted", 6, False)])
    assert f"untuned model with {name}: 1 of 2 marked test answers" in run(place, path)


def test_answer_of_both_systems_counts_for_each(place, tmp_path):
    marks = [mark("trial", N_SAME - 1, True), mark("trial", N_SAME - 1, False)]  # the last holds
    found = json.loads(run(place, write_marks(tmp_path, marks), "--json"))
    assert [(each["n_marked"], each["n_right"]) for each in found["systems"]] == [(1, 0), (1, 0)]
    assert (found["n_right"], found["n_wrong"], found["separation"]) == (0, 1, None)
    assert "takes both kinds" in found["sentences"][-1]


def test_answers_that_the_study_has_not_are_said(place, tmp_path):
    path = write_marks(tmp_path, [mark("trial", 5, True), mark("earlier", 5, True)])
    assert "1 mark is of answers that the study does not have now." in run(place, path)
    path = write_marks(tmp_path, [mark("earlier", 5, True)])
    said = run(place, path, code=1)
    assert "None of the 1 marked answers is one of study 'rates', trial 1, on the test" in said


WRONG = {
    "broken": ("{", "is no file of marks: the file: Invalid JSON"),
    "a list": ("[]", "is no file of marks: the file: "),
    "no marks": ('{"study": "rates", "trial": 1, "split": "test"}', "marks: Field required"),
    "a word for right": (
        '{"study": "rates", "trial": 1, "split": "test",'
        ' "marks": [{"source": "a", "output": "b", "right": "yes"}]}',
        "marks.0.right: Input should be a valid boolean",
    ),
    "another split": (
        '{"study": "rates", "trial": 1, "split": "train", "marks": []}',
        "split: Input should be 'test' or 'validation'",
    ),
    "none marked": (
        '{"study": "rates", "trial": 1, "split": "test", "marks": []}',
        "has no marks. Mark answers in the report",
    ),
    "large": (" " * 10_000_001, "cannot be read: it has 10,000,001 bytes, and at most 10,000,000"),
}


@pytest.mark.parametrize(("text", "says"), WRONG.values(), ids=WRONG)
def test_file_that_holds_no_marks_is_refused(place, tmp_path, text, says):
    path = tmp_path / "marks.json"
    path.write_text(text, encoding="utf-8")
    said = run(place, path, code=1)
    assert f"{path} " in said
    assert says in said


def test_marks_of_another_study_or_trial_are_refused(place, tmp_path):
    marks = [mark("trial", 5, True)]
    said = run(place, write_marks(tmp_path, marks, study="other"), code=1)
    assert "'other'" in said
    said = run(place, write_marks(tmp_path, marks, trial=7), code=1)
    assert "Study 'rates' has no trial 7; it has 0 to 2." in said
    assert "cannot be read" in run(place, tmp_path / "none.json", code=1)
    assert "leave out --csv" in run(place, tmp_path / "none.json", "--csv", code=2)
