"""Exceptions, NaN, jumping clocks and broken files in trials of a real worker, in this process."""

import errno
import json
import random
import signal
from datetime import datetime, timedelta

import optuna
import pytest
from harness import INTERVAL, Lab, count
from optuna.storages._rdb import storage as optuna_storage
from optuna.trial import TrialState

from hawsweep.errors import StudyError
from hawsweep.layout import STATE_FILE
from hawsweep.results.leaderboard import trial_row
from hawsweep.scoring import score
from hawsweep.search.distributions import distributions
from hawsweep.study.attributes import MEMORY_FACTOR
from hawsweep.study.faults import GONE
from hawsweep.study.place import Place
from hawsweep.study.queue import reap_running
from hawsweep.study.storage import storage_faults_told
from hawsweep.study.trials import state_of
from hawsweep.training import train
from hawsweep.trial import run, watch

SETTINGS = {"learning_rate": 1e-3, "lora_parameters.rank": 2, "iters": 24}
# Everything a trial calls on its way; each fails at some call.
PLACES = {
    "settings": (run, "train_of", 1),
    "config": (run, "_write_config", 1),
    "batch": (train, "make_batch", 20),
    "learning rate": (train, "learning_rate_at", 20),
    "adapter": (train, "save_adapter", 4),
    "state": (train, "save_state", 6),
    "checkpoint": (train, "keep_checkpoint", 6),
    "losses of validation": (watch, "write_losses", 4),
    "loading the best": (run, "load_adapter", 1),
    "answers": (score, "translate", 1),
    "samples": (run, "write_samples", 1),
}
FAULTS = {
    "bug": lambda: ValueError("a bug"),
    "out_of_memory": lambda: RuntimeError("[metal::malloc] Unable to allocate 9 bytes."),
    "no memory": lambda: MemoryError(),
    "disk": lambda: OSError(errno.ENOSPC, "No space left on device"),
}


@pytest.fixture(scope="module")
def bench_lab(tmp_path_factory, calibrated, chat_data_dir):
    lab = Lab(tmp_path_factory.mktemp("lab"), calibrated, chat_data_dir)
    return lab, lab.worker(calibrated)


@pytest.fixture
def bench(bench_lab):
    """A lab with a prepared worker whose study has no trials waiting."""
    lab, worker = bench_lab
    opened = lab.study
    for trial in opened.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        opened._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    opened.set_user_attr(MEMORY_FACTOR, 1.0)
    worker.spec = worker.spec.model_copy(update={"trials": 10_000})
    return lab, worker


def fail_at(monkeypatch, place, fault, at):
    module, name, _ = PLACES[place]
    real, calls = getattr(module, name), []

    def failing(*arguments, **options):
        calls.append(None)
        if len(calls) == at:
            raise fault
        return real(*arguments, **options)

    monkeypatch.setattr(module, name, failing)


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("place", PLACES)
def test_exception_anywhere_ends_its_trial_only(bench, monkeypatch, place, kind):
    lab, worker = bench
    generator = random.Random(f"{place} {kind}")
    # Settings that no other test has, so that nothing is gone on from.
    settings = {**SETTINGS, "learning_rate": generator.uniform(1e-4, 1e-2)}
    lab.study.enqueue_trial(settings)
    before = lab.finished()
    with monkeypatch.context() as patch:
        fail_at(patch, place, FAULTS[kind](), generator.randint(1, PLACES[place][2]))
        if kind == "disk":
            with pytest.raises(StudyError, match="is full or cannot be written"):
                lab.run_next(worker)
        else:
            lab.run_next(worker)
    count("exception in a trial")
    failed = next(t for t in reversed(lab.trials()) if t.state != TrialState.WAITING)
    named = {"no memory": "out_of_memory"}.get(kind, kind)
    # Before there is a plan, there is no smaller one.
    is_infeasible = named == "out_of_memory" and place == "settings"
    assert failed.state == (TrialState.PRUNED if is_infeasible else TrialState.FAIL)
    assert failed.user_attrs["fault"] == named
    assert TrialState.RUNNING not in [trial.state for trial in lab.trials()]
    after = lab.finished()
    assert {number: after[number] for number in before} == before
    waiting = [t for t in lab.trials() if t.state == TrialState.WAITING]
    assert len(waiting) == (kind != "bug" and not is_infeasible)
    lab.run_next(worker)
    last = next(t for t in reversed(lab.trials()) if t.state != TrialState.WAITING)
    if kind == "disk":
        assert last.state == TrialState.COMPLETE
        assert last.params == failed.params
    elif kind == "bug":
        assert last.state == TrialState.COMPLETE


@pytest.mark.parametrize("rate", [1e20, 1e25, 1e30, 3e35])
def test_settings_that_diverge_are_pruned_with_the_reason(bench, monkeypatch, rate):
    lab, worker = bench
    real = train.learning_rate_at
    monkeypatch.setattr(train, "learning_rate_at", lambda *a: real(*a) * rate)
    lab.study.enqueue_trial({**SETTINGS, "learning_rate": 9e-3 / len(str(rate))})
    lab.run_next(worker)
    count("NaN")
    trial = lab.trials()[-1]
    assert trial.state == TrialState.PRUNED
    assert "the settings diverge" in trial.user_attrs["reason"]


@pytest.mark.parametrize("jump", [timedelta(days=-3), timedelta(hours=-1), timedelta(days=400)])
def test_clock_that_jumps_changes_no_trial(bench, monkeypatch, jump):
    lab, worker = bench

    class Jumping(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + jump

    real = run.load_adapter

    def jumps(*arguments):
        monkeypatch.setattr(optuna_storage, "datetime", Jumping)
        return real(*arguments)

    monkeypatch.setattr(run, "load_adapter", jumps)
    lab.study.enqueue_trial({**SETTINGS, "learning_rate": 2e-3})
    lab.run_next(worker)
    count("clock jump")
    trial = lab.trials()[-1]
    assert trial.state == TrialState.COMPLETE
    assert 0 <= trial_row(trial).time_s < 3600


def stopped_trial(lab, worker, learning_rate):
    """A trial that was stopped half-way, with its state on disk."""
    lab.study.enqueue_trial({**SETTINGS, "learning_rate": learning_rate})
    calls = iter(range(1000))
    worker.context.should_stop = lambda: next(calls) > 2.5 * INTERVAL - 1
    lab.run_next(worker)
    worker.context.should_stop = worker.should_stop
    [number] = [t.number for t in lab.trials() if state_of(t) == "paused"]
    return Place(lab.studies).trial_dir("tiny", number)


def first_evaluation(lab, worker):
    """Run the next trial; give the iteration of its first evaluation."""
    told = len(worker._events.getvalue())
    lab.run_next(worker)
    events = map(json.loads, worker._events.getvalue()[told:].splitlines())
    return next(each["iteration"] for each in events if each["event"] == "eval")


@pytest.mark.parametrize(
    "name",
    [STATE_FILE, "adapters/adapters.safetensors", "adapters/adapter_config.json", "metrics.jsonl",
     "valid_losses.npy", "config.yaml"],
)  # fmt: skip
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.999])
def test_truncated_file_of_a_stopped_trial_loses_nothing_else(bench, name, share):
    lab, worker = bench
    generator = random.Random(f"{name} {share}")
    folder = stopped_trial(lab, worker, generator.uniform(1e-4, 1e-2))
    path = folder / name
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    count("truncated file")
    number = len(lab.trials()) - 1
    first = first_evaluation(lab, worker)
    assert (first == INTERVAL) is (name == STATE_FILE)  # without its state it starts anew
    trial = lab.trials()[-1]
    assert trial.number == number
    assert trial.state == TrialState.COMPLETE, trial.user_attrs.get("reason")
    assert set(trial.intermediate_values) >= {16, 20, 24}
    assert Place(lab.studies).trial_dir("tiny", trial.number).is_dir()


@pytest.mark.parametrize("n_bytes", [1, 50, 1000])
def test_state_with_other_bytes_at_its_end_is_no_hindrance(bench, n_bytes):
    lab, worker = bench
    folder = stopped_trial(lab, worker, 1.2e-3 + n_bytes * 1e-7)
    with (folder / STATE_FILE).open("ab") as file:
        file.write(b"x" * n_bytes)
    count("truncated file")
    lab.run_next(worker)
    assert lab.trials()[-1].state == TrialState.COMPLETE


def test_half_written_files_beside_are_never_read(bench):
    lab, worker = bench
    folder = stopped_trial(lab, worker, 7e-4)
    for name in (f"~1-{STATE_FILE}", "~1-valid_losses.npy", "adapters/~1-adapters.safetensors"):
        (folder / name).write_bytes(b"half")
        count("half-written file")
    assert first_evaluation(lab, worker) == 3 * INTERVAL  # it was stopped at iteration 11
    trial = lab.trials()[-1]
    assert trial.state == TrialState.COMPLETE
    assert Place(lab.studies).trial_dir("tiny", trial.number) == folder
    assert not list(folder.rglob("~*"))


def test_storage_that_fails_in_a_trial_is_told_to_the_supervisor(bench, monkeypatch):
    lab, worker = bench
    lab.study.enqueue_trial({**SETTINGS, "learning_rate": 3.3e-3})

    def failing(*_):
        raise optuna.exceptions.StorageInternalError("database is locked")

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Trial, "report", failing)
        with (
            pytest.raises(StudyError, match=r"cannot be used: database is locked.*goes on"),
            storage_faults_told(worker.place),
        ):
            lab.run_next(worker)
    count("storage fault")
    (left,) = [t for t in lab.trials() if t.state == TrialState.RUNNING]
    reap_running(lab.study, GONE, left.user_attrs["worker"])


def test_worker_events_are_lines_of_json(bench):
    _, worker = bench
    lines = worker._events.getvalue().splitlines()
    kinds = {json.loads(line)["event"] for line in lines}
    assert {"trial_start", "trial_end", "eval", "iteration"} <= kinds
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # the worker was not let loose here


def test_space_is_the_studys(bench):
    lab, worker = bench
    done = [t for t in lab.trials() if t.state == TrialState.COMPLETE]
    assert all(t.distributions == distributions(worker.spec.search) for t in done)
