"""Which trials are trained again, and what their new scores decide."""

import optuna
import pytest
from asked_trial import next_trial
from optuna.trial import TrialState, create_trial

from hawsweep.results.leaderboard import leaderboard, list_studies
from hawsweep.results.what_is_left import find_remaining
from hawsweep.search.distributions import distributions
from hawsweep.search.sampler import make_sampler, propose
from hawsweep.spec.read import check_sweep
from hawsweep.study.confirm import (
    conclude,
    confirmations,
    expected_s,
    n_waiting,
    open_confirmation,
    queue,
    winner,
)
from hawsweep.study.place import Place
from hawsweep.study.queue import ran_out_of_memory, repeat_trial
from hawsweep.study.storage import open_storage, study_names
from hawsweep.study.study import create_study, newest

SEARCH = {"learning_rate": {"low": 1e-5, "high": 1e-2}}
DATA = {"train": "1:a", "valid": "1:b", "test": "1:c"}


def spec_with(**changes):
    content = {"model": "tiny", "data": "phrasebook", "search": SEARCH, **changes}
    return check_sweep(content, "a sweep")


class Sweep:
    """A study with the given scores, and the one that confirms it."""

    def __init__(self, place, scores, **changes):
        self.spec = spec_with(**changes)
        self.space = distributions(self.spec.search)
        self.place, self.storage = place, open_storage(place, create=True)
        self.study, _ = create_study(self.storage, place, "s", self.spec, DATA)
        for score in scores:
            self.add(score)
        self.confirming = open_confirmation(self.storage, self.study, self.spec)

    def add(self, score, losses=None, **attributes):
        state = TrialState.COMPLETE if score is not None else TrialState.PRUNED
        values = {"learning_rate": 1e-4 * (1 + len(self.study.trials))}
        self.study.add_trial(
            create_trial(
                state=state,
                params=values,
                distributions=self.space,
                value=score,
                user_attrs=attributes,
                intermediate_values={step: -loss for step, loss in (losses or {}).items()},
            )
        )

    def queue(self):
        queue(self.study, self.confirming, self.spec)
        return [
            (trial.user_attrs["confirms"], trial.user_attrs["seed"])
            for trial in self.confirming.get_trials(deepcopy=False)
        ]

    def next_run(self):
        return next_trial(self.confirming, self.space, self.place.study_dir("s"))

    def run(self, *scores):
        """Give the waiting runs these scores, in their order."""
        ran = []
        for score in scores:
            trial = self.next_run()
            ran.append((trial.user_attrs["confirms"], trial.user_attrs["seed"], trial.params))
            state = TrialState.FAIL if score is None else TrialState.COMPLETE
            self.confirming.tell(trial, score, state=state)
        return ran

    def conclude(self):
        return conclude(self.study, self.confirming, self.spec)


@pytest.fixture
def sweep(tmp_path):
    return lambda *scores, **changes: Sweep(Place(tmp_path), scores, **changes)


def test_best_trials_are_queued_once_with_seeds_of_their_own(sweep):
    made = sweep(0.1, 0.5, None, 0.3, 0.4, confirm={"top": 2, "seeds": 2})
    wanted = [(1, 1), (1, 2), (4, 1), (4, 2)]
    assert made.queue() == wanted
    assert made.queue() == wanted
    ran = made.run(0.1, 0.2)
    assert [each[:2] for each in ran] == wanted[:2]
    assert ran[0][2] == made.study.trials[1].params
    assert n_waiting(made.confirming) == 2


@pytest.mark.parametrize(
    ("scores", "changes"), [([0.5], {}), ([], {}), ([0.5, 0.6], {"confirm": {"top": 0}})]
)
def test_nothing_is_queued_where_there_is_no_choice(sweep, scores, changes):
    made = sweep(*scores, **changes)
    assert made.queue() == []
    assert made.conclude() == []
    assert (winner(made.study) is None) is (not scores)


def test_winner_is_the_best_by_new_seeds(sweep):
    made = sweep(0.50, 0.60, 0.55, confirm={"top": 2, "seeds": 2})
    assert winner(made.study).number == 1
    made.queue()
    made.run(0.40, 0.50, 0.54, 0.52)
    found = made.conclude()
    assert [(each.trial_number, each.selected, each.scores) for each in found] == [
        (2, 0.55, (0.54, 0.52)),
        (1, 0.60, (0.40, 0.50)),
    ]
    assert found[1].mean == pytest.approx(0.45)
    assert confirmations(made.study) == found
    assert winner(made.study).number == 2
    rows = {row.label: row.confirmed for row in leaderboard(made.study)}
    assert rows == {"0": None, "1": found[1].mean, "2": found[0].mean}


def test_setting_that_two_trials_have_is_confirmed_once(sweep):
    made = sweep(0.3, 0.5, 0.4, confirm={"top": 2, "seeds": 1})
    made.study.add_trial(
        create_trial(value=0.49, params=made.study.trials[1].params, distributions=made.space)
    )
    assert made.queue() == [(1, 1), (2, 1)]


def test_new_seeds_count_in_what_is_known_and_in_what_is_proposed(sweep):
    near = {"learning_rate": {"low": 5e-5, "high": 4e-4, "log": True}}
    made = sweep(confirm={"top": 1, "seeds": 2}, train={"iters": 100}, search=near)
    for score, loss in ((0.5, 1.02), (0.6, 1.0), (0.4, 1.1)):
        made.add(score, {100: loss})
    assert find_remaining(made.study, made.spec).belief.leader == 1
    alone = propose(made.spec, made.study.trials, 3)
    made.queue()
    for _ in range(2):
        run = made.next_run()
        run.report(-1.08, 100)
        made.confirming.tell(run, 0.5)
    assert find_remaining(made.study, made.spec).belief.leader == 0
    made.study.sampler = make_sampler(made.spec, 3)
    assert made.study.ask(made.space).params != alone


def test_failed_runs_do_not_count(sweep):
    made = sweep(0.5, 0.6, confirm={"top": 2, "seeds": 2})
    made.queue()
    made.run(None, 0.3, None, None)
    assert [(each.trial_number, each.scores) for each in made.conclude()] == [(1, (0.3,))]


def test_later_trials_are_confirmed_too(sweep):
    made = sweep(0.5, 0.6, confirm={"top": 1, "seeds": 1})
    assert made.queue() == [(1, 1)]
    made.run(0.55)
    made.conclude()
    left = [find_remaining(made.study, made.spec).again_left]
    made.add(0.7)
    left.append(find_remaining(made.study, made.spec).again_left)
    assert made.queue() == [(1, 1), (2, 1)]
    left.append(find_remaining(made.study, made.spec).again_left)
    made.run(0.52)
    found = made.conclude()
    left.append(find_remaining(made.study, made.spec).again_left)
    assert left == [0, 1, 1, 0]
    # The one confirmed before is still the best by new seeds.
    assert [(each.trial_number, each.scores) for each in found] == [(1, (0.55,)), (2, (0.52,))]


def test_trial_that_others_overtook_before_it_was_confirmed_does_not_count(sweep):
    """Its adapter may have been removed meanwhile."""
    made = sweep(0.5, 0.6, confirm={"top": 1, "seeds": 1})
    made.queue()
    made.run(0.55)
    made.add(0.7)
    made.queue()
    made.run(0.52)
    assert [each.trial_number for each in made.conclude()] == [2]


def test_runs_of_a_trial_that_was_extended_since_do_not_count(sweep, monkeypatch):
    made = sweep(0.5, 0.6, confirm={"top": 1, "seeds": 1})
    made.queue()
    made.run(0.55)
    trials = made.study.get_trials()
    trials[1].set_user_attr("iters", 3000)
    monkeypatch.setattr(made.study, "get_trials", lambda **_: trials)
    assert made.conclude() == []


def test_time_to_train_again_is_that_of_the_best_trials(sweep):
    made = sweep(confirm={"top": 2, "seeds": 3})
    assert expected_s(made.study, made.spec, 1) == 0
    for score, seconds in ((0.5, 100.0), (0.6, 40.0), (0.1, 7.0)):
        made.add(score, train_time_s=seconds, eval_time_s=7.0, score_time_s=3.0)
    assert expected_s(made.study, made.spec, 1) == 3 * (110 + 50)
    assert expected_s(made.study, made.spec, 2) == 3 * (110 + 50) / 2
    made.queue()
    made.run(0.5, 0.5, 0.5, 0.5, None)  # one that failed is not made again; the last waits

    def known():
        runs = made.confirming.get_trials(deepcopy=False)
        return expected_s(made.study, made.spec, 1, runs)

    assert known() == 110
    made.run(0.5)
    assert known() == 0
    made.add(0.9, train_time_s=10.0, eval_time_s=10.0)  # it takes the place of the second
    assert known() == 3 * 20


def test_seed_is_kept_where_a_run_is_repeated(sweep):
    made = sweep(0.5, 0.6, confirm={"top": 1, "seeds": 1})
    made.queue()
    first = made.next_run()
    repeat_trial(made.confirming, first.number)
    made.confirming.tell(first, state=TrialState.FAIL)
    again = made.next_run()
    again.set_user_attr("plan", {"peak_bytes": 7})
    assert ran_out_of_memory(made.confirming, again.number)
    made.confirming.tell(again, state=TrialState.FAIL)
    assert made.run(0.4) == [(1, 1, first.params)]
    assert [each.scores for each in made.conclude()] == [(0.4,)]


def test_seed_that_ran_twice_counts_once(sweep):
    made = sweep(0.5, 0.6, confirm={"top": 1, "seeds": 2})
    made.queue()
    made.run(0.4, 0.2)
    twice = {"confirms": 1, "seed": 2}
    made.confirming.add_trial(create_trial(value=0.3, user_attrs=twice))
    assert [each.scores for each in made.conclude()] == [(0.4, 0.3)]


def test_confirming_study_is_not_listed_and_goes_with_its_own(sweep, tmp_path):
    made = sweep(0.5, 0.6)
    assert study_names(made.storage) == ["s"]
    assert [each.name for each in list_studies(made.storage, made.place)] == ["s"]
    assert newest(made.storage, made.place) == "s"
    made.queue()
    optuna.delete_study(study_name="s", storage=made.storage)
    create_study(made.storage, Place(tmp_path), "s", made.spec, DATA)
    assert "s.confirm" not in optuna.get_all_study_names(made.storage)


def test_how_it_is_confirmed_may_change(sweep):
    assert spec_with().digest() == spec_with(confirm={"top": 5}).digest()
    assert spec_with().digest() == spec_with(scoring={"references": {"x": 0.9}}).digest()
    assert spec_with().digest() != spec_with(scoring={"max_tokens": 9}).digest()


def test_scores_from_elsewhere_stand_among_the_trials(sweep):
    made = sweep(0.5, 0.9)
    made.study.set_user_attr("references", {"gpt-4o-mini": 0.8787})
    rows = leaderboard(made.study)
    assert [row.label for row in rows] == ["1", "gpt-4o-mini", "0"]
    assert rows[1].state == "reference"
