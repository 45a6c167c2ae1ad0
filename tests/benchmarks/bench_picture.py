"""What it costs to follow a sweep's events, to write them down, and to draw the live picture.

python tests/benchmarks/bench_picture.py
"""

import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from long_study import make_study
from rich.console import Console

from hawsweep.running.events import Event
from hawsweep.running.progress import Follower, read_progress, recording
from hawsweep.running.status import StatusReader
from hawsweep.study.place import Place
from hawsweep.views.terminal.progress import RunningPicture

_RUNS = 50
_SETTINGS = {"learning_rate": 1e-3, "lora_parameters.rank": 8, "iters": 1000}


def _events(n_workers: int) -> list[Event]:
    found = []
    for worker in range(n_workers):
        about = {"number": worker, "settings": _SETTINGS}
        found.append(Event("trial_start", worker, about))
        for step in range(20, 1000, 20):
            found.append(Event("eval", worker, {"iteration": step, "val_loss": 3 - step / 500}))
            report = {"train_loss": 2.0, "tokens_per_s": 70.0, "peak_memory_bytes": 10**9}
            found.append(Event("train", worker, report))
            found.append(Event("iteration", worker, {"iteration": step, "iters": 1000}))
    return found


def main() -> None:
    """Print milliseconds of processor time, each as minimum, median and maximum."""
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder) / "studies")
        make_study(place, 700)
        onlooker = StatusReader(place, "long")
        standing = onlooker.look().standing.to_plain()
        events = [Event("standing", values=standing), *_events(2)]
        follow = Follower(10)
        _measure(f"following {len(events)} events", lambda: [follow(event) for event in events])
        with recording(lambda _: None, place.study_dir("long")) as tell:
            for event in events:
                tell(event)
            time.sleep(1.1)
            tell(events[-1])
            _measure("reading progress", lambda: read_progress(place.study_dir("long")))
            _measure("looking again, --watch", onlooker.look)
        for width in (80, 140):
            console = Console(file=io.StringIO(), width=width, height=40, force_terminal=True)
            _measure(
                f"drawing, {width} columns",
                lambda at=console: at.print(RunningPicture(follow.state)),
            )


def _measure(name: str, run: Callable[[], object]) -> None:
    times = []
    for _ in range(_RUNS):
        started = time.process_time()
        run()
        times.append((time.process_time() - started) * 1000)
    low, middle, high = min(times), statistics.median(times), max(times)
    print(f"{name:28} {low:8.2f} {middle:8.2f} {high:8.2f} ms", flush=True)


if __name__ == "__main__":
    main()
