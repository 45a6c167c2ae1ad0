"""What scores cost, and `prefer: cheap`."""

import pytest
from judged_study import record

from hawsweep.layout import ADAPTER_DIR
from hawsweep.results.leaderboard import TrialRow, leaderboard
from hawsweep.results.price import prices, settle_preference
from hawsweep.results.verdict import judge_study
from hawsweep.study.confirm import winner
from hawsweep.study.place import Place
from hawsweep.study.study import known_spec

GB = 10**9


def row(number, score, hours, gigabytes, **more):
    return TrialRow(
        str(number),
        "complete",
        {},
        score=score,
        train_time_s=3600 * hours,
        peak_memory_bytes=round(GB * gigabytes),
        **more,
    )


def test_front_has_the_trials_that_no_better_one_takes_less_than():
    rows = [
        row(0, 0.90, 4.0, 8.0),  # the best
        row(1, 0.85, 4.0, 9.0),  # takes more than the best
        row(2, 0.80, 2.0, 9.0),  # in half the time
        row(3, 0.75, 4.0, 4.0),  # in half the memory
        row(4, 0.70, 1.9, 8.9),  # less than trial 2 only within the tolerance
        row(5, 0.65, 1.0, 9.0),
        TrialRow("6", "pruned", {}, train_time_s=1.0, peak_memory_bytes=1),
        TrialRow("7", "complete", {}, score=0.99),  # of another program
        TrialRow("4-shot base", "base", {}, score=0.6),
        TrialRow("base", "base", {}, score=0.5),
    ]
    found = prices(rows[::-1])
    assert [each.trial for each in found] == [0, 1, 2, 3, 4, 5]
    assert [each.trial for each in found if each.is_on_front] == [0, 2, 3, 5]
    assert found[2].gain_per_hour == pytest.approx((0.80 - 0.5) / 2)


def test_gain_is_over_the_model_that_was_trained():
    rows = [
        TrialRow(
            str(number),
            "complete",
            {"model": model},
            score=0.9,
            train_time_s=1800.0,
            peak_memory_bytes=GB,
        )
        for number, model in enumerate(("a/one", "a/two"))
    ]
    rows += [
        TrialRow("base one", "base", {"model": "a/one"}, score=0.5),
        TrialRow("base two", "base", {"model": "a/two"}, score=0.8),
    ]
    assert [each.gain_per_hour for each in prices(rows)] == pytest.approx([0.8, 0.2])


def with_adapters(kind, place, *numbers):
    study = record(kind, place)
    for number in numbers:
        (place.trial_dir("rates", number) / ADAPTER_DIR).mkdir()
    spec = known_spec(study)
    return study, {name: spec.model_copy(update={"prefer": name}) for name in ("best", "cheap")}


def test_cheap_one_of_those_not_told_apart_is_used(tmp_path):
    place = Place(tmp_path / "studies")
    study, spec = with_adapters("tie", place, 0, 1, 2)
    settle_preference(study, place, spec["best"])
    assert winner(study).number == 0
    settle_preference(study, place, spec["cheap"])
    assert winner(study).number == 1  # rank 4, the others have 16 and 8
    assert leaderboard(study)[0].label == "1"
    said = judge_study(study, place).sentences
    assert said[0].startswith("Use trial 1: ")
    assert (
        "trial 1 is preferred to trial 0, the best one, since it takes less: rank 4, not 16, "
        "1 GB less (prefer: cheap)."
    ) in said
    settle_preference(study, place, spec["best"])
    assert winner(study).number == 0


def test_trial_without_an_adapter_is_not_preferred(tmp_path):
    place = Place(tmp_path / "studies")
    study, spec = with_adapters("tie", place, 0, 2)
    settle_preference(study, place, spec["cheap"])
    assert winner(study).number == 2  # rank 8


def test_cheap_trial_that_is_worse_is_not_preferred(tmp_path):
    place = Place(tmp_path / "studies")
    study, spec = with_adapters("clear", place, 0, 1, 2)
    settle_preference(study, place, spec["cheap"])
    assert winner(study).number == 1


def test_choice_that_was_interrupted_is_made_again(tmp_path):
    place = Place(tmp_path / "studies")
    study, spec = with_adapters("tie", place, 0, 1, 2)
    study.set_user_attr("chosen", {"trial": 2, "of": 0, "is_settled": False})
    settle_preference(study, place, spec["cheap"])
    assert winner(study).number == 1


def test_what_the_test_split_says_changes_no_choice(tmp_path):
    place = Place(tmp_path / "studies")
    study, spec = with_adapters("tie", place, 0, 1, 2)
    settle_preference(study, place, spec["cheap"])
    bad = (place.study_dir("rates") / "base" / "test_samples.jsonl").read_text()
    (place.trial_dir("rates", 1) / "test_samples.jsonl").write_text(bad)
    study.set_user_attr("test", {**study.user_attrs["test"], "trial_number": 1})
    settle_preference(study, place, spec["cheap"])
    assert winner(study).number == 1
    assert not judge_study(study, place).ships


def test_choice_ends_with_another_best_trial(tmp_path):
    place = Place(tmp_path / "studies")
    study, spec = with_adapters("tie", place, 0, 1, 2)
    settle_preference(study, place, spec["cheap"])
    study.set_user_attr("confirm", [{"trial_number": 2, "selected": 0.599, "scores": [0.7]}])
    assert winner(study).number == 2
