import io
import math
import re

import numpy as np
import pytest

from hawsweep.machine import memory
from hawsweep.planning.sweep_plan import plan_sweep
from hawsweep.planning.sweep_time import Timing, generation_s, time_plan, time_sweep
from hawsweep.planning.workload import n_held_out
from hawsweep.spec.read import check_sweep
from hawsweep.views.terminal.plan import plans_picture
from hawsweep.views.terminal.text import Console

GEMMA = "mlx-community/gemma-3-4b-it-4bit"


@pytest.fixture(autouse=True)
def mac(monkeypatch):
    machine = memory.Machine(128 * 10**9, 100 * 10**9, gpu_bytes=96 * 10**9)
    monkeypatch.setattr("hawsweep.machine.backend.device_here", lambda: "metal")
    monkeypatch.setattr(memory, "this_machine", lambda: machine)


def plan(**changes):
    content = {
        "model": GEMMA,
        "data": "phrasebook",
        "train": {"batch_size": 1, "iters": 1000, "steps_per_eval": 100, "mask_prompt": True},
        "search": {"learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}},
        "validation": {"max_examples": 50},
        "pruning": {"name": "none"},
        "scoring": {"max_examples": 32, "max_tokens": 64},
        "confirm": {"top": 0},
        "trials": 10,
    }
    return plan_sweep(check_sweep({**content, **changes}, "a sweep"), data_pairs=500)


def time(**changes):
    return time_sweep(plan(**changes), n_valid=100, n_test=100, answer_tokens=20)


def test_whole_is_the_sum_of_its_parts():
    timing = Timing(5, 10, 100, 20, 30, 40, 10, 4, 2, 300, 7)
    assert timing.trial_s == 150
    # Base, six whole trials and four pruned ones by two workers, one of which waits half a trial.
    assert timing.trials_s == (10 + 6 * 150 + 4 * 40 + 75) / 2
    assert timing.total_s == 5 + timing.trials_s + 300 + 7
    assert timing.after_s == 157
    assert timing.baselines_s == 10 / 2 + 7


def test_evaluation_costs_half_of_training_on_as_many_tokens():
    timing = time()
    # 1000 iterations of one example beside ten evaluations of 50.
    assert timing.evaluations_s == pytest.approx(timing.train_s * 10 * 50 / 1000 / 2)
    # As many as take 15 % of a trial's time, at least 16.
    auto = time(validation={"max_examples": "auto"})
    assert auto.evaluations_s == pytest.approx(0.15 / 0.85 * auto.train_s, rel=0.05)
    often = {"train": {"batch_size": 1, "iters": 1000, "steps_per_eval": 10, "mask_prompt": True}}
    fewest = time(**often, validation={"max_examples": "auto"})
    assert fewest.evaluations_s == pytest.approx(fewest.train_s * 100 * 16 / 1000 / 2)


def test_trials_there_is_time_for_leave_time_for_all_around_them():
    timing = Timing(5, 10, 100, 20, 30, 40, 10, 4, 2, 300, 7)
    # Start, base shared by two workers, new seeds and test take 317 s of it; a trial 150 s.
    assert timing.n_trials_within(317 + 150 / 2 * 3) == 3
    assert timing.n_trials_within(317 + 150 / 2 * 3 - 1) == 2
    assert timing.n_trials_within(100) == 0


def test_plan_of_data_that_is_not_here_counts_what_the_sweep_asks_for():
    known = plan()
    assert time_plan(known, data_pairs=500) == time_sweep(known, 100, 64, 1023)
    here = plan_sweep(known.spec)
    n_valid, n_test = n_held_out(here.spec)
    assert (n_valid, n_test) == (206, 206)  # the phrase book's
    longest_answer = float(np.quantile(here.work.n_targets, 0.98))
    assert time_plan(here) == time_sweep(here, 206, 206, longest_answer)


def test_trials_are_pruned_after_the_warmup_where_there_are_enough_to_compare():
    pruning = {"name": "median", "n_startup_trials": 4, "n_warmup_steps": 200}
    timing = time(pruning=pruning)
    assert timing.n_pruned == 3  # half of the other six
    # At the evaluation at 200, or half an interval later.
    assert timing.pruned_s == pytest.approx(0.25 * (timing.train_s + timing.evaluations_s))
    assert time().n_pruned == 0
    assert time(pruning={**pruning, "n_warmup_steps": 1000}).n_pruned == 0
    kept = {**pruning, "name": "percentile", "percentile": 20.0}
    assert time(pruning=kept).n_pruned == math.floor(6 * 0.8)


def test_runs_with_new_seeds_take_whole_trials():
    timing = time(confirm={"top": 2, "seeds": 3})
    assert timing.again_s == pytest.approx(6 * timing.trial_s)
    assert time().again_s == 0


def test_without_test_split_and_examples_in_the_prompt_less_is_answered():
    planned = plan()
    with_test = time_sweep(planned, 100, 100, 20)
    assert time_sweep(planned, 100, 0, 20).test_s == 0
    bare = time(scoring={"max_examples": 32, "max_tokens": 64, "prompt": {"examples": 0}})
    assert bare.base_s < with_test.base_s
    assert bare.answers_s == pytest.approx(with_test.answers_s)


def test_each_prompt_of_the_untuned_model_takes_its_time_on_the_validation_prompts_alone():
    scoring = {"max_examples": 32, "max_tokens": 64}
    one, bare, five = (
        time(scoring={**scoring, "prompt": asked})
        for asked in (
            {"examples": 4},
            {"examples": 0},
            {"examples": [0, 4], "instructions": ["One.", "Two. {prompt}"]},
        )
    )
    assert bare.prompts_s == 0
    assert one.base_s == pytest.approx(bare.base_s + one.prompts_s)
    # Three prompts with four examples, two with none, which are read faster.
    assert 3 * one.prompts_s < five.prompts_s < 5 * one.prompts_s
    assert five.base_s == pytest.approx(bare.base_s + five.prompts_s)
    assert five.test_s == pytest.approx(one.test_s)


def test_plan_says_how_many_prompts_take_how_long():
    asked = {"examples": [0, 4], "instructions": ["One.", "Two. {prompt}"]}
    (line,) = (
        each
        for each in printed(plan(scoring={"prompt": asked}))
        if "the untuned model takes" in each
    )
    assert "to answer with 5 prompts (scoring.prompt)." in line
    assert not any("(scoring.prompt)" in each for each in printed(plan()))


@pytest.mark.parametrize(
    ("share", "says"),
    [
        (2.0, r"That is within the timeout of [^;]*\.$"),
        (0.9, r"Within the timeout of .* about \d+ of the \d+ settings begin"),
        (1e-4, r"no whole trial fits beside .*: raise it, or lower train\.iters"),
    ],
)
def test_plan_says_whether_the_timeout_is_enough(share, says):
    whole = time_sweep(plan(), 100, 100, 20).total_s
    lines = printed(plan(timeout=max(1.0, share * whole)))
    assert sum(bool(re.search(says, line)) for line in lines) == 1


def test_plan_says_how_many_begin_before_the_last_quarter():
    promotes = {"pruning": {"name": "promote"}}
    whole = time_sweep(plan(**promotes), 100, 100, 20).total_s
    for share, expected in ((1.02, 1), (2.0, 0)):
        text = " ".join(printed(plan(**promotes, timeout=share * whole)))
        found = re.findall(r"That is within [^.]*; about (\d+) begin before its last quarter", text)
        assert len(found) == expected
        assert all(5 <= int(n) < 10 for n in found)


def printed(planned):
    console = Console(file=io.StringIO(), width=300)
    console.print(plans_picture([(planned, time_sweep(planned, 100, 100, 20))]))
    return console.file.getvalue().splitlines()


def test_answers_take_time_by_batch_and_by_token():
    known = plan().memory
    # Nothing to read to speak of: as many times the tokens of the longest as there are batches.
    one, two = (generation_s(known, n, 16, 1e-9, 50) for n in (16, 32))
    assert two == pytest.approx(2 * one)
    assert generation_s(known, 16, 16, 1e-9, 100) == pytest.approx(2 * one)
    assert generation_s(known, 16, 16, 500, 50) > one
    assert generation_s(known, 0, 16, 500, 50) == 0


def test_model_that_was_never_measured_is_measured_first():
    timing, weights = time(), plan().memory.shape.weight_bytes()
    assert not plan().memory.is_calibrated
    assert timing.start_s == pytest.approx(30 + weights / 5e8 + 90)
