import json

import pytest
from click.testing import CliRunner
from reported_study import write_samples
from reviewed_study import make_reviewed_study

from hawsweep.cli import main
from hawsweep.results.groups import by_group
from hawsweep.study.baselines import base_dir
from hawsweep.study.place import Place


def samples(scores):
    """Answers by group, with their scores."""
    return [
        {"source": "s", "reference": "r", "output": "o", "group": group, "score": score}
        for group, each in scores.items()
        for score in each
    ]


def test_small_groups_are_one_row_at_the_end():
    before = {"a": [0.1] * 5, "b": [0.1] * 4, "c": [0.1] * 2, "d": [0.5] * 6}
    after = {"a": [0.2] * 5, "b": [0.0] * 4, "c": [0.4] * 2, "d": [0.4] * 6}
    rows = by_group(samples(before), samples(after))
    assert [row.group for row in rows] == ["d", "a", "others (2 groups)"]
    assert [row.n_prompts for row in rows] == [6, 5, 6]
    assert rows[-1].gain.mean == pytest.approx((4 * -0.1 + 2 * 0.3) / 6)


def test_thousand_groups_are_one_row():
    scores = {str(number): [0.5] for number in range(1000)}
    (row,) = by_group(samples(scores), samples(scores))
    assert (row.group, row.n_prompts) == ("others (1000 groups)", 1000)


@pytest.fixture
def place(place):
    """A study whose prompts are of two groups, one of which scores lower."""
    make_reviewed_study(place)
    for folder, score in ((base_dir(place, "rates"), 0.3), (place.trial_dir("rates", 1), 0.2)):
        for name in ("samples.jsonl", "test_samples.jsonl"):
            steps = [0.01 * (number % 3) for number in range(8)]
            formal = [score + (2 if score < 0.3 else 1) * step for step in steps]
            casual = [0.5 + (0.5 - score) * (-1) ** number for number in range(8)]
            write_samples(folder / name, samples({"formal": formal, "casual": casual}))
    return place


def run(place, *arguments):
    done = CliRunner().invoke(main, [*arguments, f"--studies-dir={place.studies_dir}"])
    assert done.exit_code == 0, done.output
    return done.output


def test_table_says_its_split_and_only_losses_beyond_chance(place):
    shown = run(place, "status", "rates", "--groups")
    table = shown[shown.index("By group of the test prompts") :]
    assert "base  trial 1" in table.splitlines()[1]
    assert "It scores lower in formal (-0.091 on 8 prompts)." in table
    assert "lower in casual" not in table
    assert "formal, " not in table
    rows = json.loads(run(place, "status", "rates", "--groups", "--json"))["groups"]
    assert {row["group"] for row in rows} == {"formal", "casual"}


def test_table_of_a_comparison_is_headed_by_its_trials(place):
    write_samples(
        place.trial_dir("rates", 0) / "samples.jsonl",
        samples({"formal": [0.4] * 8, "casual": [0.5] * 8}),
    )
    shown = run(place, "compare", "rates", "--trial", "0", "--trial", "1")
    table = shown[shown.index("By group of the validation prompts") :]
    assert "trial 0  trial 1" in table.splitlines()[1]
    assert "base" not in table


def test_asking_for_groups_where_there_are_none_says_so(tmp_path):
    there = Place(tmp_path / "others")
    make_reviewed_study(there)
    assert "No prompt has a group: set data.group." in run(there, "status", "rates", "--groups")
