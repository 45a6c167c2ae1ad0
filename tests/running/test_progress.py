import json
import os
import time

import pytest

from hawsweep.machine.processes import identity
from hawsweep.results.what_is_left import Remaining
from hawsweep.running.events import Event
from hawsweep.running.progress import Follower, read_progress, recording, telling_remaining
from hawsweep.views.terminal.events import event_lines

SETTINGS = {"learning_rate": 1e-3, "iters": 100}


def standing(**changes):
    known = {
        "n_trials": 10,
        "finished": 4,
        "n_running": 2,
        "trial_s": 60.0,
        "again_left": 2,
        "test_left": True,
        "after_s": 90.0,
        "best": 1,
        "best_curve": ((20, 2.0),),
        "rows": (),
    }
    return Remaining(**{**known, **changes})


@pytest.fixture
def follow(clock):
    return Follower(3, clock)


def start(follow, worker=0, number=0):
    follow(Event("trial_start", worker, {"number": number, "settings": SETTINGS}))


def test_worker_is_followed_through_a_trial(follow, clock):
    follow(Event("ready", 0, {"budget_bytes": 2e9}))
    clock.now = 1010.0
    start(follow, number=7)
    follow(Event("iteration", 0, {"iteration": 20, "iters": 100}))
    told = {"train_loss": 2.5, "tokens_per_s": 70.0, "peak_memory_bytes": 10**9}
    follow(Event("train", 0, told))
    for iteration, loss in ((20, 2.25), (40, 2.0)):
        follow(Event("eval", 0, {"iteration": iteration, "val_loss": loss}))
    (worker,) = follow.state.workers
    assert (worker.doing, worker.trial, worker.settings) == ("trial", "7", SETTINGS)
    assert (worker.iteration, worker.iters, worker.since) == (40, 100, 1010.0)
    assert (worker.train_loss, worker.tokens_per_s) == (2.5, 70.0)
    assert (worker.peak_memory_bytes, worker.budget_bytes) == (10**9, 2e9)
    assert worker.curve == ((20, 2.25), (40, 2.0))
    follow(Event("scoring", 0, {"n_prompts": 40}))
    assert follow.state.workers[0].doing == "scoring"
    follow(Event("trial_end", 0, {"number": 7, "state": "complete", "score": 0.5}))
    (worker,) = follow.state.workers
    assert (worker.doing, worker.trial, worker.curve) == ("waiting", None, ())
    assert worker.budget_bytes == 2e9  # the process keeps it


def test_workers_of_hosts_are_others_and_go_with_their_host(follow):
    start(follow, 0, 1)
    for host, number in (("studio-2", 2), ("studio-3", 3)):
        values = {"number": number, "settings": SETTINGS}
        follow(Event("trial_start", 0, values, host))
    follow(Event("eval", 0, {"iteration": 20, "val_loss": 2.0}, "studio-3"))
    shown = [(each.host, each.number, each.trial, each.curve) for each in follow.state.workers]
    assert shown == [
        ("", 0, "1", ()),
        ("studio-2", 0, "2", ()),
        ("studio-3", 0, "3", ((20, 2.0),)),
    ]
    away = {"state": "away", "text": "has gone: Connection reset. It is tried again"}
    follow(Event("host", values=away, host="studio-3"))
    assert [each.host for each in follow.state.workers] == ["", "studio-2"]
    told = follow.state.told[-1]
    (line,) = event_lines(told.kind, told.values, told.host)
    assert line.plain == "studio-3  has gone: Connection reset. It is tried again"


def test_run_with_a_new_seed_is_named_by_its_trial(follow):
    about = {"number": 0, "settings": SETTINGS, "confirms": 7, "seed": 2}
    follow(Event("confirm_start", 0, about))
    assert follow.state.workers[0].trial == "7 again"


def test_best_so_far_is_told_once_each_time_it_is_passed(follow):
    scores = (0.25, 0.125, None, 0.5)
    ends = [{"number": n, "state": "complete", "score": s} for n, s in enumerate(scores)]
    told = [follow(Event("trial_end", 0, end)).values["is_best"] for end in ends]
    assert told == [True, False, False, True]
    assert follow.state.best_score == 0.5
    again = {"number": 0, "confirms": 3, "state": "complete", "score": 0.75}
    assert not follow(Event("confirm_end", 0, again)).values["is_best"]  # no trial of the study


def test_what_was_told_last_is_kept_with_its_time(follow, clock):
    for number in range(12):
        clock.now += 1
        follow(Event("trial_end", 0, {"number": number, "state": "pruned"}))
        follow(Event("iteration", 0, {"iteration": 1, "iters": 2}))
    assert [each.values["number"] for each in follow.state.told] == [4, 5, 6, 7, 8, 9, 10, 11]
    assert follow.state.told[-1].at == clock.now


def test_exhausted_space_is_told_as_of_the_sweep_and_of_no_worker(follow):
    follow(Event("exhausted", values={"n_trials": 10}))
    assert [each.kind for each in follow.state.told] == ["exhausted"]
    assert follow.state.workers == ()


def test_extension_changes_what_is_to_finish_and_is_told(follow):
    event = Event("extended", values={"n_trials": 17, "timeout_s": 36_000.0})
    follow(event)
    assert (follow.state.n_trials, follow.state.timeout_s) == (17, 36_000.0)
    assert follow.state.workers == ()
    (line,) = event_lines(follow.state.told[-1].kind, event.values)
    assert line.plain == "extended: 17 trials, 10 h from the start"


def test_trials_to_finish_are_those_of_the_study_not_of_the_sweep(follow):
    tell_standing(follow, n_trials=6)
    assert follow.state.n_trials == 6


def test_worker_that_died_starts_anew(follow):
    start(follow)
    follow(Event("died", 0, {"reason": "SIGKILL"}))
    assert follow.state.workers[0].doing == "starting"


def tell_standing(follow, **changes):
    follow(Event("study", values={"name": "x", "n_trials": 10, "n_workers": 2, "timeout_s": None}))
    follow(Event("standing", values=standing(**changes).to_plain()))


def test_end_is_expected_by_finished_trials_workers_and_what_follows(follow, clock):
    tell_standing(follow)
    assert follow.state.finished == 4
    # Six trials of 60 s and 90 s of runs with new seeds and test, by two workers.
    assert follow.state.ends_in(clock.now) == (6 * 60 + 90) / 2
    for worker in (0, 1):
        start(follow, worker)
        follow(Event("iteration", worker, {"iteration": 1, "iters": 100}))
    clock.now += 20
    assert follow.state.ends_in(clock.now) == (6 * 60 + 90 - 2 * 20) / 2
    clock.now += 1000  # they take longer than others did: each is about to end
    assert follow.state.ends_in(clock.now) == (4 * 60 + 90) / 2


def test_end_before_the_first_trial_has_ended_is_expected_by_how_far_it_is(follow, clock):
    tell_standing(follow, finished=0, trial_s=None, after_s=0.0)
    assert follow.state.ends_in(clock.now) is None
    start(follow)
    follow(Event("iteration", 0, {"iteration": 25, "iters": 100}))
    clock.now += 10  # a quarter: 40 s each
    assert follow.state.ends_in(clock.now) == (10 * 40 - 10) / 2


def test_time_that_is_up_ends_it(follow, clock):
    tell_standing(follow)
    about = {"name": "x", "n_trials": 10, "n_workers": 2, "timeout_s": 30.0}
    follow(Event("study", values=about))
    clock.now += 10
    assert follow.state.ends_in(clock.now) == 20


def test_how_the_study_stands_is_told_after_what_changes_it():
    heard = []
    tell = telling_remaining(heard.append, lambda: {"finished": len(heard)})
    for kind in ("study", "iteration", "trial_end", "eval", "confirm_end", "tick"):
        tell(Event(kind))
    kinds = [event.kind for event in heard]
    assert kinds == [
        *("study", "standing", "iteration", "trial_end", "standing"),
        *("eval", "confirm_end", "standing", "tick"),
    ]
    assert heard[1].values == {"finished": 1}


def test_progress_is_written_for_others_and_removed_at_the_end(tmp_path):
    heard = []
    with recording(heard.append, tmp_path) as tell:
        follow_all(tell)
        state = read_progress(tmp_path)
        assert (state.name, state.n_trials) == ("x", 10)
        assert [path.name for path in tmp_path.iterdir()] == ["progress.json"]
    assert [event.kind for event in heard] == ["study"]
    assert list(tmp_path.iterdir()) == []
    assert read_progress(tmp_path) is None


def follow_all(tell):
    tell(Event("study", values={"name": "x", "n_trials": 10, "n_workers": 2, "timeout_s": None}))


def test_progress_is_written_no_more_than_once_a_second(tmp_path, monkeypatch):
    times = iter([10.0, 10.5, 10.75, 11.0, 11.5])
    with recording(lambda _: None, tmp_path) as tell:
        written = []
        for at in times:
            monkeypatch.setattr(time, "monotonic", lambda at=at: at)
            (tmp_path / "progress.json").unlink(missing_ok=True)
            tell(Event("tick"))
            written.append((tmp_path / "progress.json").exists())
    assert written == [True, False, False, True, False]


def test_folder_that_cannot_be_written_stops_no_sweep(tmp_path):
    with recording(lambda _: None, tmp_path / "missing") as tell:
        tell(Event("tick"))


def written(folder, process, name="progress.json", **changes):
    with recording(lambda _: None, folder) as tell:
        follow_all(tell)
        start_event = Event("trial_start", 0, {"number": 3, "settings": SETTINGS})
        tell(start_event)
        known = json.loads((folder / "progress.json").read_text())
    (folder / name).write_text(json.dumps({**known, "process": process, **changes}))


def test_progress_of_a_dead_process_is_not_believed(tmp_path):
    written(tmp_path, {**identity(), "started": 1.0})
    assert read_progress(tmp_path) is None


def test_progress_of_another_machine_is_believed_while_it_is_fresh(tmp_path):
    written(tmp_path, {**identity(), "machine": "elsewhere", "boot": "its own"})
    assert read_progress(tmp_path).name == "x"
    old = time.time() - 3600
    os.utime(tmp_path / "progress.json", (old, old))
    assert read_progress(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{", '{"process": {}}', "[]", '{"name": "x"}'])
def test_progress_that_is_not_whole_is_as_if_there_were_none(tmp_path, text):
    (tmp_path / "progress.json").write_text(text)
    assert read_progress(tmp_path) is None


def test_processes_that_joined_are_shown_with_the_first(tmp_path):
    worker = {"number": 0, "doing": "trial", "trial": "9", "curve": [[20, 2.0]]}
    written(tmp_path, identity(), "progress-77.json", n_workers=1, workers=[worker])
    written(tmp_path, identity())
    state = read_progress(tmp_path)
    assert state.n_workers == 3
    assert [each.number for each in state.workers] == list(range(len(state.workers)))
    assert state.workers[-1].trial == "9"
    assert state.workers[-1].curve == ((20, 2.0),)


def test_what_a_process_that_was_killed_left_is_removed_by_the_next(tmp_path):
    written(tmp_path, {**identity(), "started": 1.0}, "progress-77.json")
    with recording(lambda _: None, tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_how_it_stands_survives_json():
    known = standing(best_curve=((20, 2.0), (40, 1.5)))
    assert Remaining.from_plain(json.loads(json.dumps(known.to_plain()))) == known
