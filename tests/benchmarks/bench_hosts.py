"""The load of a trial on a study's database: queries and milliseconds of each part of its course,
in a study of many trials; and how many trials workers on several hosts run beside each other.

python tests/benchmarks/bench_hosts.py [--finished N ...] [--running N ...]
python tests/benchmarks/bench_hosts.py --throughput
"""

import argparse
import multiprocessing
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import optuna
from long_study import SPEC, make_study
from optuna.storages import RDBStorage
from optuna.trial import TrialState, create_trial
from sqlalchemy import event
from storage_servers import postgres, serving_storage

from hawsweep.machine.processes import identity
from hawsweep.notes.annotate import annotate_trials
from hawsweep.planning.share_memory import WorkerShares
from hawsweep.running.supervisor import Supervisor
from hawsweep.search.distributions import distributions
from hawsweep.search.sampler import make_sampler
from hawsweep.study.attributes import WORKER
from hawsweep.study.confirm import load_confirmation, open_confirmation
from hawsweep.study.leases import leased, register_of, turn
from hawsweep.study.optuna_door import storage_of, trial_id, trial_to_run
from hawsweep.study.place import Place
from hawsweep.study.presence import Presence
from hawsweep.study.queue import ask
from hawsweep.study.storage import open_storage
from hawsweep.study.study import create_study, load_study

_TRIALS = 3
_EVALUATIONS = 5


class Load:
    """The queries and seconds of named parts."""

    def __init__(self) -> None:
        self.queries: dict[str, list[int]] = {}
        self.ms: dict[str, list[float]] = {}
        self._n = 0

    def watch(self, storage: RDBStorage) -> None:
        """Count the queries of a storage."""
        event.listen(storage.engine, "before_cursor_execute", self._count)

    def _count(self, *_: object) -> None:
        self._n += 1

    def of(self, part, do):
        """Do something as a part of a trial's course."""
        before, started = self._n, time.perf_counter()
        answer = do()
        self.ms.setdefault(part, []).append(1000 * (time.perf_counter() - started))
        self.queries.setdefault(part, []).append(self._n - before)
        return answer


def measure(folder: Path, n_finished: int, n_running: int) -> Load:
    """Run some trials' courses, without training, beside others that run."""
    place, load = Place(folder), Load()
    make_study(place, n_finished)
    storage, workers_storage = open_storage(place), open_storage(place)
    study = optuna.load_study(storage=storage, study_name="long")
    owner = {"host": "elsewhere", "boot": "1", "pid": 7, "started": 1.0}
    for _ in range(n_running - 1):
        study.add_trial(create_trial(state=TrialState.RUNNING, user_attrs={WORKER: owner}))
    confirming = open_confirmation(storage, study, SPEC)
    presence = Presence(place, "long")
    presence.add_studies(study, confirming)
    shares = WorkerShares(n_workers=1, bytes_each=None, left_out={}, known={})
    supervisor = Supervisor(
        SPEC, "long", place, study, confirming, shares, lambda _: None, presence, {}, joins=False
    )
    workers = optuna.load_study(storage=workers_storage, study_name="long")
    for each in (study, workers):
        each.get_trials(deepcopy=False)  # read once, when a process begins
    load.watch(storage)
    load.watch(workers_storage)
    for _ in range(_TRIALS):
        number = load.of("propose", lambda: _ask(study, confirming, place))
        load.of("work", supervisor._work)
        trial = load.of("begin", partial(trial_to_run, workers, number))
        for step in range(_EVALUATIONS):
            load.of("evaluation", partial(_evaluate, workers, trial, step))
        load.of("tell", partial(workers.tell, trial, 0.5))
        load.of("look", supervisor._look)
        load.of("note", partial(annotate_trials, study, place, [number]))
    presence.close()
    storage.engine.dispose()
    workers_storage.engine.dispose()
    return load


def _ask(study, confirming, place):
    space, make = distributions(SPEC.search), partial(make_sampler, SPEC)
    folder, turns = place.study_dir("long"), turn(confirming, register_of(place))
    return ask(study, make, space, folder, identity(), 10**6, turns=turns)


def _evaluate(study, trial, step):
    """As ``TrialWatch`` does at an evaluation."""
    for key in ("val_loss", "best_iteration"):
        trial.set_user_attr(key, 1.0 + step)
    trial.report(-1.0 - step, step)
    storage_of(study).get_trial(trial_id(trial))
    trial.should_prune()


def work(folder, url, n_trials, trial_s, at_once, seconds):
    """A host: ask, sleep as if a trial trained, with its evaluations, and tell, so many times."""
    place = Place(folder, url)
    place.study_dir("long").mkdir(parents=True)
    storage = open_storage(place, patient=True)
    study, confirming = load_study(storage, "long"), load_confirmation(storage, "long", SPEC)
    at_once.wait()
    began = time.monotonic()
    for _ in range(n_trials):
        number = _ask(study, confirming, place)
        trial = trial_to_run(study, number)
        with leased(study, number, lambda: None):
            for step in range(_EVALUATIONS):
                time.sleep(trial_s / _EVALUATIONS)
                _evaluate(study, trial, step)
        study.tell(trial, 0.5)
    seconds.put(time.monotonic() - began)


def efficiency(folder: Path, url: str, n_hosts: int, trial_s: float, n_trials: int = 4) -> float:
    """Trials per hour of some hosts, as a share of what they run without a database."""
    place = Place(folder / "starter", url)
    storage = open_storage(place, create=True)
    study, _ = create_study(storage, place, "long", SPEC, {})
    open_confirmation(storage, study, SPEC)
    context = multiprocessing.get_context("spawn")
    at_once, seconds = context.Barrier(n_hosts), context.Queue()
    hosts = [
        context.Process(
            target=work, args=(folder / f"{n}", url, n_trials, trial_s, at_once, seconds)
        )
        for n in range(n_hosts)
    ]
    for host in hosts:
        host.start()
    longest_s = max(seconds.get(timeout=600) for _ in hosts)
    for host in hosts:
        host.join()
    return n_trials * trial_s / longest_s


def throughput(trial_s: float) -> None:
    """Print a line for each number of hosts and storage."""
    for n_hosts in (1, 2, 4):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            open_storage(Place(folder / "starter"), create=True)
            with serving_storage(Place(folder / "starter").url) as url:
                by_proxy = efficiency(folder, url, n_hosts, trial_s)
        with tempfile.TemporaryDirectory() as name, postgres() as server:
            by_server = efficiency(Path(name), server.url, n_hosts, trial_s)
        print(
            f"{n_hosts} hosts, trials of {trial_s:g} s: {by_proxy:.3f} of ideal by a proxy of "
            f"SQLite, {by_server:.3f} by PostgreSQL",
            flush=True,
        )


def main() -> None:
    """Print a line for each number of trials that are finished, and that run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--throughput", action="store_true")
    parser.add_argument("--trial-s", type=float, default=20.0)
    parser.add_argument("--finished", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--running", type=int, nargs="+", default=[4, 100, 1000])
    asked = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if asked.throughput:
        throughput(asked.trial_s)
        return
    for n_finished in asked.finished:
        for n_running in asked.running:
            with tempfile.TemporaryDirectory() as folder:
                load = measure(Path(folder), n_finished, n_running)
            print(f"{n_finished} finished, {n_running} running: queries, ms of each part")
            for part, queries in load.queries.items():
                ms = load.ms[part]
                print(
                    f"  {part:12} {min(queries):5} {max(queries):5} {min(ms):9.1f} {max(ms):9.1f}"
                )


if __name__ == "__main__":
    main()
