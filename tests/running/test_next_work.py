"""What a worker is told to do, for each thing that may be true of a sweep."""

from dataclasses import replace

import pytest

from hawsweep.running.next_work import Work, next_work

# Two workers, one of which waits; of six settings four have begun before, and one runs.
TRAINING = Work(doing=("trial", None), n_trials=6, n_begun=4, n_running=1)
EXHAUSTED = {"is_exhausted": True}
LAST_QUARTER = {"time_left_s": 90.0, "confirm_s": 60.0, "promote_s": 40.0}
# All trials are finished, both workers wait, and what is to be confirmed is not queued.
TRAINED = Work(doing=(None, None), n_trials=6, n_begun=6, n_running=0)


@pytest.mark.parametrize(
    ("about", "changes", "command"),
    [
        ("a trial is left", {}, "trial"),
        ("all that are wanted run", {"n_running": 2}, "wait"),
        ("more than wanted have begun", {"n_begun": 9}, "wait"),
        ("a paused one goes on", {"n_running": 2, "promotes": True}, "trial"),
        ("each setting was tried, a paused one goes on", {**EXHAUSTED, "promotes": True}, "trial"),
        ("the base is not measured", {"misses_base": True}, "base"),
        ("the base is being measured", {"misses_base": True, "doing": ("base", None)}, "trial"),
        ("each setting was tried", EXHAUSTED, "wait"),
        ("the time is up", {"time_left_s": -1.0}, "wait"),
        ("time is left for a trial", {"time_left_s": 61.0, "confirm_s": 60.0}, "trial"),
        ("time is left to confirm only", {"time_left_s": 59.0, "confirm_s": 60.0}, "wait"),
        ("time is left to promote only", {**LAST_QUARTER, "promotes": True}, "trial"),
        ("time is left to promote, and nothing is", LAST_QUARTER, "wait"),
        ("it is interrupted", {"is_interrupted": True, "misses_base": True}, "exit"),
    ],
)
def test_worker_that_waits_while_another_trains(about, changes, command):
    assert next_work(replace(TRAINING, **changes)) == command, about


@pytest.mark.parametrize(
    ("about", "changes", "command"),
    [
        ("a trial is left", {}, "trial"),
        ("the base is another's", {"misses_base": True}, "trial"),
        ("all that are wanted run", {"n_running": 2}, "exit"),
        ("all are finished", {"n_begun": 6, "n_running": 0, "wants_test": True}, "exit"),
        ("the time is up", {"time_left_s": -1.0}, "exit"),
        ("all that are wanted run, the sweep goes on", {"n_running": 2, "is_led": True}, "wait"),
        ("a run with new seeds is queued", {"n_running": 2, "n_to_confirm": 1}, "confirm"),
        ("a trial is left beside it", {"n_to_confirm": 1, "is_led": True}, "trial"),
        ("the sweep has ended", {"has_ended": True, "n_to_confirm": 1}, "exit"),
        ("its time is up", {"time_left_s": -1.0, "n_to_confirm": 1, "is_led": True}, "wait"),
    ],
)
def test_worker_of_a_process_that_joins_opens_and_queues_nothing(about, changes, command):
    assert next_work(replace(TRAINING, joins=True, **changes)) == command, about


@pytest.mark.parametrize(
    ("about", "changes", "command"),
    [
        ("nothing is queued yet", {}, "queue"),
        ("runs with new seeds wait", {"n_to_confirm": 2, "wants_test": True}, "confirm"),
        ("others wait", {"n_to_confirm": 2, "doing": ("confirm", None)}, "confirm"),
        ("the last one runs", {"n_to_confirm": 0, "doing": ("confirm", None)}, "wait"),
        ("one runs elsewhere", {"n_to_confirm": 0, "n_confirming": 1, "wants_test": True}, "wait"),
        ("all are confirmed", {"n_to_confirm": 0, "wants_test": True}, "test"),
        ("the test runs", {"n_to_confirm": 0, "doing": ("test", None)}, "wait"),
        ("the test is known", {"n_to_confirm": 0}, "finish"),
        ("another process runs a trial", {"n_running": 1}, "wait"),
        ("a trial has just ended elsewhere", {"doing": ("trial", None)}, "wait"),
        ("the base is being measured", {"doing": ("base", None), "misses_base": True}, "wait"),
        ("the time is up", {"time_left_s": -1.0, "wants_test": True}, "test"),
        ("the time is up, and the test is known", {"time_left_s": -1.0}, "finish"),
        ("time is left, less than to confirm", {"time_left_s": 1.0, "confirm_s": 60.0}, "queue"),
        ("a worker prepares", {"n_to_confirm": 0, "doing": ("prepare", None)}, "wait"),
        ("it is interrupted", {"is_interrupted": True, "n_to_confirm": 2}, "exit"),
    ],
)
def test_worker_that_waits_when_all_trials_are_finished(about, changes, command):
    assert next_work(replace(TRAINED, **changes)) == command, about


@pytest.mark.parametrize(
    ("about", "changes", "command"),
    [
        ("two are whole", {"n_complete": 2}, "queue"),
        ("one is whole", {"n_complete": 1}, "trial"),
        ("one is whole, and none can go on", {"n_complete": 1, "promotes": False}, "queue"),
        ("one is whole, and the time is up", {"n_complete": 1, "time_left_s": -1.0}, "test"),
    ],
)
def test_two_are_trained_whole_in_the_time_to_confirm_them(about, changes, command):
    late = {"time_left_s": 1.0, "confirm_s": 60.0, "promotes": True, "wants_test": True}
    assert next_work(replace(TRAINED, **{**late, **changes})) == command, about


@pytest.mark.parametrize(
    ("about", "changes", "expected"),
    [
        ("time is left", {"time_left_s": 90.0}, False),
        ("trials are to be promoted", {}, True),
        ("there is no timeout", {"time_left_s": None}, False),
        ("all have begun", {"n_begun": 4}, False),
        ("the last ones run", {"n_running": 1}, False),
        ("no setting is left", {"is_exhausted": True}, False),
        ("nothing more is expected", {"is_settled": True}, False),
        ("runs with new seeds took less time", {"time_left_s": 90.0, "was_late": True}, True),
    ],
)
def test_time_alone_may_keep_settings_from_beginning(about, changes, expected):
    late = {"n_trials": 4, "n_begun": 3, "time_left_s": 70.0, "confirm_s": 50.0, "promote_s": 30.0}
    assert replace(TRAINED, **{**late, **changes}).is_cut_short is expected, about


def simulate(n_workers, work, n_to_confirm):
    """What workers are told until all have ended, each ending one thing after another."""
    doing, told, n_queued = [None] * n_workers, [], None
    while any(each != "exit" for each in doing):
        for number in range(n_workers):
            if doing[number] is not None:
                continue
            n_running = doing.count("trial")
            now = replace(work, doing=tuple(doing), n_running=n_running, n_to_confirm=n_queued)
            command = next_work(now)
            if command == "queue":
                n_queued = n_to_confirm if n_queued is None else n_queued
                command = next_work(replace(now, n_to_confirm=n_queued))
            told.append(command)
            if command == "confirm":
                n_queued -= 1
            if command == "finish":
                doing = ["exit"] * n_workers
            elif command != "wait":
                doing[number] = command
        ended = next((n for n, each in enumerate(doing) if each not in (None, "exit")), None)
        if ended is None:
            continue
        if doing[ended] == "base":
            work = replace(work, misses_base=False)
        if doing[ended] == "trial":
            work = replace(work, n_begun=work.n_begun + 1)
        if doing[ended] == "test":
            work = replace(work, wants_test=False)
        doing[ended] = None
    return [command for command in told if command != "wait"]


@pytest.mark.parametrize("n_workers", [1, 2, 3])
def test_sweep_measures_trains_confirms_tests_and_ends(n_workers):
    work = Work((), n_trials=4, n_begun=0, n_running=0, misses_base=True, wants_test=True)
    told = simulate(n_workers, work, 3)
    assert told == ["base", *["trial"] * 4, *["confirm"] * 3, "test", "finish"]
