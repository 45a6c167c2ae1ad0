"""Half an hour of a sweep that is never left in peace: a worker killed every 20 s, a dashboard
asked every second, ``status --watch`` beside it. Nothing that finished may be lost.

    python tests/benchmarks/soak.py --minutes 30
"""

import argparse
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import conftest
import optuna
from harness import N_THREADS, Lab, kill, pauses_after_deaths
from optuna.trial import TrialState

N_WORKERS = 3
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGABRT, signal.SIGSEGV)


class Folders:
    """Temporary folders as pytest's fixtures ask for them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def mktemp(self, name: str) -> Path:
        """A new one."""
        (self._folder / name).mkdir()
        return self._folder / name


def made(fixture, *arguments):
    """What a fixture gives."""
    return fixture._get_wrapped_function()(*arguments)


def poll(url: str, ended: threading.Event, counts: dict[str, int]) -> None:
    """Ask the dashboard for its study every second."""
    while not ended.wait(1.0):
        for path in ("/api/studies", "/api/studies/1?after=0"):
            try:
                with urllib.request.urlopen(f"{url}{path}", timeout=10) as answer:
                    answer.read()
                counts["answers"] += 1
            except OSError:
                counts["no answer"] += 1


def free_port() -> int:
    """A port that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    """Run, strike, and count what is lost."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        soak(Path(name), asked.minutes)


def soak(folder: Path, minutes: float) -> None:
    """One run in a folder."""
    folders, generator = Folders(folder), random.Random(0)
    tokenizer = made(conftest.tokenizer)
    model = made(conftest.tiny_model_dir, folders, tokenizer)
    data = made(conftest.chat_data_dir, folders)
    lab = Lab(folder, model, data, workers=N_WORKERS, search={"iters": {"choices": [100, 200]}})
    hawsweep = [sys.executable, "-m", "hawsweep.cli"]
    counts = {"answers": 0, "no answer": 0, "strikes": 0, "starts": 1}
    ended, events, port = threading.Event(), [], free_port()
    until = time.monotonic() + 60 * minutes
    with contextlib.ExitStack() as held:
        run = lab.start("trials=10000", warm=False)
        if run.next(("trial_start",))[0] is None:
            raise SystemExit(f"no trial began: {run.error}")
        for command in (["dashboard", f"--port={port}"], ["status", "tiny", "--watch"]):
            beside = subprocess.Popen(
                [*hawsweep, *command, f"--studies-dir={lab.studies}"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **N_THREADS},
            )
            held.callback(beside.wait)
            held.callback(beside.terminate)
        poller = threading.Thread(
            target=poll, args=(f"http://127.0.0.1:{port}", ended, counts), daemon=True
        )
        poller.start()
        held.callback(ended.set)
        while time.monotonic() < until:
            time.sleep(20)
            if run.process.poll() is not None:  # three of one kind in a row: it stops by design
                events += run.events
                run.__exit__()
                counts["starts"] += 1
                run = lab.start("trials=10000", warm=False)
                run.next(("trial_start",))
            workers = list(run.workers().values())
            if workers and kill(generator.choice(workers), generator.choice(SIGNALS)):
                counts["strikes"] += 1
        kill(run.process.pid, signal.SIGINT)
        run.wait()
        events += run.events
    report(lab, events, counts)


def report(lab: Lab, events: list, counts: dict[str, int]) -> None:
    """Compare what the sweep said with what the database has."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    trials = lab.trials()
    ends = [event["values"] for event in events if event["kind"] == "trial_end"]
    complete = {end["number"]: end["score"] for end in ends if end["state"] == "complete"}
    lost = [
        number
        for number, score in complete.items()
        if trials[number].state != TrialState.COMPLETE or trials[number].value != score
    ]
    running = [t.number for t in trials if t.state == TrialState.RUNNING]
    pauses = sorted(pauses_after_deaths(events))
    print(f"{counts}")
    print(f"{len(complete)} trials complete, {len(lost)} lost, {len(running)} left running")
    print(
        f"{len(pauses)} deaths, from each to the next trial: median "
        f"{pauses[len(pauses) // 2]:.2f} s, at most {pauses[-1]:.2f} s"
    )
    lab.check(len(complete))
    sys.exit(1 if lost or running else 0)


if __name__ == "__main__":
    main()
