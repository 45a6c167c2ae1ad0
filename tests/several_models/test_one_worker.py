"""Trials of several models in one worker."""

from hawsweep.machine.backend import mx

import pytest
from optuna.trial import TrialState
from several import lab_of

from hawsweep.errors import MemoryBudgetError
from hawsweep.running.open_test import answer_test_by_other
from hawsweep.study.attributes import BASES
from hawsweep.study.baselines import base_dir
from hawsweep.study.place import Place


@pytest.fixture(scope="module")
def worker(tmp_path_factory, tiny_model_dir, other_model_dir, giant_dir, chat_data_dir):
    folder = tmp_path_factory.mktemp("worker")
    dirs = [tiny_model_dir, other_model_dir, giant_dir]
    lab = lab_of(folder, chat_data_dir, dirs)
    left_out = {str(giant_dir): ["far too large", 7.5]}
    return lab, lab.worker(tiny_model_dir, left_out=left_out)


def run_with(worker, model, **settings):
    lab, made = worker
    asked = {"learning_rate": 1e-3, "lora_parameters.rank": 2, "iters": 40, **settings}
    lab.study.enqueue_trial({**asked, "model": str(model)})
    lab.run_next(made)
    return lab.trials()[-1]


def test_trial_has_the_same_numbers_whichever_model_was_loaded_before(
    worker, tiny_model_dir, other_model_dir
):
    first = run_with(worker, tiny_model_dir)
    between = run_with(worker, other_model_dir)
    again = run_with(worker, tiny_model_dir)
    assert {t.state for t in (first, between, again)} == {TrialState.COMPLETE}
    assert again.intermediate_values == first.intermediate_values
    assert again.value == first.value
    assert between.user_attrs["targets_per_byte"] != first.user_attrs["targets_per_byte"]


def test_trial_goes_on_from_a_shorter_one_of_its_own_model_alone(
    worker, tiny_model_dir, other_model_dir
):
    shorter = run_with(worker, other_model_dir, learning_rate=3e-3, iters=24)
    elsewhere = run_with(worker, tiny_model_dir, learning_rate=3e-3)
    longer = run_with(worker, other_model_dir, learning_rate=3e-3)
    assert "continues" not in elsewhere.user_attrs
    assert longer.user_attrs["continues"] == {"trial": shorter.number, "iteration": 24}
    known = {at: longer.intermediate_values[at] for at in shorter.intermediate_values}
    assert known == shorter.intermediate_values


def test_model_that_is_not_used_any_more_leaves_no_arrays(worker, tiny_model_dir, other_model_dir):
    _, made = worker
    taken = []
    for model in (tiny_model_dir, other_model_dir) * 3:
        made.use(str(model))
        taken.append(mx.get_active_memory())
    assert taken[4:] == taken[2:4]  # the first may have kept what a trial left


def test_best_untuned_model_answers_the_test_prompts_too(worker, tiny_model_dir, other_model_dir):
    lab, made = worker
    one, other = str(tiny_model_dir), str(other_model_dir)
    scores = {one: {"base": {"score": 0.1}}, other: {"base": {"score": 0.1}}}
    place = Place(lab.studies)
    answers = base_dir(place, "tiny", other) / "test_samples.jsonl"
    answers.parent.mkdir(parents=True)  # as when it was measured
    lab.study.set_user_attr(BASES, scores)
    answer_test_by_other(made, lab.study, one)  # as good as its own
    assert not answers.exists()
    scores[other]["base"]["score"] = 0.2
    lab.study.set_user_attr(BASES, scores)
    answer_test_by_other(made, lab.study, one)
    assert made._model == other
    assert len(answers.read_text().splitlines()) == len(made.context.test_prompts)


def test_trial_of_a_model_that_does_not_fit_ends_at_once(worker, giant_dir):
    _, made = worker
    loaded = made._model
    trial = run_with(worker, giant_dir)
    assert trial.state == TrialState.PRUNED
    assert trial.user_attrs["infeasible"]
    assert trial.user_attrs["reason"] == "far too large"
    assert trial.system_attrs["constraints:memory"] == 7.5
    assert made._model == loaded
    with pytest.raises(MemoryBudgetError, match="far too large"):
        made.use(str(giant_dir))
