"""Which trial is next, where some wait in the queue, are paused, or do not fit the search."""

from functools import partial

import pytest
from optuna.trial import TrialState
from storage_servers import serving_storage

from hawsweep.machine.processes import identity
from hawsweep.search.distributions import distributions
from hawsweep.search.sampler import make_sampler
from hawsweep.spec.read import check_sweep
from hawsweep.study.place import Place
from hawsweep.study.queue import ask, leave_behind, n_running_here, pause, repeat_trial
from hawsweep.study.storage import open_storage
from hawsweep.study.study import create_study
from hawsweep.study.trials import count_begun, count_finished, is_paused, state_of

SEARCH = {
    "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "lora_parameters.rank": {"choices": [4, 8]},
    "batch_size": {"low": 2, "high": 8, "step": 2},
    "grad_accumulation_steps": {"low": 1, "high": 4},
}
SETTINGS = {
    "learning_rate": 1e-3,
    "lora_parameters.rank": 8,
    "batch_size": 4,
    "grad_accumulation_steps": 1,
}


class Queue:
    """A study, and what is asked of it."""

    def __init__(self, folder, url=None):
        self.place = Place(folder, url)
        content = {"model": "some/model", "data": "phrasebook", "search": SEARCH}
        self.spec = check_sweep({**content, "sampler": {"name": "random"}}, "a sweep")
        storage = open_storage(self.place, create=True)
        self.study, _ = create_study(storage, self.place, "s", self.spec, {})

    def ask(self, promoted=None, **asked):
        return ask(
            self.study,
            partial(make_sampler, self.spec),
            distributions(self.spec.search),
            self.place.study_dir("s"),
            identity(),
            20,
            lambda _: promoted,
            **asked,
        )

    def pause(self, number):
        self.trial(number).report(-1.0, 20)
        pause(self.study, number)

    def trial(self, number):
        from hawsweep.study.optuna_door import trial_to_run

        return trial_to_run(self.study, number)

    @property
    def trials(self):
        return self.study.get_trials(deepcopy=False)


@pytest.fixture(params=["here", "by a proxy"])
def queue(tmp_path, request):
    if request.param == "here":
        yield Queue(tmp_path)
        return
    url = Place(tmp_path).url
    tmp_path.mkdir(exist_ok=True)
    with serving_storage(url) as proxy:
        yield Queue(tmp_path, proxy)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"learning_rate": 0.5}, "learning_rate was queued as 0.5, which the search does not have"),
        (
            {"learning_rate": "fast"},
            "learning_rate was queued as 'fast', which the search does",
        ),
        ({"learning_rate": True}, "learning_rate was queued as True, which the search does not"),
        ({"learning_rate": float("nan")}, "learning_rate was queued as nan, which the search does"),
        ({"lora_parameters.rank": 16}, "lora_parameters.rank was queued as 16, which the search"),
        ({"batch_size": 3}, "batch_size was queued as 3, which the search does not have"),
        ({"grad_accumulation_steps": 1.5}, "grad_accumulation_steps was queued as 1.5, which"),
        ({"rank": 8}, "rank was queued as 8, which is not searched; searched: learning_rate, lora"),
    ],
)
def test_queued_setting_that_the_search_does_not_have_ends_with_a_sentence(queue, changes, said):
    queue.study.enqueue_trial({**SETTINGS, **changes})  # as any program may
    queue.study.enqueue_trial(SETTINGS)
    assert queue.ask() == 1
    wrong, right = queue.trials
    assert wrong.state == TrialState.FAIL
    assert wrong.user_attrs["reason"].startswith(said)
    assert right.params == SETTINGS


def test_key_that_a_queued_setting_lacks_is_sampled(queue):
    queue.study.enqueue_trial({"learning_rate": 1e-3})
    assert queue.ask() == 0
    (trial,) = queue.trials
    assert trial.params["learning_rate"] == 1e-3
    assert trial.params.keys() == SEARCH.keys()


def test_paused_trial_goes_on_under_its_number_when_it_is_promoted(queue):
    first = queue.ask()
    params = queue.trials[first].params
    queue.pause(first)
    assert is_paused(queue.trials[first])
    assert queue.ask() == 1
    assert queue.ask(promoted=first) == first
    trial = queue.trials[first]
    assert (trial.state, trial.params) == (TrialState.RUNNING, params)
    assert trial.intermediate_values == {20: -1.0}


def test_promoted_trial_comes_before_queued_settings_and_after_interrupted_ones(queue):
    paused, interrupted = queue.ask(), queue.ask()
    queue.pause(paused)
    queue.study.enqueue_trial(SETTINGS)
    repeat_trial(queue.study, interrupted)
    queue.study.tell(interrupted, state=TrialState.FAIL)
    assert [queue.ask(promoted=paused) for _ in range(3)] == [3, paused, 2]


def test_nothing_begins_where_no_setting_may(queue):
    queue.study.enqueue_trial(SETTINGS)
    assert queue.ask(may_begin=False) is None
    assert [trial.state for trial in queue.trials] == [TrialState.WAITING]
    assert queue.ask() == 0


def test_trials_that_are_left_behind_end_as_pruned_and_say_where(queue):
    queue.pause(queue.ask())
    queue.study.enqueue_trial(SETTINGS)
    assert leave_behind(queue.study, lambda _: 140) == [0]
    left, queued = queue.trials
    assert left.state == TrialState.PRUNED
    assert left.user_attrs["reason"] == "not promoted past 20 of 140"
    assert queued.state == TrialState.WAITING


def test_trial_is_counted_once_while_it_runs_and_after_it(queue):
    number = queue.ask()
    assert (count_begun(queue.trials), n_running_here(queue.study)) == (0, 1)
    queue.study.tell(number, 0.5)
    assert (count_begun(queue.trials), n_running_here(queue.study)) == (1, 0)


def test_paused_trials_have_begun_and_are_not_finished(queue):
    queue.pause(queue.ask())
    queue.study.enqueue_trial(SETTINGS)
    assert (count_begun(queue.trials), count_finished(queue.study)) == (1, 0)
    assert [state_of(trial) for trial in queue.trials] == ["paused", "waiting"]


@pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.WAITING])
def test_retry_of_a_trial_that_went_on_after_all_is_not_run(queue, state):
    number = queue.ask()
    repeat_trial(queue.study, number)
    retry = queue.trials[1]
    # While the trial still runs its retry waits, and another setting begins.
    assert queue.ask() == 2
    if state == TrialState.COMPLETE:
        queue.study.tell(number, 0.5)
    else:
        queue.pause(number)
    assert queue.ask() == 3
    ended = queue.trials[retry.number]
    assert ended.state == TrialState.FAIL
    assert ended.user_attrs["reason"] == "trial 0 went on after all"
    assert count_begun(queue.trials) == 1
    if state == TrialState.WAITING:  # it fails later, and is queued anew
        assert queue.ask(promoted=number) == number
        repeat_trial(queue.study, number)
        queue.study.tell(number, state=TrialState.FAIL)
        assert queue.ask() == 4
        assert queue.trials[4].user_attrs["repeats"] == number


def test_confirming_run_that_another_has_taken_is_not_made_up(queue):
    queue.study.enqueue_trial({})
    assert queue.ask(proposes=False) == 0
    assert queue.ask(proposes=False) is None
    assert len(queue.trials) == 1
