"""How long a sweep waits for its next trial when a worker dies, in studies of several sizes.

python tests/benchmarks/bench_pause.py
"""

import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import conftest
import optuna
import psutil
from harness import N_THREADS, Lab, kill, workers_of
from soak import Folders, made

from hawsweep.running.events import Event
from hawsweep.running.start import run_sweep
from hawsweep.spec.read import read_sweep

_SIZES = (5, 500, 1500)
_N_DEATHS = 5


class Striker:
    """Listens to a sweep: kills its worker in every second trial, and notes when the next begins.

    Attributes:
        pauses: Seconds from each death to the next trial.
    """

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self._died: float | None = None
        self._strikes = True

    def __call__(self, event: Event) -> None:
        """Ends the sweep after the last."""
        if event.kind == "died":
            self._died = time.monotonic()
        elif event.kind == "trial_start" and self._died is not None:
            self.pauses.append(time.monotonic() - self._died)
            self._died = None
        elif event.kind == "trial_end" and event.values["state"] == "complete":
            self._strikes = True
            if len(self.pauses) >= _N_DEATHS:
                signal.raise_signal(signal.SIGINT)
        elif event.kind == "eval" and self._strikes:
            self._strikes = False
            kill(workers_of(psutil.Process())[0].pid, signal.SIGKILL)


def main() -> None:
    """Print minimum, median and maximum of each size."""
    os.environ.update(N_THREADS)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folders = Folders(folder)
        model = made(conftest.tiny_model_dir, folders, made(conftest.tokenizer))
        lab = Lab(folder, model, made(conftest.chat_data_dir, folders))
        pauses(lab, 2)  # the study is made, the model measured
        print("seconds from a worker's death to the next trial")
        print("trials in the study      minimum, median, maximum")
        for n_trials in _SIZES:
            n_missing = n_trials - len(lab.trials())
            lab.study.add_trials([lab.study.best_trial] * n_missing)
            found = pauses(lab, 10_000)
            each = f"{min(found):5.2f} {statistics.median(found):5.2f} {max(found):5.2f}"
            print(f"{n_trials:10d}          ", each, sep="   ", flush=True)


def pauses(lab: Lab, n_trials: int) -> list[float]:
    """Of one run of the sweep."""
    listen = Striker()
    spec = read_sweep(lab.folder / "sweep.yaml", {"trials": n_trials})
    run_sweep(spec, "tiny", studies_dir=lab.studies, on_event=listen)
    return listen.pauses


if __name__ == "__main__":
    main()
