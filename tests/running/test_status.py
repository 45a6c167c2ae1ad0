import io
import json
import os
import re
import time
from datetime import datetime

import pytest
from click.testing import CliRunner
from long_study import SPEC, make_study
from optuna.trial import TrialState
from rich.console import Console

from hawsweep.cli import main
from hawsweep.machine.processes import identity
from hawsweep.results.leaderboard import TrialRow
from hawsweep.results.verdict import judge_study
from hawsweep.results.what_is_left import Remaining, find_remaining, seconds_left
from hawsweep.running.events import Event
from hawsweep.running.progress import SweepState, ToldEvent, WorkerState, recording
from hawsweep.running.status import StatusReader
from hawsweep.search.distributions import distributions
from hawsweep.spec.read import check_sweep
from hawsweep.spec.space import MODEL
from hawsweep.study.attributes import CONFIRMS, SEED
from hawsweep.study.confirm import open_confirmation
from hawsweep.study.place import Place
from hawsweep.study.queue import pause
from hawsweep.study.storage import open_storage
from hawsweep.study.study import create_study, load_study
from hawsweep.views.terminal.progress import RunningPicture
from hawsweep.views.terminal.tables import shown_rows

N_TRIALS = 60


@pytest.fixture
def place(tmp_path):
    made = Place(tmp_path / "studies")
    make_study(made, N_TRIALS)
    return made


def status(place, *options):
    done = CliRunner().invoke(main, ["status", f"--studies-dir={place.studies_dir}", *options])
    assert done.exit_code == 0, done.output
    return done.output


def test_start_in_the_background_that_was_refused_is_told_of(tmp_path):
    folder = tmp_path / "studies" / "pairs"
    folder.mkdir(parents=True)
    asked = ["status", "pairs", f"--studies-dir={tmp_path / 'studies'}"]
    before = CliRunner().invoke(main, asked)
    (folder / "sweep.log").write_text("Error: the disk is full.\n")
    after = CliRunner().invoke(main, asked)
    assert before.exit_code == after.exit_code == 1
    assert "There are no studies" in before.output
    said = f"What its start in the background said is in {folder / 'sweep.log'}."
    assert said not in " ".join(before.output.split())
    assert said in after.output.replace("\n", " ")


def test_long_study_shows_the_best_and_says_how_many_more_there_are(place):
    shown = status(place)
    rows = re.findall(r"^ +(\d+|base) +(?:complete|pruned|use)?", shown, re.MULTILINE)
    assert len(rows) == 30
    assert "base" in rows
    assert f"{N_TRIALS + 1 - 30} more trials: --all shows them" in shown
    assert rows_beside_the_best(place) == ["base"]
    everything = status(place, "--all")
    assert len(re.findall(r"^ +\d+ +(?:complete|pruned|use)", everything, re.MULTILINE)) == N_TRIALS
    assert "more trials" not in everything


def rows_beside_the_best(place):
    """What is shown below the best three."""
    shown, _ = shown_rows(StatusReader(place, "long").look().rows, 3)
    return [row.label for row in shown[3:]]


def test_what_is_left_and_how_long_it_takes_is_said(place):
    onlooker = StatusReader(place, "long")
    standing = onlooker.look().standing
    spec = SPEC
    assert (standing.n_trials, standing.finished) == (spec.trials, N_TRIALS)
    again = spec.confirm.top * spec.confirm.seeds
    assert standing.again_left == again
    assert standing.test_left
    # As they took; the test as base and best trial answered, twice as many prompts.
    after_s = again * 242.454 + 2 * (50.0 + 10.092826)
    assert standing.after_s == pytest.approx(after_s)
    left_s = onlooker.look().seconds_left
    assert left_s == pytest.approx((spec.trials - N_TRIALS) * 242.454 + after_s)
    said = " ".join(status(place).split())
    assert f"{N_TRIALS} of {spec.trials} trials are done; left: {spec.trials - N_TRIALS} to" in said


def test_of_an_exhausted_space_no_trial_is_left(tmp_path):
    search = {"learning_rate": {"choices": [1e-4, 1e-3]}}
    content = {"model": "m", "data": "phrasebook", "search": search, "train": {"iters": 10}}
    spec = check_sweep({**content, "trials": 4}, "a sweep")
    storage = open_storage(Place(tmp_path), create=True)
    study, _ = create_study(storage, Place(tmp_path), "two", spec, {})
    expected = ((0, 2), (1, 1), (2, 0))  # finished, left
    for rate, (finished, left) in zip((1e-4, 1e-3, None), expected, strict=True):
        standing = find_remaining(study, spec)
        assert (standing.n_trials, standing.finished, standing.trials_left) == (2, finished, left)
        if rate is not None:
            study.enqueue_trial({"learning_rate": rate})
            assert find_remaining(study, spec).trials_left == left
            asked = study.ask(distributions(spec.search))
            assert find_remaining(study, spec).trials_left == left
            study.tell(asked, 0.5)


def test_time_of_trials_that_are_promoted_is_expected_by_the_pace_of_all(tmp_path):
    search = {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}
    train = {"iters": 160, "steps_per_eval": 20}
    content = {"model": "m", "data": "phrasebook", "search": search, "train": train, "trials": 4}
    spec = check_sweep(content, "a sweep")
    storage = open_storage(Place(tmp_path), create=True)
    study, _ = create_study(storage, Place(tmp_path), "paced", spec, {})
    assert find_remaining(study, spec).trial_s is None
    trial = study.ask(distributions(spec.search))
    for step in (20, 40):
        trial.report(-1.0, step)
    trial.set_user_attr("time_s", 80.0)
    pause(study, trial.number)
    standing = find_remaining(study, spec)
    assert (standing.n_paused, standing.paused_s, standing.trials_left) == (1, 80.0, 4)
    # Of four, three come past 20, two past 40 and 80; at 2 s an iteration.
    whole_s = 2.0 * (1 * 20 + 1 * 40 + 0 * 80 + 2 * 160)
    assert standing.trial_s == pytest.approx(whole_s / 4)
    assert seconds_left(standing, [], 1) == pytest.approx(whole_s - 80.0 + standing.after_s)


def test_runs_with_new_seeds_that_have_ended_are_no_more_left(place):
    storage = open_storage(place)
    opened = load_study(storage, "long")
    confirming = open_confirmation(storage, opened, SPEC)
    before = find_remaining(opened, SPEC).again_left
    confirming.enqueue_trial({}, user_attrs={CONFIRMS: 0, SEED: 1})
    confirming.tell(confirming.ask(), 0.5)
    assert find_remaining(opened, SPEC).again_left == before - 1


def test_test_that_was_opened_for_the_winner_is_no_more_left(place):
    opened = load_study(open_storage(place), "long")
    best = opened.best_trial.number
    opened.set_user_attr("test", {"trial_number": best})
    assert not find_remaining(opened, SPEC).test_left
    opened.set_user_attr("test", {"trial_number": best + 1})
    assert find_remaining(opened, SPEC).test_left


def test_study_of_another_program_has_nothing_left(place):
    import optuna

    optuna.create_study(storage=open_storage(place), study_name="theirs").add_trial(
        optuna.trial.create_trial(value=0.5)
    )
    shown = json.loads(status(place, "theirs", "--json"))
    assert shown["left"]["command"] == ""
    assert shown["left"]["trials"] == 0


def test_command_that_goes_on_is_the_kept_spec_where_the_sweep_is_another(place, monkeypatch):
    look = StatusReader(place, "long").look()
    kept = place.study_dir("long") / "spec.yaml"
    place_option = f"--studies-dir={place.studies_dir}"
    assert look.command == f"hawsweep start {kept} --study=long {place_option}"
    monkeypatch.chdir(place.studies_dir.parent)
    (place.studies_dir.parent / "sweeps").mkdir()
    (place.studies_dir.parent / "sweeps" / "long.yaml").write_text(kept.read_text())
    expected = f"hawsweep start long {place_option}"
    assert StatusReader(place, "long").look().command == expected
    less = SPEC.model_copy(update={"trials": 3}).dump_yaml()
    (place.studies_dir.parent / "sweeps" / "long.yaml").write_text(less)
    expected = f"hawsweep start long --trials={SPEC.trials} {place_option}"
    assert StatusReader(place, "long").look().command == expected


def test_verdict_compares_with_the_next_best_and_pays_for_the_choice_among_all(
    tmp_path, monkeypatch
):
    place = Place(tmp_path / "studies")
    make_study(place, 50)  # twenty are complete
    opened = load_study(open_storage(place), "long")
    whole = judge_study(opened, place)
    monkeypatch.setattr("hawsweep.results.verdict._MOST_JUDGED", 5)
    few = judge_study(opened, place)
    assert few.winner == whole.winner
    assert few.baselines == whole.baselines  # also the level
    assert few.runner_up == whole.runner_up
    assert few.ties == whole.ties[:4]


def test_verdict_knows_the_best_of_each_model_however_far_behind(tmp_path, monkeypatch):
    place = Place(tmp_path / "studies")
    make_study(place, 50)
    opened = load_study(open_storage(place), "long")
    complete = opened.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    last = min(complete, key=lambda each: each.value)
    last._params = {**last.params, MODEL: "another"}
    monkeypatch.setattr("hawsweep.results.verdict._MOST_JUDGED", 5)
    (other,) = judge_study(opened, place).models
    assert (other.label, other.model) == (f"trial {last.number}", "another")


def running_trial(place, host):
    opened = load_study(open_storage(place), "long")
    trial = opened.ask()
    owner = {**identity(), "host": host}
    opened._storage.set_trial_user_attr(trial._trial_id, "worker", owner)
    trial.suggest_int("iters", 60, 140, step=40)
    trial.report(-2.5, 20)
    return trial


def test_trial_that_runs_on_another_machine_is_shown_by_what_the_database_has(place):
    assert StatusReader(place, "long").look().running is None
    onlooker = StatusReader(place, "long")
    trial = running_trial(place, "studio")
    state = onlooker.look().running
    (worker,) = state.workers
    assert (worker.trial, worker.host, worker.curve) == (str(trial.number), "studio", ((20, 2.5),))
    assert worker.iteration == 20
    trial.report(-2.25, 40)
    assert onlooker.look().running.workers[0].curve == ((20, 2.5), (40, 2.25))
    load_study(open_storage(place), "long").tell(trial.number, state=TrialState.PRUNED)
    assert onlooker.look().running is None


def test_trial_of_a_dead_process_is_not_shown_as_running(place):
    trial = running_trial(place, os.uname().nodename)
    opened = load_study(open_storage(place), "long")
    gone = {**identity(), "started": 1.0}
    opened._storage.set_trial_user_attr(trial._trial_id, "worker", gone)
    assert StatusReader(place, "long").look().running is None


def test_sweep_that_runs_here_is_shown_by_what_it_tells(place):
    onlooker = StatusReader(place, "long")
    with recording(lambda _: None, place.study_dir("long")) as tell:
        about = {"name": "long", "n_trials": 90, "n_workers": 2, "timeout_s": None}
        tell(Event("study", values=about))
        look = onlooker.look()
        assert (look.running.n_trials, look.to_plain()["left"]["is_running"]) == (90, True)
        assert "It runs on another machine" in status(place)
    assert onlooker.look().running is None


def test_looking_again_reads_the_database_only_where_it_has_changed(place, monkeypatch):
    onlooker = StatusReader(place, "long")
    first = onlooker.look()
    reads = []
    look = StatusReader._look
    monkeypatch.setattr(StatusReader, "_look", lambda self: (reads.append(1), look(self))[1])
    assert onlooker.look().rows is first.rows
    assert reads == []
    load_study(open_storage(place), "long").set_user_attr("description", "changed")
    assert onlooker.look().description == "changed"
    assert reads == [1]


def worker(number, **changes):
    known = {
        "doing": "trial",
        "trial": str(number),
        "since": 1000.0,
        "iteration": 40,
        "iters": 100,
        "train_loss": 2.5,
        "curve": ((20, 2.5), (40, 2.25)),
        "tokens_per_s": 70.0,
        "peak_memory_bytes": 970_000_000,
        "budget_bytes": 1_900_000_000.0,
        "settings": {"learning_rate": 1e-3, "lora_parameters.rank": 8, "iters": 100},
    }
    return WorkerState(number, **{**known, **changes})


def sweep(workers, **changes):
    rows = (
        TrialRow("3", "complete", {"learning_rate": 1e-3}, 1.5, 60, 0.5),
        TrialRow("base", "base", {}, 3.5, score=0.125),
    )
    standing = Remaining(
        *(10, 4, 2, 60.0, 2, True, 90.0, 3), best_curve=((20, 2.0), (60, 1.5)), rows=rows
    )
    known = {"name": "lr-rank", "started": 990.0, "updated": 1010.0, "n_trials": 10}
    known |= {"n_workers": len(workers), "workers": tuple(workers), "standing": standing}
    return SweepState(**{**known, "best_score": 0.5, **changes})


def picture(state, width, height=40, **options):
    console = Console(file=io.StringIO(), width=width, height=height, **options)
    console.print(RunningPicture(state, with_events=True, now=1030.0))
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 140])
def test_picture_has_what_is_known_of_each_worker(width):
    shown = picture(sweep([worker(7), worker(8, trial="3 again")]), width)
    assert max(map(len, shown.splitlines())) <= width
    for text in ("4/10 trials", "0:00:40", "lr 1.00e-03  rank 8  iters 100", "40/100", "2.250"):
        assert text in shown, shown
    for text in ("trial 7", "trial 3 again", "70", "0.97/1.90", "0:00:30", "best: trial 3 0.5000"):
        assert text in shown, shown
    # Between 2.0 at 20 and 1.5 at 60 the best trial had 1.75 at 40.
    assert f"{2.25 - 1.75:+.3f}" in shown
    left_s = (6 * 60 + 90 - 2 * 30) / 2
    ends = datetime.fromtimestamp(1030.0 + left_s)
    assert f"ends {ends:%H:%M}, in 3 min" in shown
    assert "2 runs with new seeds and the test split" in shown


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 140, 200])
@pytest.mark.parametrize("n_workers", [1, 8])
def test_picture_fits_into_its_terminal(width, n_workers):
    told = [ToldEvent(1000.0, "died", {"reason": "the worker died " * 20})] * 8
    long = worker(7, settings={f"section.key_{n}": 1e-3 for n in range(12)})
    state = sweep([long] * n_workers, told=tuple(told))
    for height in (24, 40):
        lines = picture(state, width, height).splitlines()
        assert not re.search(r"[\w.]…", "\n".join(lines))  # neither a number nor a name is cut
        assert max(map(len, lines)) <= width
        assert len(lines) <= height


def test_picture_without_anything_known_is_drawn():
    shown = picture(SweepState(n_trials=3, started=1000.0), 80)
    assert "0/3 trials" in shown
    starting = sweep([WorkerState(0), WorkerState(1, doing="preparing", text="loading the model")])
    assert "loading the model" in picture(starting, 80)


def test_texts_of_others_are_shown_as_they_are():
    strange = worker(7, settings={"model": "[red]x[/red]"})
    told = (ToldEvent(1000.0, "died", {"reason": "[bold]why[/bold]"}),)
    for width in (80, 140):
        shown = picture(sweep([strange], told=told, name="[x]"), width)
        for text in ("[red]x[/red]", "[bold]why[/bold]", "[x]"):
            assert text in shown


def test_terminal_that_has_only_ascii_gets_only_ascii():
    console = Console(file=io.TextIOWrapper(io.BytesIO(), encoding="ascii"), width=80)
    console.print(RunningPicture(sweep([worker(7)]), now=1030.0))
    console.file.flush()
    assert b"val 2.250" in console.file.buffer.getvalue()


def test_ends_on_another_day_is_said_with_the_day():
    state = sweep([worker(7)])
    slow = Remaining(**{**vars(state.standing), "trial_s": 40_000.0})
    ends = datetime.fromtimestamp(1030.0 + state.ends_in(1030.0))
    later = SweepState(**{**vars(state), "standing": slow})
    ends = datetime.fromtimestamp(1030.0 + later.ends_in(1030.0))
    assert f"ends {ends:%a %d %b %H:%M}" in picture(later, 140)


def test_events_are_told_with_the_time_of_day():
    told = (ToldEvent(1000.0, "trial_end", {"number": 3, "state": "pruned", "reason": "behind"}),)
    at = time.strftime("%H:%M", time.localtime(1000.0))
    assert f"{at}  trial 3   pruned: behind" in picture(sweep([worker(7)], told=told), 80)
