"""Which setting is proposed next, by what trials have shown."""

import math

import pytest
from optuna.samplers import RandomSampler, TPESampler
from optuna.trial import TrialState, create_trial

from hawsweep.search.coordinates import most_trials
from hawsweep.search.distributions import distributions
from hawsweep.search.sampler import (
    GaussianProcessSampler,
    make_sampler,
    n_untried,
    observe,
    propose,
)
from hawsweep.spec.read import check_sweep
from hawsweep.study.place import Place
from hawsweep.study.storage import open_storage
from hawsweep.study.study import create_study, load_study

RATE, RANK = "learning_rate", "lora_parameters.rank"
ITERS = 100
SPACE = {
    RATE: {"low": 1e-5, "high": 1e-3, "log": True},
    RANK: {"choices": [4, 8, 16]},
}
SMALL = {RATE: {"choices": [1e-4, 3e-4]}, RANK: {"choices": [4, 8]}}


def sweep(search=SPACE, **changes):
    train = {} if "iters" in search else {"iters": ITERS}
    content = {"model": "some/model", "data": "phrasebook", "search": search, "train": train}
    return check_sweep({**content, **changes}, "a sweep")


def trial(settings, losses=None, state=TrialState.COMPLETE, search=SPACE, **attributes):
    """A trial with validation losses by iteration."""
    is_done = state == TrialState.COMPLETE
    waits = state == TrialState.WAITING
    return create_trial(
        state=state,
        value=0.5 if is_done else None,
        params={} if waits else settings,
        distributions={} if waits else distributions(sweep(search).search),
        system_attrs={"fixed_params": settings} if waits else {},
        user_attrs=attributes,
        intermediate_values={step: -loss for step, loss in (losses or {}).items()},
    )


def numbered(*trials):
    for number, each in enumerate(trials):
        each.number = number
    return list(trials)


def of(rate, rank=8):
    return {RATE: rate, RANK: rank}


def bowl(rate, rank, best=2e-4):
    """A loss that is lowest at a rate, and a little lower with a higher rank."""
    return 2.0 * (1 + 0.1 * math.log10(rate / best) ** 2 - 0.01 * math.log2(rank / 4))


def ended(settings):
    return trial(settings, {ITERS: bowl(settings[RATE], settings[RANK])})


def last_seen(trials):
    return [each for each in observe(trials, ITERS) if each.is_last]


def test_losses_are_compared_with_the_leaders_at_the_same_iteration():
    trials = numbered(
        trial(of(1e-4), {50: 2.0, 100: 1.0}),
        trial(of(2e-4), {50: 2.2}, TrialState.PRUNED),
        trial(of(3e-4), {50: 1.9, 100: 1.1}),
        trial(of(4e-4), {50: 1.8}, TrialState.RUNNING),
    )
    found = [each.loss for each in last_seen(trials)]
    # At 100 each has the geometric mean of its two.
    at_100 = math.log(1.9 * 1.1 / (2.0 * 1.0)) / 2
    expected = [0, math.log(2.2 / 2), at_100, math.log(1.8 / 2)]
    assert found == pytest.approx(expected)


def test_trials_result_is_its_lowest_loss_until_then():
    trials = numbered(trial(of(1e-4), {50: 1.0, 100: 3.0}), trial(of(2e-4), {50: 1.02, 100: 1.02}))
    assert [each.loss for each in last_seen(trials)] == pytest.approx([0, math.log(1.02)])


def test_trials_whose_evaluations_fluctuate_are_trusted_less():
    calm, uneasy = (
        numbered(*(trial(of(r), {20: 1.0, 40: high, 60: 1.0, 100: high}) for r in (1e-4, 2e-4)))
        for high in (1.0, 1.05)
    )
    assert last_seen(calm)[0].noise < last_seen(uneasy)[0].noise


def test_earlier_losses_are_trusted_less():
    curves = {n: dict.fromkeys(range(20, 20 * n + 1, 20), 1.0) for n in (5, 3, 1)}
    trials = numbered(*(trial(of(1e-4 * n), each, TrialState.PRUNED) for n, each in curves.items()))
    whole, most, early = (each.noise for each in last_seen(trials))
    assert whole < most < early


def test_trial_that_ended_for_want_of_improvement_is_compared_at_the_end():
    """As with early stopping: its last loss was lower than the leader's at that time."""
    trials = numbered(trial(of(1e-4), {50: 1.0, 100: 0.81}), trial(of(8e-4), {50: 0.95}))
    leader, other = last_seen(trials)
    assert (leader.loss, other.loss) == (0, pytest.approx(math.log(0.95 / 0.9)))
    assert other.noise == leader.noise


def test_trials_of_other_lengths_are_compared_at_equal_shares():
    search = {RATE: SPACE[RATE], "iters": {"choices": [100, 200]}}
    short, long = ({RATE: 1e-4, "iters": each} for each in (100, 200))
    trials = numbered(
        trial(short, {50: 2.0, 100: 1.0}, search=search),
        trial(long, {50: 3.0, 100: 1.4, 200: 1.6}, search=search),
    )
    found = [each for each in observe(trials, 100) if each.number == 1]
    # At a quarter the shorter one has no evaluation.
    at_half, at_end = math.sqrt(3 * 1.4) / 2, math.sqrt(1.4 * 1.6 / 2)
    assert [each.loss for each in found] == pytest.approx([math.log(at_half), math.log(at_end)])


def test_earlier_losses_say_how_lower_rates_come_down():
    curve = dict.fromkeys(range(5, 101, 5), 1.0)
    trials = numbered(trial(of(4e-4), curve), trial(of(2e-4), curve), trial(of(1e-5), curve))
    found = observe(trials, ITERS)
    assert [each.number for each in found] == [0] * 4 + [1] * 4 + [2] * 4
    assert [each.lag for each in found if each.is_last] == [0, 0, 0]
    lags = [each.lag for each in found if each.number == 1]
    # At 10, 25 and 50 of 100: an eighth falls between two evaluations.
    below = math.log10(2) * math.exp(-0.5 * (math.log10(2) / 0.6) ** 2)
    expected = [below * math.log2(100 / step) / 3 for step in (10, 25, 50, 100)]
    assert lags == pytest.approx(expected)
    assert abs(found[8].lag) < lags[0] / 4  # far away nothing is expected


def test_of_many_trials_the_best_and_newest_keep_what_was_seen_earlier():
    curve = dict.fromkeys(range(5, 101, 5), 1.0)
    trials = numbered(*(trial(of(1e-5 * (1 + n / 100)), curve) for n in range(150)))
    found = observe(trials, ITERS)
    assert len(found) == 200
    assert sum(each.is_last for each in found) == 150
    early = {each.number for each in found if not each.is_last}
    assert len(early) == 17  # three each, of the first in order


def test_setting_trained_again_counts_with_the_mean_of_its_runs_and_is_known_better():
    lucky, other = trial(of(1e-4), {50: 2.0, 100: 1.0}), trial(of(2e-4), {50: 2.0, 100: 1.05})
    losses = ({50: 2.0, 100: 1.21}, {50: 2.0, 100: 1.44}, {50: 1.5})  # the last ended early
    again = [trial(of(1e-4), each, confirms=0, seed=n) for n, each in enumerate(losses)]
    again.append(again[1])  # its worker was thought dead
    again.append(trial(of(1e-4), {50: 9.0}, confirms=0, seed=7, iters=50))  # extended since
    found = observe(numbered(lucky, other), ITERS, again)
    own, others = (each for each in found if each.is_last)
    # Each of the first three is averaged with the 2.0 before it.
    of_runs = (math.sqrt(2 * 1.0 * 2 * 1.21 * 2 * 1.44) * 1.5) ** (1 / 4)
    assert others.loss == 0  # it leads now
    assert own.loss == pytest.approx(math.log(of_runs / math.sqrt(2 * 1.05)))
    assert own.noise == pytest.approx(others.noise / math.sqrt(4))


def test_loss_before_the_first_step_says_nothing():
    trials = numbered(trial(of(1e-4), {0: 3.0}), trial(of(2e-4), {100: 1.0}))
    assert [each.number for each in observe(trials, ITERS)] == [1]


@pytest.mark.parametrize("loss", [40.0, math.inf, math.nan])
def test_divergence_counts_no_more_than_being_far_behind(loss):
    trials = numbered(trial(of(1e-4), {100: 1.0}), trial(of(1e-3), {100: loss}))
    far = last_seen(numbered(trials[0], trial(of(1e-3), {100: 1.5})))[1]
    assert last_seen(trials)[1] == far


def test_proposals_find_the_best_rate():
    spec, trials = sweep(), [ended(of(rate, 16)) for rate in (1e-5, 1e-3)]
    for seed in range(6):
        trials.append(ended(propose(spec, numbered(*trials), seed)))
    losses = [bowl(each.params[RATE], each.params[RANK]) for each in trials]
    best = bowl(2e-4, 16)
    assert min(losses) / best < 1.002
    assert losses[2] != min(losses)  # it was found, not met


def test_proposal_depends_on_trials_and_seed_alone():
    trials = numbered(*(ended(of(rate)) for rate in (1e-5, 1e-4, 1e-3)))
    assert propose(sweep(), trials, 3) == propose(sweep(), trials, 3)
    assert propose(sweep(), [], 3) == propose(sweep(), [], 3)
    assert propose(sweep(), [], 3) != propose(sweep(), [], 4)


def test_trials_that_have_shown_nothing_yet_are_kept_away_from():
    spec = sweep()
    trials = [ended(of(rate, rank)) for rate in (1e-5, 1e-4, 1e-3) for rank in (4, 16)]
    for state in (TrialState.RUNNING, TrialState.WAITING, TrialState.RUNNING):
        trials.append(trial(propose(spec, numbered(*trials), 0), state=state))
    settings = [*({**t.system_attrs.get("fixed_params", {}), **t.params} for t in trials[6:])]
    for n, one in enumerate(settings):
        for other in settings[:n]:
            apart = abs(math.log10(one[RATE] / other[RATE]))
            assert apart > 0.1 or one[RANK] != other[RANK]


@pytest.mark.parametrize(
    "state", [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.WAITING]
)
def test_setting_that_a_trial_had_is_never_proposed(state):
    spec, all_four = sweep(SMALL), [of(rate, rank) for rate in (1e-4, 3e-4) for rank in (4, 8)]
    trials, found = [], []
    for seed in range(4):
        assert n_untried(spec, trials) == 4 - seed
        found.append(propose(spec, numbered(*trials), seed))
        trials.append(trial(found[-1], state=state, search=SMALL))
    assert all(each in found for each in all_four)
    assert n_untried(spec, numbered(*trials)) == 0
    assert propose(spec, trials, 9) is None


def test_settings_of_the_memory_of_one_that_did_not_fit_are_left_out():
    spec = sweep(SMALL)
    trials = numbered(trial(of(1e-4, 8), state=TrialState.PRUNED, search=SMALL, infeasible=True))
    found = [propose(spec, trials, seed) for seed in range(10)]
    assert {each[RANK] for each in found} == {4}
    assert n_untried(spec, trials) == 2


def test_fewer_examples_do_not_make_a_setting_fit():
    search = {RANK: {"choices": [4, 8]}, "max_train_samples": {"choices": [100, 200]}}
    settings = {RANK: 8, "max_train_samples": 200}
    trials = [trial(settings, state=TrialState.PRUNED, search=search, infeasible=True)]
    assert n_untried(sweep(search), trials) == 2  # those of the other rank


@pytest.mark.parametrize(
    ("key", "asked", "values"),
    [
        ("iters", {"low": 20, "high": 2000, "step": 20}, range(20, 2001, 20)),
        ("batch_size", {"low": 1, "high": 8, "log": True}, range(1, 9)),
        ("lora_parameters.dropout", {"low": 0, "high": 0.3, "step": 0.1}, [0, 0.1, 0.2, 0.3]),
        ("num_layers", {"low": 4, "high": 4}, [4]),
    ],
)
def test_each_value_of_a_range_of_few_is_tried_before_the_space_is_exhausted(key, asked, values):
    search = {key: asked, "grad_accumulation_steps": {"choices": [1, 2]}}
    spec = sweep(search, trials=1000)
    tried = [
        trial({key: value, "grad_accumulation_steps": n}, search=search)
        for value in values
        for n in (1, 2)
    ]
    assert most_trials(spec) == len(tried)
    n = len(tried)
    assert [n_untried(spec, tried[:k]) for k in (0, 1, n)] == [n, n - 1, 0]
    last = propose(spec, numbered(*tried[:-1]), 0)
    assert last == pytest.approx(tried[-1].params)
    assert last[key] <= values[-1]  # else Optuna replaces it by a value by chance


@pytest.mark.parametrize(("search", "name"), [(SPACE, "gp"), (SMALL, "tpe"), (SMALL, "random")])
def test_space_of_a_range_or_of_a_sampler_that_repeats_is_never_exhausted(search, name):
    rates = [1e-5 * n for n in range(1, 50)] if search is SPACE else [1e-4, 3e-4]
    trials = numbered(*(ended(of(rate, rank)) for rate in rates for rank in (4, 8, 16)))
    assert n_untried(sweep(search, sampler={"name": name}), trials) == math.inf


@pytest.mark.parametrize(
    "settings", [{RATE: 1e-4}, {**of(1e-4), "iters": 5}, of(1e-4, 5), of(1.0), of("x"), of(True)]
)
def test_settings_out_of_the_space_are_looked_over(settings):
    odd = create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": settings}, params={})
    trials = numbered(ended(of(1e-4)), odd)
    assert propose(sweep(), trials, 0) == propose(sweep(), trials[:1], 0)


def test_all_kinds_of_keys_are_proposed():
    search = {
        **SPACE,
        "optimizer": {"choices": ["adam", "muon"]},
        "lora_parameters.dropout": {"low": 0, "high": 0.1},
        "num_layers": {"low": 4, "high": 16},
        "batch_size": {"low": 1, "high": 8, "log": True},
        "iters": {"low": 40, "high": 100, "step": 20},
        "grad_accumulation_steps": {"choices": [1, 2, 4]},
        "lora_parameters.alpha": {"low": 16, "high": 16},
    }
    spec, trials = sweep(search), []
    for seed in range(3):
        proposed = propose(spec, numbered(*trials), seed)
        assert sweep(search, enqueue=[proposed]).enqueue == (proposed,)
        trials.append(trial(proposed, {20: 2.0 - seed}, search=search))


def proposals(study, spec, n_trials):
    """What samplers made anew for each trial propose, as processes of their own would."""
    found = []
    for _ in range(n_trials):
        study.sampler = make_sampler(spec, len(study.get_trials(deepcopy=False)))
        asked = study.ask(distributions(spec.search))
        found.append(asked.params)
        asked.report(-bowl(asked.params[RATE], asked.params[RANK]), ITERS)
        study.tell(asked, asked.params[RATE])
    return found


def make_study(place, spec, name="rates"):
    return create_study(open_storage(place, create=True), place, name, spec, {})[0]


@pytest.mark.parametrize("name", ["gp", "tpe", "random"])
def test_proposals_depend_on_the_seed_and_the_history_alone(place, tmp_path, name):
    spec = sweep(sampler={"name": name, "n_startup_trials": 2})
    first = proposals(make_study(place, spec), spec, 6)
    # The other is closed halfway and goes on.
    other_place = Place(tmp_path / "elsewhere")
    second = proposals(make_study(other_place, spec), spec, 3)
    second += proposals(load_study(open_storage(other_place), "rates", spec), spec, 3)
    assert second == first
    assert len({tuple(params.values()) for params in first}) == 6
    reseeded = sweep(seed=1, sampler={"name": name, "n_startup_trials": 2})
    assert proposals(make_study(place, reseeded, "reseeded"), reseeded, 6) != first


@pytest.mark.parametrize(
    ("name", "kind"),
    [("gp", GaussianProcessSampler), ("tpe", TPESampler), ("random", RandomSampler)],
)
def test_sampler_is_made_by_name(name, kind):
    assert type(make_sampler(sweep(sampler={"name": name}), 0)) is kind


def test_queued_setting_that_lacks_a_key_gets_a_value_for_it(place):
    spec = sweep()
    study = make_study(place, spec)
    study.enqueue_trial({RANK: 4})
    study.sampler = make_sampler(spec, 1)
    asked = study.ask(distributions(spec.search))
    assert asked.params[RANK] == 4
    assert 1e-5 <= asked.params[RATE] <= 1e-3


@pytest.mark.parametrize(
    ("search", "name", "expected"),
    [(SMALL, "gp", 4), (SMALL, "tpe", 12), (SMALL, "random", 12), (SPACE, "gp", 12)],
)
def test_trials_are_no_more_than_the_settings_where_none_is_repeated(search, name, expected):
    assert most_trials(sweep(search, sampler={"name": name}, trials=12)) == expected
