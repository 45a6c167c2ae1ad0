"""How long `hawsweep status`, `show` and `list` take on a long study, `list` on several such, and
`hawsweep --help`, each a process from its start to its end.

python tests/benchmarks/bench_status.py [N_TRIALS] [N_STUDIES]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from long_study import make_study

from hawsweep.study.place import Place

_RUNS = 5


def main() -> None:
    """Print the seconds, and those of the processor, each as minimum, median and maximum."""
    parser = argparse.ArgumentParser()
    parser.add_argument("n_trials", type=int, nargs="?", default=1000)
    parser.add_argument("n_studies", type=int, nargs="?", default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place, names = Place(Path(folder)), [f"long-{n}" for n in range(asked.n_studies)]
        make_study(place, asked.n_trials, name=names[0])
        where = f"--studies-dir={folder}"
        for options in ((), ("--json",), ("--csv",), ("--all",)):
            _measure("status", names[0], where, *options)
        _measure("show", names[0], "0", where)
        _measure("list", where)
        for name in names[1:]:
            make_study(place, asked.n_trials, name=name)
        print(f"with {asked.n_studies} studies:")
        _measure("list", where)
    _measure("--help")


def _measure(*arguments: str) -> None:
    command, measured = [sys.executable, "-m", "hawsweep.cli", *arguments], []
    for _ in range(_RUNS):
        before, started = os.times(), time.perf_counter()
        subprocess.run(command, capture_output=True, check=True)
        wall, after = time.perf_counter() - started, os.times()
        used = sum(after[2:4]) - sum(before[2:4])  # of children
        measured.append([wall, used])
    _print(" ".join(each for each in arguments if "=" not in each), measured)


def _print(name: str, measured: list[list[float]]) -> None:
    for what, values in zip(("wall", "processor"), zip(*measured, strict=True), strict=True):
        low, middle, high = min(values), statistics.median(values), max(values)
        print(f"{name:24} {what:10} {low:8.3f} {middle:8.3f} {high:8.3f}", flush=True)


if __name__ == "__main__":
    main()
