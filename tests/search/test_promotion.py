"""Which paused trials go on, by what others have shown at the same rungs."""

import math

import pytest
from optuna.trial import TrialState, create_trial

from hawsweep.search.curves import gain_at, lowest_so_far
from hawsweep.search.distributions import distributions
from hawsweep.search.promotion import Standing, is_close, next_promoted, tolerance
from hawsweep.search.rungs import expected_ends, promoting_s, rungs
from hawsweep.spec.read import check_sweep

RATE = "learning_rate"
WAITING, RUNNING, COMPLETE, PRUNED, FAIL = (
    getattr(TrialState, name) for name in ("WAITING", "RUNNING", "COMPLETE", "PRUNED", "FAIL")
)


def sweep(pruning="promote", timeout=None, **train):
    train = {"iters": 320, "steps_per_eval": 10, **train}
    search = {RATE: {"low": 1e-5, "high": 1e-2, "log": True}}
    content = {"model": "some/model", "data": "phrasebook", "train": train, "search": search}
    return check_sweep({**content, "pruning": pruning_of(pruning), "timeout": timeout}, "a sweep")


def pruning_of(name):
    return {"name": name}


def study(*trials, rate=1e-3, **attributes):
    """Trials of the states and of the losses by iteration, all with one rate unless said."""
    made = []
    for number, (state, losses, *other) in enumerate(trials):
        made.append(
            create_trial(
                state=state,
                value=0.5 if state == COMPLETE else None,
                params={RATE: other[0] if other else rate},
                distributions=distributions(sweep().search),
                user_attrs=attributes,
                intermediate_values={step: -loss for step, loss in losses.items()},
            )
        )
        made[-1].number = number
    return made


def test_rungs_are_evaluations_at_an_eighth_a_quarter_and_half():
    assert rungs(sweep().train) == {1 / 8: 40, 1 / 4: 80, 1 / 2: 160}
    # 17.5, 35 and 70 of 140, at evaluations each 10; 20 updates at least.
    assert rungs(sweep(iters=140).train) == {1 / 8: 20, 1 / 4: 40, 1 / 2: 70}


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ({"iters": 100}, {1 / 8: 20, 1 / 4: 30, 1 / 2: 50}),
        ({"iters": 60}, {1 / 4: 20, 1 / 2: 30}),  # 10 at an eighth
        ({"iters": 60, "grad_accumulation_steps": 2}, {}),  # 20 updates are 40 iterations
        ({"iters": 320, "lr_schedule": "cosine"}, {1 / 4: 80, 1 / 2: 160}),
        ({"iters": 320, "steps_per_eval": 100}, {1 / 8: 100, 1 / 2: 200}),  # one at 100, not two
        ({"iters": 320, "steps_per_eval": 320}, {}),
    ],
)
def test_rung_too_early_or_without_an_evaluation_of_its_own_is_left_out(train, expected):
    assert rungs(sweep(**train).train) == expected


def test_alone_at_its_rung_a_trial_waits_for_another_to_compare_with():
    assert next_promoted(sweep(), study((WAITING, {40: 2.0}))) is None


def test_better_half_goes_on_the_best_first():
    trials = study(*((WAITING, {40: loss}) for loss in (2.0, 1.0, 3.0, 1.5)))
    assert next_promoted(sweep(), trials) == 1
    trials[1].state = RUNNING
    assert next_promoted(sweep(), trials) == 3
    trials[3].state = RUNNING
    assert next_promoted(sweep(), trials) is None


def test_furthest_goes_on_first():
    trials = study(
        (WAITING, {40: 1.0}),
        (WAITING, {40: 1.2, 80: 1.1}),
        (PRUNED, {40: 2.0, 80: 1.9}),
        (WAITING, {40: 3.0}),
    )
    assert next_promoted(sweep(), trials) == 1


def test_lowest_loss_until_the_rung_counts_not_the_last():
    trials = study((WAITING, {20: 1.0, 40: 2.0}), (WAITING, {20: 1.8, 40: 1.5}))
    assert next_promoted(sweep(), trials) == 0


def test_losses_after_the_rung_do_not_count_at_it():
    trials = study((COMPLETE, {40: 2.0, 320: 0.5}), (WAITING, {40: 1.5}))
    assert next_promoted(sweep(), trials) == 1


def test_trial_that_ended_early_stands_at_later_rungs_with_what_it_reached():
    stopped = (COMPLETE, {40: 1.0})
    assert next_promoted(sweep(), study(stopped, (WAITING, {40: 1.2, 80: 1.1}))) is None
    assert next_promoted(sweep(), study(stopped, (WAITING, {40: 1.2, 80: 0.7}))) == 1


def test_failed_and_infeasible_trials_have_no_place():
    trials = study((WAITING, {40: 2.0}), (FAIL, {40: 3.0}))
    assert next_promoted(sweep(), trials) is None
    trials = study((WAITING, {40: 2.0}), (PRUNED, {40: 3.0}), infeasible=True)
    assert next_promoted(sweep(), trials) is None


def test_diverged_trial_is_never_promoted():
    trials = study((WAITING, {40: math.nan}), (WAITING, {40: math.inf}))
    assert next_promoted(sweep(), trials, may_begin=False) is None


def test_rule_counts_shares_where_lengths_differ():
    search = {RATE: {"choices": [1e-3]}, "iters": {"choices": [160, 320]}}
    spec = check_sweep(
        {
            "model": "some/model",
            "data": "phrasebook",
            "train": {"steps_per_eval": 10, "lr_schedule": "linear"},
            "search": search,
        },
        "a sweep",
    )
    trials = [
        create_trial(
            state=WAITING,
            params={RATE: 1e-3, "iters": iters},
            distributions=distributions(spec.search),
            intermediate_values={iters // 4: -loss},
        )
        for iters, loss in ((160, 1.0), (320, 1.5))
    ]
    for number, each in enumerate(trials):
        each.number = number
    assert next_promoted(spec, trials) == 0


# At an eighth, behind a leader with the same rate whose gain is not known: 3 x .25 % + .05 %.
CLOSE, NOT_CLOSE = 1.0079, 1.0081


def test_close_ones_go_on_once_no_setting_may_begin():
    done = {40: 1.0, 80: 0.9, 160: 0.81, 320: 0.729}  # it does not fluctuate
    for loss, expected in ((CLOSE, 2), (NOT_CLOSE, None)):
        trials = study((COMPLETE, done), (COMPLETE, done), (WAITING, {40: loss}))
        assert next_promoted(sweep(), trials) is None
        assert next_promoted(sweep(), trials, may_begin=False) == expected


AT_END = 0.0005


def test_tolerance_is_larger_for_lower_rates_than_the_leaders():
    def of(ratio):
        return tolerance(ratio, 0.5, gain=0.02) - AT_END

    assert [of(1), of(2)] == pytest.approx([0.0025, 0.005])
    assert of(4) == of(64) == pytest.approx(0.0075)
    assert of(1 / 2) == of(1 / 64) == 0


def test_tolerance_shrinks_with_the_doublings_to_come():
    found = [tolerance(1, share, gain=0.02) - AT_END for share in (1 / 8, 1 / 4, 1 / 2, 1)]
    assert found == pytest.approx([0.0075, 0.005, 0.0025, 0])


@pytest.mark.parametrize(
    ("gain", "limit"), [(0.0, AT_END), (0.02, 0.008), (0.04, 0.0155), (0.2, 0.0185)]
)
def test_leader_that_gains_little_is_not_overtaken_by_much(gain, limit):
    leader = Standing(1.0, 1e-3, gain)
    for behind, expected in ((limit - 1e-5, True), (limit + 1e-5, False)):
        own = Standing(1 + behind, 1e-3, 0.5)
        assert is_close(own, [leader, own], 1 / 8) == expected


@pytest.mark.parametrize(
    ("losses", "step", "gain"),
    [
        ({10: 2.0, 20: 1.9}, 20, 0.05),
        ({20: 2.0, 40: 2.0, 60: 2.0, 80: 2.0}, 80, 0.0),
        ({step: step**-0.5 for step in range(10, 321, 10)}, 320, 0.29),
        ({step: step**-0.5 for step in range(50, 351, 50)}, 150, 0.29),  # none at 75, one at 50
        ({step: step**-0.5 for step in range(100, 401, 100)}, 100, 0.02),  # not known
        ({10: 2.0, 20: 1.0}, 160, 0.0),  # it ended at 20
        ({10: math.inf, 20: 1.0, 30: 1.0, 40: 1.0}, 40, 0.77),  # more than counts
    ],
)
def test_gain_is_that_of_the_last_doubling(losses, step, gain):
    (trial,) = study((COMPLETE, losses))
    assert gain_at(lowest_so_far(trial), step) == pytest.approx(gain, abs=0.015)


def test_leader_that_falls_keeps_one_that_is_a_percent_behind():
    falling = {10: 1.04, 20: 1.04, 30: 1.0, 40: 1.0}
    flat = dict.fromkeys(falling, 1.0)
    paused = {30: 1.011, 40: 1.011}
    for leader, expected in ((falling, 2), (flat, None)):
        trials = study((COMPLETE, leader), (COMPLETE, leader), (WAITING, paused))
        trials += study(*[(PRUNED, {10: 5.0, 20: 5.0, 30: 5.0})] * 4)  # none of them fluctuates
        assert next_promoted(sweep(), trials, may_begin=False) == expected


def test_lower_rate_than_the_leaders_goes_on_from_further_behind():
    done = {40: 1.0, 80: 0.9, 160: 0.81, 320: 0.729}  # it does not fluctuate
    behind = 1.018  # three times .75 % and .05 % are 2.3 %
    for rate, expected in ((1e-3, None), (2.5e-4, 2), (4e-3, None)):
        trials = study((COMPLETE, done), (COMPLETE, done), (WAITING, {40: behind}, rate))
        assert next_promoted(sweep(), trials, may_begin=False) == expected


def test_as_far_behind_as_evaluations_fluctuate_is_close():
    # By about 1 % up and down, so that no single one tells much.
    uneasy = {step: math.exp(-0.01 * (-1) ** (step // 10)) for step in range(10, 321, 10)}
    for behind, expected in ((1.015, 2), (1.03, None)):
        trials = study((COMPLETE, uneasy), (COMPLETE, uneasy), (WAITING, {30: behind, 40: behind}))
        assert next_promoted(sweep(), trials, may_begin=False) == expected


def test_two_are_trained_whole_however_far_the_second_is_behind():
    done = {40: 1.0, 80: 0.9, 160: 0.81, 320: 0.729}  # it does not fluctuate
    trials = study((COMPLETE, done), (WAITING, {40: 5.0}), (WAITING, {40: 4.0, 80: 4.0}))
    assert next_promoted(sweep(), trials) is None
    assert next_promoted(sweep(), trials, may_begin=False) == 2
    trials[2].state = RUNNING
    assert next_promoted(sweep(), trials, may_begin=False) is None


def test_trials_that_paused_before_another_pruner_was_asked_for_go_on():
    trials = study((COMPLETE, {40: 1.0}), (WAITING, {40: 5.0}))
    assert next_promoted(sweep("none"), trials) == 1
    assert next_promoted(sweep("none"), trials[:1]) is None


def test_queued_settings_are_not_promoted():
    assert next_promoted(sweep(), study((WAITING, {}), (WAITING, {}))) is None


def test_nothing_begins_in_the_last_quarter_of_the_time():
    assert promoting_s(sweep(timeout="8h")) == 2 * 3600
    assert promoting_s(sweep(timeout="8h", steps_per_eval=320)) == 0  # none can pause
    assert promoting_s(sweep()) == promoting_s(sweep("median", timeout="8h")) == 0


def test_about_half_are_expected_past_each_rung_and_two_to_the_end():
    # Of 24 .55 are 14 past 40, 8 of these past 80, 5 past 160.
    assert expected_ends(sweep().train, 24) == {40: 10, 80: 6, 160: 3, 320: 5}
    assert expected_ends(sweep().train, 3) == {40: 1, 80: 0, 160: 0, 320: 2}
    assert expected_ends(sweep(steps_per_eval=320).train, 7) == {320: 7}
