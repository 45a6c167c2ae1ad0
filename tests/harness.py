"""A sweep of the tiny model in a process of its own, and what must be true after any fault."""

import functools
import io
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from hawsweep.machine.backend import device_here

import forkserver
import optuna
import psutil
from optuna.trial import TrialState
from tiny_sweep import INTERVAL, tiny_sweep

from hawsweep.data.load import load_data
from hawsweep.machine.processes import identity
from hawsweep.running.worker import Worker
from hawsweep.search.distributions import distributions
from hawsweep.search.sampler import make_sampler
from hawsweep.spec.read import read_sweep
from hawsweep.study.place import Place, find_place
from hawsweep.study.provenance import fingerprints
from hawsweep.study.queue import ask
from hawsweep.study.storage import open_storage
from hawsweep.study.study import create_study

DRIVER = Path(__file__).with_name("driver.py")
N_THREADS = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def count(kind, number=1):
    """Add to the faults injected, which are printed when all tests have run."""
    if path := os.environ.get("HAWSWEEP_FAULTS_FILE"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{kind}\n" * number)


def note_pause(seconds):
    """Note how long the next trial took to begin after a death; all of them are printed as one."""
    count(f"pause {seconds:.2f}")


class Lab:
    """A folder with a sweep of the tiny model; ``start`` runs it as ``hawsweep start`` does."""

    def __init__(self, folder, model_dir, data_dir, **changes):
        self.folder, self.studies, self._storage = folder, folder / "studies", None
        content = tiny_sweep(model_dir, data_dir) | changes
        (folder / "sweep.yaml").write_text(json.dumps(content), encoding="utf-8")

    def start(self, *changes, warm=True):
        return Run(self.folder, changes, warm=warm)

    def finish(self, *changes):
        """Start, again and again if need be, until the sweep is done; give the last run."""
        for _ in range(10):
            with self.start(*changes) as run:
                run.wait()
            if run.ended:
                return run
        raise AssertionError(f"did not end: {run.events[-3:]}")

    def worker(self, model_dir, **setting):
        """A prepared worker in this process, of a study that is made for it."""
        spec, place = read_sweep(self.folder / "sweep.yaml"), Place(self.studies)
        prints = fingerprints(spec, model_dir, load_data(spec.data).fingerprint())
        self._storage = open_storage(place, create=True)
        create_study(self._storage, place, "tiny", spec, prints)
        asked = {
            "study": "tiny",
            "spec": spec.model_dump(mode="json", exclude_none=True),
            "studies_dir": str(self.studies),
            "storage_url": None,
            "budget_bytes": 2e9,
            "supervisor": identity(),
        }
        made = Worker(asked | setting, io.StringIO())
        made.prepare()
        return made

    def run_next(self, worker):
        """Have a worker in this process run the next trial."""
        spec, folder = worker.spec, self.studies / "tiny"
        owner, space = worker._identity, distributions(spec.search)
        make = partial(make_sampler, spec)
        n_trials = spec.trials + len(self.trials())  # more than the sweep asks for
        worker.trial(ask(worker._study, make, space, folder, owner, n_trials))

    @property
    def study(self):
        storage = self._storage or open_storage(find_place(self.studies))
        return optuna.load_study(storage=storage, study_name="tiny")

    def trials(self):
        return self.study.get_trials(deepcopy=False)

    def finished(self):
        """What is known of the trials that gave a result, by number."""
        return {
            trial.number: (trial.state, trial.value, trial.params, trial.intermediate_values)
            for trial in self.trials()
            if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        }

    def check(self, n_trials):
        """What must be true when a sweep is done, whatever happened to it."""
        trials = self.trials()
        states = [trial.state for trial in trials]
        assert TrialState.RUNNING not in states
        feasible = [trial for trial in trials if not trial.user_attrs.get("infeasible")]
        done = [t for t in feasible if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
        assert len(done) >= n_trials
        gone = [t.params for t in trials if t.user_attrs.get("infeasible")]
        assert len({json.dumps(p, sort_keys=True) for p in gone}) == len(gone)
        for trial in trials:
            continued = trial.user_attrs.get("continues")
            if continued is None or "repeats" not in trial.user_attrs:
                continue
            before = trials[continued["trial"]]
            reached = max(before.intermediate_values, default=0)
            assert reached - continued["iteration"] <= INTERVAL  # no more is done twice
        annotated = self.study._storage.get_study_system_attrs(self.study._study_id)
        for trial in trials:  # whatever happened to it, the dashboard tells of it
            if trial.state.is_finished():
                assert f"dashboard:{trial._trial_id}:note_ver" in annotated
        spec, _ = read_sweep(self.folder / "sweep.yaml").trained_longest()
        for trial in done:
            if trial.state == TrialState.COMPLETE:
                iters = trial.params.get("iters", spec.train.iters)
                steps = range(INTERVAL, iters + 1, INTERVAL)
                assert set(trial.intermediate_values) == set(steps)


@functools.cache
def warm_driver():
    """A process that has imported what sweeps need, to fork from."""
    command = [sys.executable, str(DRIVER.with_name("warm_driver.py"))]

    def start(descriptor):
        return subprocess.Popen(
            [*command, str(descriptor)],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            env={**os.environ, **N_THREADS},
            pass_fds=[descriptor],
            start_new_session=True,
        )

    return forkserver.ForkServer(start)


def can_fork():
    """Whether a process may fork that has imported what a worker needs.

    Not on a Mac, once the system's frameworks are loaded (``man 2 fork`` there, "CAVEATS"), nor
    after a look for a CUDA device, which importing mlx-lm is: CUDA is of one process.
    """
    return device_here() == "cpu"


class Run:
    """A running sweep; its events as they come.

    Args:
        warm: Whether it may be forked from a process that has imported all it needs.
    """

    def __init__(self, folder, changes, *, warm):
        self.events = []
        self._arrived = threading.Condition()
        environment, arguments = {**os.environ, **N_THREADS}, [str(folder), *changes]
        if warm and can_fork():
            self.process = warm_driver().fork(Path("/dev/stderr"))
            asked = {"environment": environment, "arguments": arguments}
            with self.process.stdin as stdin:
                stdin.write(f"{json.dumps(asked)}\n")
            wait_until(lambda: self.process.pid)
        else:
            self.process = subprocess.Popen(
                [sys.executable, str(DRIVER), *arguments],
                cwd=folder,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
            )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            for pid in [*self.workers().values(), self.process.pid]:
                kill(pid, 9)
        self.wait()
        self.process.stdout.close()

    def _read(self):
        for line in self.process.stdout:
            with self._arrived:
                self.events.append(json.loads(line))
                self._arrived.notify_all()
        with self._arrived:
            self._arrived.notify_all()

    def wait(self):
        code = self.process.wait(timeout=1800)  # against hanging; a first start measures
        self._reader.join()
        return code

    def next(self, kinds, after=0):
        """The first event of some kinds among those from a number on, and the number behind it;
        None where the run ends before.
        """
        with self._arrived:
            while True:
                for number in range(after, len(self.events)):
                    if self.events[number]["kind"] in kinds:
                        return self.events[number], number + 1
                after = len(self.events)
                if not self._reader.is_alive():
                    return None, after
                self._arrived.wait(0.2)

    @property
    def ended(self):
        return any(event["kind"] == "ended" for event in self.events)

    @property
    def error(self):
        errors = [event for event in self.events if event["kind"] == "error"]
        return errors[-1] if errors else None

    def workers(self):
        """Process ids of the workers that live, the oldest first."""
        try:
            found = workers_of(psutil.Process(self.process.pid))
        except psutil.NoSuchProcess:
            return {}
        return {number: each.pid for number, each in enumerate(found)}


def workers_of(process):
    """The worker processes that live of a process that supervises, the oldest first."""
    found = _started(process)
    if process.pid != os.getpid():  # the one that tests run in has what drivers are forked from
        for server in children_of(process, "warm_driver"):
            found += children_of(server, "warm_driver")
    return sorted(found, key=psutil.Process.create_time)


def spare_of(process):
    """The worker that is started ahead of a process that supervises."""
    (found,) = children_of(process, "hawsweep.running.worker ahead") - set(_started(process))
    return found


def _started(process):
    """Workers that know their setting, by which they are nicer than the supervisor."""
    found = []
    for child in children_of(process, "hawsweep.running.worker"):
        with suppress(psutil.Error):
            if child.nice() > process.nice():
                found.append(child)
    return found


def children_of(process, command):
    """Children with this in their command; one that just ended has none."""
    found = set()
    for child in process.children():
        with suppress(psutil.Error):
            if command in " ".join(child.cmdline()):
                found.add(child)
    return found


def kill(pid, number):
    """Send a signal; whether somebody was there to get it."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def pauses_after_deaths(events):
    """Seconds from each death of a worker to the next trial of the one in its place."""
    found = []
    for number, event in enumerate(events):
        if event["kind"] != "died":
            continue
        starts = [
            later["time"]
            for later in events[number:]
            if later["kind"] == "trial_start" and later["worker"] == event["worker"]
        ]
        if starts:
            found.append(starts[0] - event["time"])
    return found


def wait_until(holds, timeout_s=240):
    """Wait for something to become true; an overloaded machine may take minutes."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
