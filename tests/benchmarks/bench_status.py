"""How long `hawsweep status` takes on a long study, and `hawsweep --help`, each in its process.

python tests/benchmarks/bench_status.py [N_TRIALS]
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from long_study import make_study

from hawsweep.study import Place

_RUNS = 5
_STATUS = """
import sys, time
from pathlib import Path
from hawsweep.cli import main
from hawsweep.cli import common, looking
from hawsweep import overview
from hawsweep.display import tables
import alembic.command, alembic.config, alembic.migration, alembic.script, rich.console
started, used = time.perf_counter(), time.process_time()
try:
    main(["status", "long", "--studies-dir", sys.argv[1], *sys.argv[2:]])
finally:
    seconds = time.perf_counter() - started, time.process_time() - used
    print(*seconds, file=sys.stderr)
"""


def main() -> None:
    """Print the seconds, and those of the processor, each as minimum, median and maximum."""
    n_trials = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as folder:
        make_study(Place(Path(folder)), n_trials)
        for options in ((), ("--json",), ("--csv",), ("--all",)):
            command = [sys.executable, "-c", _STATUS, folder, *options]
            measured = []
            for _ in range(_RUNS):
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                measured.append([float(each) for each in done.stderr.split()[-2:]])
            _print(f"status {' '.join(options)}", measured)
    measured = []
    for _ in range(_RUNS):
        before, started = os.times(), time.perf_counter()
        command = [sys.executable, "-m", "hawsweep.cli", "--help"]
        subprocess.run(command, capture_output=True, check=True)
        wall, after = time.perf_counter() - started, os.times()
        used = sum(after[2:4]) - sum(before[2:4])  # of children
        measured.append([wall, used])
    _print("--help, whole process", measured)


def _print(name: str, measured: list[list[float]]) -> None:
    for what, values in zip(("wall", "processor"), zip(*measured, strict=True), strict=True):
        low, middle, high = min(values), statistics.median(values), max(values)
        print(f"{name:24} {what:10} {low:8.3f} {middle:8.3f} {high:8.3f}", flush=True)


if __name__ == "__main__":
    main()
