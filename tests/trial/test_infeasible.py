"""Trials that do not fit into memory, and those that were thought to and did not."""

import json
from dataclasses import replace

import optuna
import pytest
from asked_trial import next_trial
from optuna.trial import TrialState
from trial_bench import SETTINGS, Sweep

from hawsweep.models.shape import shape_of
from hawsweep.planning import trial_plan
from hawsweep.planning.calibration import uncalibrated
from hawsweep.planning.peak import COEFFICIENTS
from hawsweep.planning.trial_plan import plans, smallest_plan
from hawsweep.results.leaderboard import leaderboard, trial_row
from hawsweep.search.distributions import distributions
from hawsweep.spec.space import apply_settings
from hawsweep.study.attributes import MEMORY_FACTOR
from hawsweep.study.queue import ran_out_of_memory
from hawsweep.study.trials import count_finished
from hawsweep.training.train import Interrupted
from hawsweep.trial import run
from hawsweep.trial.run import run_trial


def memory_of(loaded):
    """What is known of the tiny model, whose arrays are small beside what is fixed otherwise."""
    known = uncalibrated(shape_of(loaded.config).dequantized(), "cpu")
    return replace(known, coefficients=COEFFICIENTS["cpu"].replaced({"fixed_bytes": 1000.0}))


@pytest.fixture
def sweep(tiny_model, chat_data_dir, tmp_path):
    """A study whose bench knows the model's memory; there is more than enough."""
    made = Sweep(tiny_model, chat_data_dir, tmp_path / "studies")
    made.context.memory, made.context.budget_bytes = memory_of(tiny_model), 1e12
    return made


def train_of(sweep, **settings):
    return apply_settings(sweep.spec.train, {**SETTINGS, **settings})


def smallest(sweep, **settings):
    return smallest_plan(
        sweep.context.memory, train_of(sweep, **settings), sweep.context.workload()
    )


def run_next(sweep, settings=None, *, dies=False):
    """Run what is queued, as a worker does, which dies where it asks; give it as it is in the
    study, and its folder.
    """
    if settings is not None:
        sweep.study.enqueue_trial({**SETTINGS, **settings})
    space, lock_dir = distributions(sweep.spec.search), sweep.place.study_dir("tiny")
    trial = next_trial(sweep.study, space, lock_dir)
    folder = sweep.place.trial_dir("tiny", trial.number)
    state, value = TrialState.COMPLETE, None
    try:
        value = run_trial(sweep.context, trial, folder, lambda *_, **__: None)
    except optuna.TrialPruned:
        state = TrialState.PRUNED
    except Interrupted:
        state = TrialState.FAIL
    if dies:
        state, value = TrialState.FAIL, None
    sweep.study.tell(trial, value, state=state)
    return sweep.study.get_trials(deepcopy=False)[trial.number], folder


def constraints_of(trial):
    """What of it is above 0 makes a trial infeasible, in Optuna's words."""
    return {k: v for k, v in trial.system_attrs.items() if k.startswith("constraints")}


def test_trial_that_fits_records_its_plan_and_violates_nothing(sweep):
    trial, folder = run_next(sweep, {})
    assert trial.state == TrialState.COMPLETE
    assert list(constraints_of(trial).values()) == [0.0]
    plan = trial.user_attrs["plan"]
    fastest = plans(sweep.context.memory, train_of(sweep), sweep.context.workload())[0]
    assert plan["peak_bytes"] == fastest.peak_bytes
    assert (plan["micro_batch"], plan["grad_checkpoint"]) == (4, False)
    assert plan["text"] == "whole"
    assert "infeasible" not in trial.user_attrs
    assert (folder / "metrics.jsonl").is_file()
    assert count_finished(sweep.study) == 1


def test_trial_that_does_not_fit_is_pruned_before_it_trains(sweep):
    needed = smallest(sweep).needed_bytes
    sweep.context.budget_bytes = needed - 1e4
    trial, folder = run_next(sweep, {})
    assert trial.state == TrialState.PRUNED
    [violation] = constraints_of(trial).values()
    assert violation > 0
    assert trial.user_attrs["infeasible"] is True
    budget = sweep.context.budget_bytes
    assert trial.user_attrs["reason"] == (
        f"needs {needed / 1e9:.2f} GB, the budget is {budget / 1e9:.2f} GB"
    )
    assert "plan" not in trial.user_attrs
    assert not (folder / "metrics.jsonl").exists()


def test_violation_says_how_much_is_missing(sweep):
    sweep.context.budget_bytes = -2e9
    trial, _ = run_next(sweep, {})
    [violation] = constraints_of(trial).values()
    assert violation == pytest.approx(2 + smallest(sweep).needed_bytes / 1e9)
    assert trial.user_attrs["reason"].endswith("the budget is -2.00 GB")


def test_trial_that_does_not_fit_is_no_result(sweep):
    sweep.context.budget_bytes = 0
    infeasible, _ = run_next(sweep, {})
    assert count_finished(sweep.study) == 0
    assert trial_row(infeasible).state == "infeasible"
    sweep.context.budget_bytes = 1e12
    run_next(sweep, {})
    assert count_finished(sweep.study) == 1
    rows = leaderboard(sweep.study)
    assert [(row.label, row.state) for row in rows] == [("1", "complete"), ("0", "infeasible")]
    assert rows[1].reason == infeasible.user_attrs["reason"]


def test_only_settings_that_do_not_fit_are_left_out(sweep):
    small, large = (smallest(sweep, **{"lora_parameters.rank": r}).needed_bytes for r in (2, 4))
    sweep.context.budget_bytes = (small + large) / 2
    states = [run_next(sweep, {"lora_parameters.rank": rank})[0].state for rank in (2, 4)]
    assert states == [TrialState.COMPLETE, TrialState.PRUNED]


def test_trial_is_executed_in_parts_where_memory_is_short(sweep):
    whole, whole_dir = run_next(sweep, {})
    sweep.context.budget_bytes = smallest(sweep).needed_bytes
    # Other dropout would be drawn for parts; a continued trial would not train at all.
    parts, parts_dir = run_next(sweep, {"learning_rate": 1.001e-3})
    plan = parts.user_attrs["plan"]
    assert plan["micro_batch"] == 1
    assert plan["text"].startswith("1 at a time")
    assert plan["peak_bytes"] < whole.user_attrs["plan"]["peak_bytes"]
    first, second = (
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (whole_dir, parts_dir)
    )
    assert [line["iteration"] for line in first] == [line["iteration"] for line in second]
    assert second[-1]["val_loss"] == pytest.approx(first[-1]["val_loss"], rel=0.01)


def test_accumulated_batches_run_as_one_and_are_noted_so(sweep, monkeypatch):
    sweep.context.frozen.set_budget = lambda _: None  # else frozen blocks count in the peak
    # Of its lengths the tiny data would be padded too much.
    monkeypatch.setitem(trial_plan._STEP_TOKENS, "cpu", 10_000)
    changes = {"grad_accumulation_steps": 4, "batch_size": 2, "steps_per_report": 4}
    lora = sweep.spec.train.lora_parameters.model_copy(update={"dropout": 0.0})
    train = sweep.spec.train.model_copy(update={**changes, "lora_parameters": lora})
    sweep.context.spec = sweep.spec.model_copy(update={"train": train})
    trial, [observed] = noted(sweep, monkeypatch)
    plan = trial.user_attrs["plan"]
    assert (plan["micro_batch"], plan["text"]) == (8, "4 batches as one")
    assert observed.execution.micro_batch == observed.step.rows == 8
    assert observed.peak_bytes == trial.user_attrs["peak_memory_bytes"]


def test_death_queues_the_settings_once_for_a_smaller_plan(sweep):
    first, _ = run_next(sweep, {}, dies=True)
    died_of = first.user_attrs["plan"]["peak_bytes"]
    assert ran_out_of_memory(sweep.study, first.number) is True
    assert sweep.study.user_attrs[MEMORY_FACTOR] == pytest.approx(1.15)
    [waiting] = sweep.study.get_trials(states=(TrialState.WAITING,))
    assert waiting.user_attrs == {"below_bytes": died_of, "repeats": 0}
    again, _ = run_next(sweep, dies=True)
    assert again.number == waiting.number
    assert again.params == first.params
    assert again.user_attrs["plan"]["peak_bytes"] < died_of
    assert ran_out_of_memory(sweep.study, again.number) is False
    assert sweep.study.user_attrs[MEMORY_FACTOR] == pytest.approx(1.15**2)
    assert sweep.study.get_trials(states=(TrialState.WAITING,)) == []


def test_repeat_for_which_there_is_no_smaller_plan_says_so(sweep):
    sweep.context.budget_bytes = smallest(sweep).needed_bytes
    first, _ = run_next(sweep, {}, dies=True)
    ran_out_of_memory(sweep.study, first.number)
    again, folder = run_next(sweep)
    assert again.state == TrialState.PRUNED
    assert again.user_attrs["infeasible"] is True
    assert again.user_attrs["reason"] == (
        "ran out of memory, and there is no smaller way to execute it"
    )
    [violation] = constraints_of(again).values()
    assert violation > 0
    assert not (folder / "metrics.jsonl").exists()


def test_trial_without_a_predicted_plan_is_not_repeated(sweep):
    sweep.context.memory = None
    unknown, _ = run_next(sweep, {})
    assert unknown.state == TrialState.COMPLETE
    assert ran_out_of_memory(sweep.study, unknown.number) is False
    assert MEMORY_FACTOR not in sweep.study.user_attrs
    assert sweep.study.get_trials(states=(TrialState.WAITING,)) == []


def noted(sweep, monkeypatch, **settings):
    """What a trial adds to the calibration."""
    found = []
    monkeypatch.setattr(run, "note_trial", lambda path, observed: found.append(observed))
    trial, _ = run_next(sweep, settings)
    return trial, found


def test_whole_trial_notes_its_peak_at_the_largest_step_that_it_trained_on(sweep, monkeypatch):
    sweep.context.frozen.set_budget = lambda _: None  # else frozen blocks count in the peak
    trial, [observed] = noted(sweep, monkeypatch)
    assert observed.peak_bytes == trial.user_attrs["peak_memory_bytes"]
    assert observed.train == train_of(sweep, grad_checkpoint=False)
    # 8 batches of 4 are more than an epoch of 24: the longest was among them.
    largest = sweep.context.workload().largest_step(4, 4)
    assert (observed.step.rows, observed.step.width) == (4, largest.width)


def test_trial_that_saw_short_examples_only_does_not_pass_for_one_that_saw_all(sweep, monkeypatch):
    sweep.context.frozen.set_budget = lambda _: None
    lengths = sweep.context.workload().lengths
    shortest = tuple(lengths.argsort(kind="stable")[:4].tolist())
    sweep.context.order = lambda train: iter([shortest] * train.iters)
    _, [observed] = noted(sweep, monkeypatch)
    largest = sweep.context.workload().largest_step(4, 4)
    assert observed.step.width < largest.width


@pytest.mark.parametrize("what", ["frozen", "stopped"])
def test_trial_whose_peak_is_not_its_own_notes_nothing(sweep, monkeypatch, what):
    if what == "stopped":
        sweep.context.frozen.set_budget = lambda _: None
        changes = {"early_stopping_patience": 1, "early_stopping_threshold": 100.0}
        train = sweep.spec.train.model_copy(update=changes)
        sweep.context.spec = sweep.spec.model_copy(update={"train": train})
    trial, found = noted(sweep, monkeypatch, iters=12)
    assert trial.state == TrialState.COMPLETE
    assert found == []
