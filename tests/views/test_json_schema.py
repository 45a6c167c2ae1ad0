import csv
import io
import json
import math

import pytest
from click.testing import CliRunner
from long_study import BASE_SCORE, N_PROMPTS, make_study
from pydantic import ValidationError

from hawsweep.cli import main
from hawsweep.cli.csv_columns import system_records
from hawsweep.results.compare_systems import rank
from hawsweep.scoring.score import Sample, Score
from hawsweep.study.place import Place
from hawsweep.views.json_schema import OUTPUTS, STREAMS

N_TRIALS = 50


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    made = Place(tmp_path_factory.mktemp("outputs") / "studies")
    make_study(made, N_TRIALS)
    return made


def run(place, command, *arguments, code=0):
    given = [command, *arguments, f"--studies-dir={place.studies_dir}"]
    done = CliRunner().invoke(main, given)
    assert done.exit_code == code, done.output
    return done.stdout


def check(command, text):
    """That a command printed what its schema says, and nothing that JSON does not know."""

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    found = json.loads(text, parse_constant=refuse)
    OUTPUTS[command].validate_python(found)
    return found


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("list", []),
        ("status", ["long"]),
        ("status", ["--why", "--groups"]),
        ("show", ["long", "0"]),
        ("show", ["long", "2"]),
        ("show", ["long", "base"]),
        ("compare", ["long"]),
        ("compare", ["long", "--trial", "0", "--trial", "5"]),
        ("doctor", ["--quick"]),
    ],
)
def test_json_is_what_the_schema_says(place, command, arguments):
    check(command, run(place, command, *arguments, "--json"))


def test_json_of_a_plan_is_what_the_schema_says():
    given = ["plan", "gemma-lr-rank", "--ram", "32GB", "--data-pairs", "200", "--json"]
    done = CliRunner().invoke(main, given)
    assert done.exit_code == 0, done.output
    assert check("plan", done.stdout)["model"] == "mlx-community/gemma-3-4b-it-4bit"


def test_json_about_sweeps_is_what_the_schema_says():
    found = CliRunner().invoke(main, ["explain", "learning_rate", "--json"])
    assert check("explain", found.stdout)[0]["name"] == "train.learning_rate"
    found = CliRunner().invoke(main, ["validate", "none", "--json"])
    assert not check("validate", found.stdout)["is_valid"]


def score(value, n=3):
    sample = Sample("a", "b", "c", value, value, "", None)
    return Score(value, -math.inf, math.inf, value, *(10.0, 5.0, 0.0, 1.0, 2.5), {}, (sample,) * n)


def test_json_and_csv_of_a_ranking_are_what_the_schema_says():
    ranking = rank({"one": score(0.5), "other": score(0.25)})
    from hawsweep.cli.common import print_json

    @main.command("print-ranking", hidden=True)
    def print_ranking():
        print_json(ranking.to_plain())

    try:
        found = check("score", CliRunner().invoke(main, ["print-ranking"]).stdout)
    finally:
        del main.commands["print-ranking"]
    assert [each["name"] for each in found["systems"]] == ["one", "other"]
    assert found["systems"][0]["lead"]["low"] is None  # three items allow no interval
    records = system_records(ranking)
    assert [each["lead_mean"] for each in records] == [0.25, None]
    assert "samples" not in records[0]


def test_every_command_with_json_has_a_schema():
    with_json = {
        name
        for name, command in main.commands.items()
        if any(parameter.name == "as_json" for parameter in command.params)
    }
    assert with_json == set(OUTPUTS)


@pytest.mark.parametrize("command", sorted(OUTPUTS | STREAMS))
def test_schema_is_printed(command):
    found = json.loads(CliRunner().invoke(main, ["schema", command]).stdout)
    assert {"type", "anyOf"} & set(found)
    assert json.loads(CliRunner().invoke(main, ["schema"]).stdout)[command] == found


def test_schema_of_what_has_no_json_is_refused():
    done = CliRunner().invoke(main, ["schema", "stop"])
    assert done.exit_code == 2
    assert "'stop' has no --json. Known: list, status" in done.output


def test_key_that_is_not_in_the_schema_is_refused(place):
    found = json.loads(run(place, "list", "--json"))
    with pytest.raises(ValidationError):
        OUTPUTS["list"].validate_python({**found, "another": 1})


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_of_status_has_every_trial_and_column_as_json_has_it(place):
    rows = rows_of(run(place, "status", "long", "--csv"))
    trials = json.loads(run(place, "status", "long", "--json"))["trials"]
    assert [row["label"] for row in rows] == [each["label"] for each in trials]
    assert len(rows) == N_TRIALS + 1  # the base is among them
    for row, trial in zip(rows, trials, strict=True):
        assert set(row) >= (set(trial) - {"settings"}) | set(trial["settings"])
        assert (float(row["score"]) if row["score"] else None) == trial["score"]
        for key, value in trial["settings"].items():
            assert float(row[key]) == value
    assert "behind the median of earlier trials" in rows[-1]["reason"]


def test_csv_of_a_comparison_has_every_item(place):
    rows = rows_of(run(place, "compare", "long", "--trial", "0", "--csv"))
    assert len(rows) == N_PROMPTS
    assert rows[0]["source"] == "Ua heluhelu ʻo Leilani i ka puke."
    assert float(rows[0]["base score"]) == BASE_SCORE
    assert float(rows[0]["gain"]) == float(rows[0]["trial 0 score"]) - BASE_SCORE


def test_csv_of_the_list_has_every_study(place):
    (row,) = rows_of(run(place, "list", "--csv"))
    assert row["name"] == "long"
    assert json.loads(row["trials"]) == {"complete": 20, "pruned": 30}


def test_csv_keeps_what_would_break_a_line(tmp_path):
    from hawsweep.cli.common import print_csv

    @main.command("print-rows", hidden=True)
    def print_rows():
        print_csv([{"a": 'x, "y"\nz', "b": math.inf}, {"c": None, "a": 0.1 + 0.2}])

    try:
        text = CliRunner().invoke(main, ["print-rows"]).stdout
    finally:
        del main.commands["print-rows"]
    assert rows_of(text) == [
        {"a": 'x, "y"\\nz', "b": "", "c": ""},
        {"a": "0.30000000000000004", "b": "", "c": ""},
    ]
