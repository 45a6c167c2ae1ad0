import pytest
from pictured_study import make_study
from reported_study import SELF_CHECK, make_reported_study

from hawsweep.views.report.scale import make_scale, system_name


def test_tested_trial_is_placed_between_chance_and_right(told):
    _, _, report = told
    scale = report.scale
    assert scale.split == "test"
    # From the untuned model's 0.12, which is below chance, to the right answers' 1.
    places = {value: pytest.approx(100 * (value - 0.12) / 0.88, abs=0.01) for value in (0.14, 0.61)}
    assert (scale.chance, scale.chance_at) == ("0.140", places[0.14])
    assert (scale.right, scale.right_at) == ("1.000", 100)
    trial, few_shot, base = scale.marks
    assert (trial.score, trial.at) == ("0.6100", places[0.61])
    assert trial.range == "0.500-0.700"
    assert trial.low_at < trial.at < trial.high_at
    assert (few_shot.name, few_shot.range) == ("untuned model with 4 examples", "")
    assert few_shot.low_at == few_shot.at == few_shot.high_at
    assert (base.name, base.at, base.low_at) == ("untuned model", 0, 0)  # its interval is cut


def test_scores_of_a_trial_that_was_not_tested_are_of_the_validation_prompts(tmp_path):
    study, _ = make_reported_study(tmp_path, is_tested=False)
    scale = make_scale(study)
    assert scale.split == "validation"
    best = max(trial.value for trial in study.trials if trial.value)
    assert [mark.score for mark in scale.marks] == [f"{best:.4f}", "0.1400", "0.1100"]


@pytest.mark.parametrize("check", [None, {**SELF_CHECK, "ceiling": SELF_CHECK["floor"]}])
def test_without_a_scale_nothing_is_drawn(check):
    study = make_study(2)
    if check:
        study.set_user_attr("self_check", check)
    assert make_scale(study) is None


def test_without_a_complete_trial_nothing_is_drawn():
    study = make_study(0)
    study.set_user_attr("self_check", SELF_CHECK)
    assert make_scale(study) is None


def test_system_is_named_as_in_the_headline():
    assert system_name("base") == "untuned model"
    assert system_name("trial 4") == "trial 4"
